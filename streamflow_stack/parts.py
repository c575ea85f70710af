"""Which parts a stack has. A new one is one more entry in `plan`."""

import json
import urllib.error
import urllib.request
from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import partial
from http.client import HTTPException

from streamflow.errors import UsageError, cause_of
from streamflow.kafka.clients import admin
from streamflow.settings import BROKERS, Settings
from streamflow_stack.broker import probe_cluster
from streamflow_stack.cluster import broker_parts
from streamflow_stack.database import Database, probe_url
from streamflow_stack.orchestration import DATABASE as DAGSTER_DATABASE
from streamflow_stack.orchestration import STOP_SECONDS, URL_VARIABLE, InstanceProbe
from streamflow_stack.part import READY, Health, Part, Patience, Report, Stage
from streamflow_stack.process import Launch, own_command
from streamflow_stack.state import State

PROBE_SECONDS = 2.0
DETAIL_LIMIT = 300
WORKERS = ("validator", "analytics", "loader")
DAGSTER = "dagster"
DASHBOARD = "dashboard"
NAMES = ("kafka", "postgres", "producer", *WORKERS, "bridge", DAGSTER, DASHBOARD)


def database_of(settings: Settings, state: State) -> Database:
    """The embedded database of a stack."""
    return Database(
        state.directory / "postgres", settings.port("postgres"), log=state.logs / "postgres.log"
    )


def plan(
    settings: Settings,
    state: State,
    environment: Mapping[str, str],
    without: Collection[str] = (),
) -> tuple[Part, ...]:
    """The parts to run, in the order in which they start.

    Args:
        environment: for the workers; filled by the supervisor once broker and database are up.
        without: names to leave out.

    Raises:
        UsageError: a name to leave out is of no part.
    """
    unknown = sorted(set(without) - set(NAMES))
    if unknown:
        raise UsageError(f"there is no part named {unknown[0]}: parts are {', '.join(NAMES)}")
    worker = partial(_worker, settings, state, environment)
    parts = (
        *_kafka(settings, state),
        _postgres(settings, state),
        *(worker(name, ("worker", name, "--instance", f"{name}-0")) for name in WORKERS),
        _bridge(settings, worker("bridge", ("worker", "bridge"))),
        worker("producer", ("produce",)),
        _dagster(settings, state, environment, embedded="postgres" not in without),
        _dashboard(settings, state, environment),
    )
    # The further nodes of the embedded Kafka come and go with the first.
    gone = {*without, *(BROKERS if BROKERS[0] in without else ())}
    return tuple(part for part in parts if part.name not in gone)


def _kafka(settings: Settings, state: State) -> tuple[Part, ...]:
    if not settings.kafka_bootstrap_servers:
        return broker_parts(settings, state)
    given = Part(
        name="kafka",
        stage=Stage.SERVICES,
        launch=None,
        probe=partial(probe_cluster, admin(settings)),
        address=settings.kafka_bootstrap_servers,
    )
    return (given,)


def _postgres(settings: Settings, state: State) -> Part:
    if settings.database_url:
        return Part(
            name="postgres",
            stage=Stage.SERVICES,
            launch=None,
            probe=partial(probe_url, settings.database),
            address="as DATABASE_URL says",
        )
    database = database_of(settings, state)
    return Part(
        name="postgres",
        stage=Stage.SERVICES,
        prepare=database.prepare,
        launch=database.launch,
        probe=database.probe,
        ports=(database.port,),
        address=f"127.0.0.1:{database.port}, database streamflow",
    )


def _worker(
    settings: Settings,
    state: State,
    environment: Mapping[str, str],
    name: str,
    command: tuple[str, ...],
) -> Part:
    port = settings.port("bridge-health" if name == "bridge" else name)
    url = f"http://{settings.host}:{port}"

    def launch() -> Launch:
        return Launch(
            command=own_command(*command, "--health-port", str(port)),
            log=state.logs / f"{name}.log",
            environment=environment,
        )

    return Part(
        name=name,
        stage=Stage.WORKERS,
        launch=launch,
        probe=partial(probe_worker, url),
        ports=(port,),
        address=f"{url}/metrics",
        # A worker has 10 s to finish its batch; a little more before it is killed.
        stop_seconds=11.0,
        patience=Patience(),
    )


def _dagster(
    settings: Settings, state: State, environment: Mapping[str, str], *, embedded: bool
) -> Part:
    """Webserver, daemon and code server, under a process of their own."""
    url = dagster_url(settings)
    probe = InstanceProbe(url)
    given = settings.dagster_database_url or settings.database_url
    database = database_of(settings, state) if embedded and given is None else None

    def prepare(_report: Report) -> None:
        if database is not None:
            database.ensure_database(DAGSTER_DATABASE)

    def launch() -> Launch:
        probe.launched()
        own = {URL_VARIABLE: database.url(DAGSTER_DATABASE)} if database is not None else {}
        return Launch(
            command=own_command(DAGSTER),
            log=state.logs / f"{DAGSTER}.log",
            environment={**environment, **own},
        )

    return Part(
        name=DAGSTER,
        stage=Stage.WORKERS,
        prepare=prepare,
        launch=launch,
        probe=probe,
        ports=(settings.port("dagster"), settings.port("dagster-code")),
        address=url,
        # Its three processes end in two steps.
        stop_seconds=3 * STOP_SECONDS,
    )


def dagster_url(settings: Settings) -> str:
    """Where the webserver answers."""
    return f"http://{settings.host}:{settings.port('dagster')}"


def _bridge(settings: Settings, worker: Part) -> Part:
    """The one worker that others connect to."""
    return replace(
        worker,
        ports=(settings.bridge, *worker.ports),
        address=f"http://{settings.host}:{settings.bridge} (Socket.IO)",
    )


def _dashboard(settings: Settings, state: State, environment: Mapping[str, str]) -> Part:
    port = settings.port(DASHBOARD)
    url = f"http://{settings.host}:{port}"

    def launch() -> Launch:
        return Launch(
            command=own_command(DASHBOARD, "--port", str(port)),
            log=state.logs / f"{DASHBOARD}.log",
            environment=environment,
        )

    return Part(
        name=DASHBOARD,
        stage=Stage.WORKERS,
        launch=launch,
        probe=partial(probe_http, f"{url}/readyz"),
        ports=(port,),
        address=url,
    )


def probe_worker(url: str) -> Health:
    """Asks a worker whether it is ready, and if it is not, whether it is healthy at all.

    ``/ready`` asks the dependencies and may take long while they are away; ``/health`` asks nobody.
    """
    found = probe_http(f"{url}/ready")
    if found.ready:
        return found
    health = probe_http(f"{url}/health")
    if health.answered and not health.ready:
        return replace(health, hung=True)
    return replace(found, answered=health.answered)


def probe_http(url: str) -> Health:
    """Asks an address whether all is well there."""
    try:
        with urllib.request.urlopen(url, timeout=PROBE_SECONDS):  # noqa: S310 (our own address)
            return READY
    except urllib.error.HTTPError as error:
        with error:
            return Health(answered=True, ready=False, detail=_reason(error.read(16_384)))
    except (OSError, HTTPException) as error:
        return Health(answered=False, ready=False, detail=f"does not answer: {cause_of(error)}")


def _reason(body: bytes) -> str:
    text = body.decode("utf-8", "replace").strip()
    try:
        found = json.loads(text)
        text = str(found["reason"] if isinstance(found, dict) and "reason" in found else text)
    except ValueError:
        pass
    return " ".join(text.split())[:DETAIL_LIMIT] or "not ready"
