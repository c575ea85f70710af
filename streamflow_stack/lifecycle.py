"""From nothing to a running stack, and back."""

import contextlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import psutil
from pydantic import SecretStr

from streamflow.errors import StackError
from streamflow.registry import load_streams
from streamflow.settings import BROKERS, Settings
from streamflow_stack.embedded import needed, require_installed
from streamflow_stack.orchestration import dagster_url
from streamflow_stack.part import LOOPBACK, Part, StackReport, Stage
from streamflow_stack.part_names import DAGSTER
from streamflow_stack.parts import database_of, left_out, plan, started_last
from streamflow_stack.preflight import check_disk, check_ports, explain_os_error
from streamflow_stack.process import end_leftovers
from streamflow_stack.signals import StopSignals
from streamflow_stack.state import StateDirectory, state_lock, state_of
from streamflow_stack.supervisor import Member, Supervisor

SERVICES_SECONDS = 120.0
WORKERS_SECONDS = 90.0
DOWN_SECONDS = 40.0


@dataclass(frozen=True)
class Stack:
    settings: Settings  # with the addresses of the embedded broker and database
    state: StateDirectory
    members: list[Member]
    missing: list[Member]  # not up yet


@dataclass(frozen=True)
class UpRequest:
    without: Collection[str]  # parts to leave out
    arrange: Callable[
        [Settings], Settings
    ]  # puts topics and schema in place; names the streams to run
    when_up: Callable[[Stack], None]  # called once everything has been started


def up(load: Callable[[], Settings], request: UpRequest, report: StackReport) -> None:
    """Runs a stack until a stop signal comes.

    Args:
        load: reads the settings; called again without the coordinates that a crashed run left.

    Raises:
        StackError: the stack cannot start; nothing is left running.
        KeyboardInterrupt: a stop signal came before everything was up.
    """
    state = state_of(load())
    with _held(state, report) as signals:
        # A crashed run's coordinates would pass for a broker and database of yours.
        state.coordinates.unlink(missing_ok=True)
        settings = load()
        _run(settings, state, _possible(settings, request, report), report, signals)


def run_parts(
    settings: Settings, state: StateDirectory, parts: Sequence[Part], report: StackReport
) -> None:
    """Runs parts of the last stage, and nothing else, until a stop signal comes.

    Args:
        state: of these parts alone, beside that of a whole stack.

    Raises:
        StackError: one does not start, or the same parts are running already.
    """
    with contextlib.suppress(KeyboardInterrupt), _held(state, report) as signals:
        _check_ports(settings, parts)
        supervisor = Supervisor(state, parts, report, signals)
        try:
            supervisor.start(Stage.WORKERS)
            supervisor.wait_until_up(Stage.WORKERS, WORKERS_SECONDS, strict=True)
            supervisor.watch()
        finally:
            supervisor.stop()


@contextlib.contextmanager
def _held(state: StateDirectory, report: StackReport) -> Iterator[StopSignals]:
    """Inside, the state directory is ours, and nothing of a crashed run is left."""
    state.create()
    try:
        with state_lock(state):
            try:
                with StopSignals() as signals:
                    for line in end_leftovers(state.run):
                        report.say(line)
                    yield signals
            finally:
                state.snapshot.unlink(missing_ok=True)
    except OSError as error:
        raise explain_os_error(error, state.directory) from error


def _check_ports(settings: Settings, parts: Sequence[Part]) -> None:
    for stage in Stage:
        host = LOOPBACK if stage is Stage.SERVICES else settings.host
        check_ports(host, ((p.name, n) for p in parts if p.stage is stage for n in p.ports))


def _possible(settings: Settings, request: UpRequest, report: StackReport) -> UpRequest:
    """The request without the parts whose extra is not installed. Raises ExtraMissing if that is broker or
    database."""
    require_installed(needed(settings, request.without))
    lacking = left_out(settings, request.without)
    for reason in lacking.values():
        report.say(f"left out: {reason}")
    return replace(request, without={*request.without, *lacking})


