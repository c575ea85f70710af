"""Commands on the stack: up, down, status, env, doctor."""

import json
import os
import shlex
import subprocess
import time
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from streamflow.registry import Streams
    from streamflow.settings import Settings
    from streamflow_stack.lifecycle import Stack

_LINE_SECONDS = 3.0  # between two lines of a download's progress in a log
_COLOURS = {"up": "green", "ok": "green", "off": "dim", "stopped": "red", "bad": "red"}
_OTHER_COLOUR = "yellow"


class ConsoleReport:
    """Shows what happens: a progress bar on a terminal, lines in a log."""

    def __init__(self, console: "Console") -> None:
        self._console = console
        self._progress: Progress | None = None
        self._line_at = 0.0

    def say(self, text: str) -> None:
        """Prints a line, with the time if it goes to a log."""
        stamp = "" if self._console.is_terminal else f"{datetime.now(UTC):%H:%M:%S} "
        self._console.print(f"{stamp}{text}", highlight=False, markup=False, soft_wrap=True)

    def progress(self, what: str, done: int, total: int) -> None:
        """Shows the progress of a download, in bytes."""
        if self._console.is_terminal:
            self._move_bar(what, done, total)
        elif done >= total or time.monotonic() - self._line_at > _LINE_SECONDS:
            self._line_at = time.monotonic()
            self.say(f"downloading {what}: {done / 1e6:.1f} of {total / 1e6:.1f} MB")

    def _move_bar(self, what: str, done: int, total: int) -> None:
        from rich import progress

        if self._progress is None:
            self._progress = progress.Progress(
                progress.TextColumn("{task.description}"),
                progress.BarColumn(),
                progress.DownloadColumn(),
                progress.TransferSpeedColumn(),
                console=self._console,
                transient=True,
            )
            self._progress.start()
            self._progress.add_task(f"downloading {what}", total=total)
        self._progress.update(self._progress.task_ids[0], completed=done)
        if done >= total:
            self._progress.stop()
            self._progress = None


def up(
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Run in the background; return when ready.")
    ] = False,
    without: Annotated[
        list[str] | None,
        typer.Option("--without", metavar="NAME", help="Leave this part out. May be repeated."),
    ] = None,
    brokers: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Kafka nodes: 1, or 3 to try failover. A folder keeps the number it was created "
            "with. [default: STREAMFLOW_BROKERS, else 1]",
        ),
    ] = None,
) -> None:
    """Start broker, database and workers, and keep them running.

    If KAFKA_BOOTSTRAP_SERVERS or DATABASE_URL is set, it is used and none of that kind is started.
    STREAMFLOW_PORT_OFFSET=N shifts every port, STREAMFLOW_STATE_DIR moves the data.

    Example: streamflow up --detach --without producer
    """
    from streamflow.registry import hasher_for, load_streams
    from streamflow.samples.simulation import sources_of
    from streamflow.settings import load_process_settings
    from streamflow_cli.tables import make_console
    from streamflow_stack import detached, lifecycle
    from streaming_workers.runtime.process import bound_arenas

    bound_arenas()
    console = make_console()
    names = list(without or ())
    load = partial(
        load_process_settings, **({} if brokers is None else {"STREAMFLOW_BROKERS": brokers})
    )
    if detach:
        arguments = [part for name in names for part in ("--without", name)]
        arguments += [] if brokers is None else ["--brokers", str(brokers)]
        detached.up_detached(
            load(), arguments, lambda line: console.print(line, markup=False, soft_wrap=True)
        )
        return

    def when_up(stack: "Stack") -> None:
        _show_stack(console, stack)
        if os.environ.get(detached.VARIABLE):
            console.print(detached.readiness_line(stack.missing), markup=False, soft_wrap=True)

    # A producer with nothing to send would be restarted again and again.
    settings = load()
    streams = load_streams(settings)
    sources, without_samples = sources_of(streams, hasher_for(settings, streams))
    if not sources and "producer" not in names:
        names.append("producer")
        for reason in without_samples:
            console.print(f"no simulated events: {reason}", markup=False, soft_wrap=True)
    report = ConsoleReport(console)
    arrange = partial(_arrange, without=names, say=report.say)
    lifecycle.up(load, lifecycle.UpRequest(names, arrange, when_up), report)


