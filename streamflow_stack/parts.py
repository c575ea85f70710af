"""The parts of a stack. A new one is one more entry in `plan`."""

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

from streamflow import extras
from streamflow.errors import UsageError
from streamflow.kafka.clients import admin
from streamflow.settings import BROKERS, Settings
from streamflow_stack import orchestration
from streamflow_stack.broker import probe_cluster
from streamflow_stack.cluster import broker_parts
from streamflow_stack.database import Database, DatabaseProbe
from streamflow_stack.part import LOOPBACK, Health, Part, Patience, Stage
from streamflow_stack.part_names import CHOICES, DAGSTER, DAGSTER_PARTS, DASHBOARD, INGEST, WORKERS
from streamflow_stack.probes import probe_http, probe_worker
from streamflow_stack.process import Launch, own_command
from streamflow_stack.state import StateDirectory

# Parts that come and go together.
_GROUPS = {BROKERS[0]: BROKERS, DAGSTER: DAGSTER_PARTS}
# Parts whose extra has the part's name.
_OF_EXTRAS = (DAGSTER, "bridge", INGEST, DASHBOARD)


def left_out(settings: Settings, without: Collection[str] = ()) -> dict[str, str]:
    """The parts that cannot run because their extra is not installed, and why. Those of `without` are not
    wanted anyway."""
    return {
        part: extras.missing(part, part)
        for part in _OF_EXTRAS
        if part not in {*without, *_not_enabled(settings)} and not extras.is_installed(part)
    }


def started_last(settings: Settings, without: Collection[str]) -> list[str]:
    """The parts of the last stage, by the names that `--without` takes."""
    unwanted = {BROKERS[0], "postgres", *without, *_not_enabled(settings)}
    return [name for name in CHOICES if name not in unwanted]


def _not_enabled(settings: Settings) -> list[str]:
    """The parts that only run if a setting says so."""
    return [] if settings.ingest_enabled else [INGEST]


def database_of(settings: Settings, state: StateDirectory) -> Database:
    return Database(
        state.directory / "postgres", settings.port("postgres"), log=state.logs / "postgres.log"
    )


def plan(
    settings: Settings,
    state: StateDirectory,
    environment: Mapping[str, str],
    without: Collection[str] = (),
) -> tuple[Part, ...]:
    """The parts to run, in the order in which they start.

    Args:
        environment: for the workers; filled once broker and database are up.
        without: names to leave out; UsageError if one is unknown.
    """
    unknown = sorted(set(without) - set(CHOICES))
    if unknown:
        raise UsageError(f"there is no part named {unknown[0]}: parts are {', '.join(CHOICES)}")

    def part(name: str, probe: Callable[[], Health], *command: str, **options: Any) -> Part:
        def launch() -> Launch:
            return Launch(own_command(*command), state.logs / f"{name}.log", environment)

        return Part(name, Stage.WORKERS, launch, probe, **options)

    # What clients reach besides health and metrics.
    served = {"bridge": (settings.bridge, "Socket.IO"), INGEST: (settings.ingest, "HTTP")}

    def worker(name: str, *command: str) -> Part:
        port = settings.port(f"{name}-health" if name in served else name)
        url = f"http://{settings.host}:{port}"
        ports: tuple[int, ...] = (port,)
        address = f"{url}/metrics"
        if name in served:
            public, protocol = served[name]
            ports = (public, port)
            address = f"http://{settings.host}:{public} ({protocol})"
        return part(
            name,
            partial(probe_worker, url),
            *(*command, "--health-port", str(port)),
            ports=ports,
            address=address,
            # A worker has 10 s to finish its batch; a little more before it is killed.
            stop_seconds=11.0,
            patience=Patience(),
        )

    port = settings.port(DASHBOARD)
    url = f"http://{settings.host}:{port}"
    parts = (
        *_kafka(settings, state),
        _postgres(settings, state),
        *(worker(name, "worker", name, "--instance", f"{name}-0") for name in WORKERS),
        worker("bridge", "worker", "bridge"),
        worker(INGEST, "worker", INGEST, "--instance", f"{INGEST}-0"),
        worker("producer", "produce", "--all"),
        *_dagster(settings, state, environment, embedded="postgres" not in without),
        part(
            DASHBOARD,
            partial(probe_http, f"{url}/readyz"),
            *(DASHBOARD, "--port", str(port)),
            ports=(port,),
            address=url,
        ),
    )
    unwanted = (*without, *_not_enabled(settings))
    gone = {name for chosen in unwanted for name in _GROUPS.get(chosen, (chosen,))}
    return tuple(part for part in parts if part.name not in gone)


def _kafka(settings: Settings, state: StateDirectory) -> tuple[Part, ...]:
    if not settings.kafka_bootstrap_servers:
        return broker_parts(settings, state)
    probe = partial(probe_cluster, admin(settings))
    address = settings.kafka_bootstrap_servers
    return (Part("kafka", Stage.SERVICES, launch=None, probe=probe, address=address),)


def _postgres(settings: Settings, state: StateDirectory) -> Part:
    if settings.database_url:
        probe = DatabaseProbe(lambda: settings.database)
        address = "as DATABASE_URL says"
        return Part("postgres", Stage.SERVICES, launch=None, probe=probe, address=address)
    database = database_of(settings, state)
    return Part(
        name="postgres",
        stage=Stage.SERVICES,
        prepare=database.prepare,
        launch=database.launch,
        probe=database.probe,
        ports=(database.port,),
        address=f"{LOOPBACK}:{database.port}, database streamflow",
    )


def _dagster(
    settings: Settings, state: StateDirectory, environment: Mapping[str, str], *, embedded: bool
) -> tuple[Part, ...]:
    def database() -> str:
        if embedded and settings.dagster_database_url is None and settings.database_url is None:
            return database_of(settings, state).ensure_database(orchestration.DATABASE)
        return orchestration.database_url(settings)

    home = orchestration.Home(settings, database)
    return orchestration.dagster_parts(home, state.logs, environment)