def _run(
    settings: Settings,
    state: StateDirectory,
    request: UpRequest,
    report: StackReport,
    signals: StopSignals,
) -> None:
    check_disk(state.directory)
    environment: dict[str, str] = {}
    parts = plan(settings, state, environment, request.without)
    _check_ports(settings, parts)
    supervisor = Supervisor(state, parts, report, signals)
    try:
        report.say("stage 1 of 3: broker and database")
        supervisor.start(Stage.SERVICES)
        missing = supervisor.wait_until_up(Stage.SERVICES, SERVICES_SECONDS, strict=True)
        if missing:
            raise StackError(
                f"{missing[0].part.name} is not ready after {SERVICES_SECONDS:g} s "
                f"({missing[0].detail}): see its log in {state.logs}"
            )
        given, settings = settings, _with_coordinates(settings, state, request.without)
        report.say("stage 2 of 3: topics and schema")
        with signals.interrupting():
            settings = request.arrange(settings)
        _announce(settings, environment, request.without)
        names = [stream.name for stream in load_streams(settings)]
        state.write_coordinates(settings, names, database_embedded=given.database_url is None)
        report.say(
            f"stage 3 of 3: {', '.join(started_last(settings, request.without)) or 'nothing to start'}"
        )
        supervisor.start(Stage.WORKERS)
        missing = supervisor.wait_until_up(Stage.WORKERS, WORKERS_SECONDS, strict=False)
        request.when_up(Stack(settings, state, supervisor.members, missing))
        supervisor.watch()
        report.say("stopping")
    finally:
        supervisor.stop()
        state.coordinates.unlink(missing_ok=True)


def _with_coordinates(
    settings: Settings, state: StateDirectory, without: Collection[str]
) -> Settings:
    addresses: dict[str, object] = {}
    if settings.kafka_bootstrap_servers is None and "kafka" not in without:
        ports = map(settings.port, BROKERS[: settings.brokers])
        addresses["kafka_bootstrap_servers"] = ",".join(f"{LOOPBACK}:{port}" for port in ports)
    if settings.database_url is None and "postgres" not in without:
        addresses["database_url"] = SecretStr(database_of(settings, state).url())
    return settings.model_copy(update=addresses)


def _announce(settings: Settings, environment: dict[str, str], without: Collection[str]) -> None:
    """Puts the addresses into the workers' environment."""
    url = settings.database_url.get_secret_value() if settings.database_url else ""
    environment.update(
        KAFKA_BOOTSTRAP_SERVERS=settings.bootstrap,
        DATABASE_URL=url,
        STREAMFLOW_STATE_DIR=str(state_of(settings).directory),
        STREAMFLOW_PORT_OFFSET=str(settings.port_offset),
        STREAMFLOW_BROKERS=str(settings.brokers),
        STREAMFLOW_STREAMS=",".join(settings.streams),
    )
    if DAGSTER not in without:
        environment["STREAMFLOW_DAGSTER_URL"] = settings.dagster_url or dagster_url(settings)


def down(settings: Settings, *, purge: bool, report: StackReport) -> bool:
    """Ends the stack of this folder; returns whether there was one. `purge` also removes its data.
    Raises StackError if it does not end, or something cannot be removed."""
    state = state_of(settings)
    pid = state.supervisor_pid()
    if pid:
        report.say(f"ending the stack (pid {pid})")
        _end_supervisor(state, pid)
    try:
        ended = list(end_leftovers(state.run))
        for line in ended:
            report.say(line)
        state.coordinates.unlink(missing_ok=True)
        state.snapshot.unlink(missing_ok=True)
    except OSError as error:
        raise explain_os_error(error, state.directory) from error
    if purge:
        left = state.purge()
        report.say(f"removed the data in {state.directory}")
        if left:
            report.say(f"kept what is not part of the stack: {', '.join(left)}")
    return bool(pid or ended)


def _end_supervisor(state: StateDirectory, pid: int) -> None:
    try:
        process = psutil.Process(pid)
        process.terminate()
    except psutil.NoSuchProcess:
        return
    except psutil.AccessDenied as error:
        raise StackError(f"pid {pid} belongs to another user: run this as {error.name}") from error
    if not state.wait_until_free(DOWN_SECONDS):
        process.kill()
        if not state.wait_until_free(DOWN_SECONDS):
            raise StackError(f"the stack (pid {pid}) does not end: end that process by hand")