def down(
    purge: Annotated[bool, typer.Option("--purge", help="Also remove the data, for good.")] = False,
) -> None:
    """Stop the stack of this folder, in order.

    Example: streamflow down --purge
    """
    from streamflow.settings import load_process_settings
    from streamflow_cli.tables import make_console
    from streamflow_stack import lifecycle

    report = ConsoleReport(make_console())
    if not lifecycle.down(load_process_settings(), purge=purge, report=report):
        report.say("no stack was running here")


def status(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Show every part, the groups' lag, the tables' rows and the streams that have failed; exit 1 unless
    all is up.

    Example: streamflow status --json
    """
    from streamflow.settings import load_process_settings
    from streamflow_cli.tables import make_console
    from streamflow_stack.status import is_all_up, read_status
    from streamflow_stack.stream_status import read_stream_status

    settings = load_process_settings()
    current = read_status(settings)
    states = {part["name"]: part["state"] for part in current["parts"]}
    streams = read_stream_status(settings, states)
    current |= {"lag": streams.lag, "rows": streams.rows, "estimated": streams.estimated}
    current["unknown"] = streams.unknown
    current["failed_streams"] = streams.failed
    if as_json:
        typer.echo(json.dumps(current, indent=2))
    else:
        _show_status(make_console(), current)
    is_well = is_all_up(current["parts"]) and not current["problem"] and not streams.failed
    raise typer.Exit(0 if is_well else 1)


def env() -> None:
    """Print where broker and database are, for a shell.

    Example: eval "$(streamflow env)" && psql "$DATABASE_URL"
    """
    from streamflow.errors import StackError
    from streamflow.settings import load_process_settings
    from streamflow.settings.environment import marked

    settings = load_process_settings()
    if settings.database_url is None or settings.kafka_bootstrap_servers is None:
        raise StackError("no stack runs in this folder: start it with `streamflow up`")
    addresses = {
        "KAFKA_BOOTSTRAP_SERVERS": settings.bootstrap,
        "DATABASE_URL": settings.database,
    }
    for name, value in marked(settings.state_dir, addresses).items():
        typer.echo(f"export {name}={shlex.quote(value)}")


def doctor() -> None:
    """Check Java, broker, database, ports, versions and clocks, and say what to do.

    Example: streamflow doctor
    """
    from rich.text import Text

    from streamflow.settings import load_process_settings
    from streamflow_cli.tables import make_console
    from streamflow_stack.doctor import Mark, examine

    console = make_console()
    settings = load_process_settings()
    marks = set()
    for finding in examine(settings):
        marks.add(finding.mark)
        mark = Text(f"{finding.mark:<4} ", _COLOURS.get(finding.mark, _OTHER_COLOUR))
        console.print(mark + Text(f"{finding.subject:<16} {finding.text}", ""), soft_wrap=True)
    raise typer.Exit(1 if Mark.BAD in marks else 0)


def _arrange(
    settings: "Settings", without: Collection[str], say: Callable[[str], None]
) -> "Settings":
    """Puts schema and topics in place. The schema is first: topics that are created are noted in it.
    Returns the settings without the streams whose topics are refused."""
    from streamflow.errors import StreamsRefused
    from streamflow.kafka import ownership, topic_changes
    from streamflow.kafka.topics import provision
    from streamflow.postgres.owned_topics import TopicsTable
    from streamflow.registry import load_streams, without_streams

    streams = load_streams(settings)
    has_database = "postgres" not in without
    kept = list(map(str, streams.failed))
    refused: dict[str, str] = {}
    if has_database:
        kept += _upgrade(settings, streams)
    if "kafka" not in without:
        owned = TopicsTable(settings) if has_database else None
        differences: Sequence[ownership.Drift]
        try:
            differences = provision(settings, streams, owned)
        except StreamsRefused as error:
            if len(error.streams) == len(streams):
                raise
            refused, differences = error.streams, error.differences
        kept += refused.values()
        kept += ownership.surplus(differences) + topic_changes.postponed(differences)
    for line in kept:
        say(f"warning: {line}")
    return without_streams(settings, refused) if refused else settings


def _upgrade(settings: "Settings", streams: "Streams") -> list[str]:
    """Upgrades the schema; returns what is not as declared. One stream's table stops no other stream."""
    from streamflow.errors import StreamsRefused
    from streamflow.postgres import schema

    if not schema.is_newest(settings):
        _migrate_apart(settings)
    refused: dict[str, str] = {}
    try:
        schema.upgrade(settings, streams)
    except StreamsRefused as error:
        if len(error.streams) == len(streams):
            raise
        refused = error.streams
    others = [stream for stream in streams if stream.name not in refused]
    return [*refused.values(), *schema.surplus(settings, others)]


def _migrate_apart(settings: "Settings") -> None:
    """Upgrades the schema in a process of its own: SQLAlchemy would stay in this one's memory, 20 MB. What it
    could not do is left to this process, which then says why."""
    from streamflow.settings.environment import OWN_ADDRESSES
    from streamflow_stack.process import own_command

    # The mark of an earlier `streamflow env` would make it look for a stack that is up.
    variables = {"DATABASE_URL": settings.database, OWN_ADDRESSES: ""}
    subprocess.run(  # noqa: S603 (our own command)
        own_command("db", "upgrade"), env=os.environ | variables, check=False, capture_output=True
    )


def _show_stack(console: "Console", stack: "Stack") -> None:
    state = stack.state
    console.print()
    _print_parts(console, [member.describe() for member in stack.members])
    console.print(
        f"\nlogs      {state.logs}\ndata      {state.directory}\n\n"
        "next      streamflow status              every part, lag and rows\n"
        "          streamflow audit               proof that nothing was lost\n"
        '          eval "$(streamflow env)"       addresses for psql, kcat, notebooks\n'
        "          streamflow down                end it (Ctrl-C does the same)\n",
        markup=False,
        soft_wrap=True,
    )


def _show_status(console: "Console", status: dict[str, Any]) -> None:
    _print_parts(console, status["parts"])
    for title in ("lag", "rows"):
        text = ", ".join(
            f"{name} {_number(number, is_estimate=title == 'rows' and name in status['estimated'])}"
            for name, number in status[title].items()
        )
        unit = " (offsets)" if title == "lag" else ""
        console.print(f"{title + unit:<15}{text or 'unknown'}", soft_wrap=True)
    for line in status["unknown"]:
        console.print(f"unknown {line}", markup=False, soft_wrap=True)
    for line in status["failed_streams"]:
        console.print(line, style="red", markup=False, soft_wrap=True)
    if status["problem"]:
        console.print(status["problem"], style="red", soft_wrap=True)
    elif status["supervisor"] is None:
        console.print("no stack runs here: start it with `streamflow up`")


def _number(number: int | None, *, is_estimate: bool) -> str:
    if number is None:
        return "unknown"
    return f"about {number:,}" if is_estimate else f"{number:,}"


def _print_parts(console: "Console", parts: Sequence[dict[str, Any]]) -> None:
    """A table of the parts, and below it why some are not up."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("part", "state", "pid", "restarts", "address"):
        table.add_column(title, no_wrap=title != "address", overflow="fold")
    for part in parts:
        table.add_row(
            part["name"],
            Text(part["state"], _COLOURS.get(part["state"], _OTHER_COLOUR)),
            str(part["pid"] or "-"),
            str(part["restarts"]),
            Text(part["address"] or "-"),
        )
    console.print(table)
    for part in parts:
        if part["detail"]:
            console.print(f"{part['name']}: {part['detail']}", markup=False, soft_wrap=True)
