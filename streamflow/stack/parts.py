"""Which parts a stack has. A new one is one more entry in `plan`."""

import json
import sys
import urllib.error
import urllib.request
from collections.abc import Collection, Mapping
from functools import partial
from http.client import HTTPException

from streamflow.errors import UsageError
from streamflow.kafka.clients import admin
from streamflow.settings import Settings
from streamflow.stack.broker import Broker, Node, probe_cluster
from streamflow.stack.database import Database, probe_url
from streamflow.stack.part import READY, Health, Part, Stage
from streamflow.stack.process import Launch
from streamflow.stack.state import State

PROBE_SECONDS = 2.0
DETAIL_LIMIT = 300
WORKERS = ("validator", "analytics", "loader")
DASHBOARD = "dashboard"
NAMES = ("kafka", "postgres", "producer", *WORKERS, DASHBOARD)


def broker_of(settings: Settings, state: State) -> Broker:
    """The embedded broker of a stack."""
    node = Node(
        1, settings.port("kafka"), settings.port("controller"), state.directory / "kafka" / "1"
    )
    return Broker(node, log=state.logs / "kafka.log")


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
        _kafka(settings, state),
        _postgres(settings, state),
        *(worker(name, ("worker", name, "--instance", f"{name}-0")) for name in WORKERS),
        worker("producer", ("produce",)),
        _dashboard(settings, state, environment),
    )
    return tuple(part for part in parts if part.name not in without)


def _kafka(settings: Settings, state: State) -> Part:
    if settings.kafka_bootstrap_servers:
        return Part(
            name="kafka",
            stage=Stage.SERVICES,
            launch=None,
            probe=partial(probe_cluster, admin(settings)),
            address=settings.kafka_bootstrap_servers,
        )
    broker = broker_of(settings, state)
    return Part(
        name="kafka",
        stage=Stage.SERVICES,
        prepare=broker.prepare,
        launch=broker.launch,
        probe=broker.probe,
        ports=(broker.node.port, broker.node.controller_port),
        address=broker.bootstrap,
    )


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
    port = settings.port(name)
    program = (sys.executable, "-m", "streamflow.cli.app")
    url = f"http://{settings.host}:{port}"

    def launch() -> Launch:
        return Launch(
            command=(*program, *command, "--health-port", str(port)),
            log=state.logs / f"{name}.log",
            environment=environment,
        )

    return Part(
        name=name,
        stage=Stage.WORKERS,
        launch=launch,
        probe=partial(probe_http, f"{url}/ready"),
        ports=(port,),
        address=f"{url}/metrics",
        # A worker has 10 s to finish its batch; a little more before it is killed.
        stop_seconds=11.0,
    )


def _dashboard(settings: Settings, state: State, environment: Mapping[str, str]) -> Part:
    port = settings.port(DASHBOARD)
    url = f"http://{settings.host}:{port}"

    def launch() -> Launch:
        return Launch(
            command=(sys.executable, "-m", "streamflow.cli.app", DASHBOARD, "--port", str(port)),
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


def probe_http(url: str) -> Health:
    """Asks a worker whether it is ready."""
    try:
        with urllib.request.urlopen(url, timeout=PROBE_SECONDS):  # noqa: S310 (our own address)
            return READY
    except urllib.error.HTTPError as error:
        with error:
            return Health(answered=True, ready=False, detail=_reason(error.read(16_384)))
    except (OSError, HTTPException) as error:
        return Health(answered=False, ready=False, detail=f"does not answer: {error}")


def _reason(body: bytes) -> str:
    text = body.decode("utf-8", "replace").strip()
    try:
        found = json.loads(text)
        text = str(found["reason"] if isinstance(found, dict) and "reason" in found else text)
    except ValueError:
        pass
    return " ".join(text.split())[:DETAIL_LIMIT] or "not ready"
