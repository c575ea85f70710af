"""The commands of `streamflow dlq`: list, show, replay."""

import json
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streamflow_cli.configured import settings_and_streams
from streamflow_cli.options import given_options, refuse_options

if TYPE_CHECKING:
    from rich.console import Console

    from streamflow.dead_letters.select import Selection
    from streamflow.settings import Settings
    from streamflow.stream import Stream

dlq = typer.Typer(help="Inspect dead letters and replay them.")

Codes = Annotated[
    list[str] | None, typer.Option("--code", help="With this error code; may be repeated.")
]
Since = Annotated[
    str | None,
    typer.Option(help="Failed at or after: a time, or an age such as 90s, 15m, 2h, 7d."),
]
Until = Annotated[str | None, typer.Option(help="Failed before; written as --since.")]
Ids = Annotated[
    list[str] | None,
    typer.Option("--id", help="With this id, topic/partition/offset; may be repeated."),
]
StreamName = Annotated[
    str | None,
    typer.Option(
        "--stream", metavar="NAME", help="Whose failed record is of this stream, or made from it."
    ),
]
Text = Annotated[
    str | None,
    typer.Option(
        help="With this text in the value or the message, case-sensitive; an address is searched by "
        "its hash."
    ),
]


@dlq.command("list")
def list_(
    code: Codes = None,
    since: Since = None,
    until: Until = None,
    id_: Ids = None,
    stream: StreamName = None,
    text: Text = None,
    status: Annotated[
        list[str] | None,
        typer.Option(
            help="open (default), replaying, replayed, superseded, quarantined, erased, or any; may be "
            "repeated."
        ),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Show at most so many.")] = 50,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON, one dead letter per line.")
    ] = False,
) -> None:
    """Lists dead letters, newest first, without their values.

    Example: streamflow dlq list --code CLEAR_TEXT_PII --since 2h
    """
    from streamflow.dead_letters.select import Status, count, summaries
    from streamflow.dead_letters.store import settle
    from streamflow.postgres.connections import session
    from streamflow_cli.dead_letter_views import dead_letters_table, summary_json

    settings, streams = settings_and_streams()
    statuses = status or [Status.OPEN]
    selection = _select(
        settings,
        streams,
        code,
        id_,
        since=since,
        until=until,
        stream=stream,
        text=text,
        limit=limit,
        statuses=[] if "any" in statuses else statuses,
    )
    with session(settings, "dlq") as connection:
        settle(connection)
        letters = summaries(connection, selection)
        total = count(connection, selection)
    if as_json:
        for letter in letters:
            typer.echo(json.dumps(summary_json(letter)))
    else:
        dead_letters_table(letters, total)


@dlq.command()
def show(
    id_: Annotated[
        str, typer.Argument(metavar="ID", help="topic/partition/offset of the failed record.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Shows a dead letter in full: headers, value, origin, and what replays did with it.

    Example: streamflow dlq show user-events/0/17
    """
    from streamflow.dead_letters.select import read
    from streamflow.dead_letters.selection_parser import parse_id
    from streamflow.dead_letters.store import history, settle
    from streamflow.errors import UsageError
    from streamflow.postgres.connections import session
    from streamflow.settings import load_process_settings
    from streamflow_cli.dead_letter_views import dead_letter_json, dead_letter_view

    wanted = parse_id(id_)
    settings = load_process_settings()
    with session(settings, "dlq") as connection:
        settle(connection)
        letters = read(connection, [wanted], group=settings.group("loader"))
        entries = history(connection, wanted)
    if not letters:
        raise UsageError(f"there is no dead letter {wanted}: `streamflow dlq list` shows their ids")
    if as_json:
        typer.echo(json.dumps(dead_letter_json(letters[0], entries)))
    else:
        dead_letter_view(letters[0], entries)


@dlq.command()
def replay(
    context: typer.Context,
    code: Codes = None,
    since: Since = None,
    until: Until = None,
    id_: Ids = None,
    stream: StreamName = None,
    text: Text = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Replay at most so many, by partition and offset.")
    ] = None,
    repair: Annotated[
        list[str] | None,
        typer.Option(
            help="Repair each dead letter first: hash_address, coerce_numbers, add_zone, or one of "
            "STREAMFLOW_REPAIRS. May be repeated; applied in this order."
        ),
    ] = None,
    apply_: Annotated[
        bool,
        typer.Option(
            "--apply",
            help="Send: apply the plan given by --plan, or make one and apply it. Without this, only "
            "make a plan and show it.",
        ),
    ] = False,
    plan_id: Annotated[
        int | None,
        typer.Option(
            "--plan",
            metavar="ID",
            help="With --apply: apply this plan, with its dead letters and options. Plans expire "
            "after 7 days.",
        ),
    ] = None,
    canary: Annotated[
        int, typer.Option(help="Send so many first, and the rest once these are stored.")
    ] = 10,
    rate: Annotated[float, typer.Option(help="At most so many dead letters per second.")] = 500.0,
    max_attempts: Annotated[
        int, typer.Option(help="Quarantine dead letters that were replayed so often.")
    ] = 3,
    force: Annotated[
        bool,
        typer.Option("--force", help="Replay quarantined dead letters too; name them with --id."),
    ] = False,
    wait: Annotated[
        float, typer.Option(help="Seconds to wait until what was sent is stored.")
    ] = 60.0,
    by: Annotated[
        str | None,
        typer.Option(help="Who requested it, for the history; the current user by default."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Replays open dead letters: makes a plan and shows it; with --apply, sends what would pass.

    A plan lists its dead letters: --plan ID --apply sends those that still pass, and no others. Exits 1
    if a dead letter would fail or failed. If it is stopped or killed, run it again: no record is lost
    or sent twice.

    Example: streamflow dlq replay --code SCHEMA_VIOLATION --repair add_zone
    """
    from getpass import getuser

    from streamflow.dead_letters.apply import apply, plan_after_recovery, plan_and_apply
    from streamflow.dead_letters.report import ReplayOptions
    from streamflow_cli.dead_letter_views import report_view
    from streaming_workers.runtime.watchdog import no_endless_call

    if plan_id is not None:
        _require_plan_alone(context, apply_)
    settings, streams = settings_and_streams()
    by = by or getuser()
    hung = no_endless_call(settings.stall_seconds, "replay", "run it again: nothing is sent twice")
    if plan_id is not None:
        with hung, _progress() as shown:
            report = apply(settings, streams, plan_id, requested_by=by, **shown)
    else:
        options = ReplayOptions(
            repairs=tuple(repair or ()),
            canary=canary,
            rate=rate,
            max_attempts=max_attempts,
            force=force,
            patience=wait,
        )
        selection = _select(
            settings,
            streams,
            code,
            id_,
            since=since,
            until=until,
            stream=stream,
            text=text,
            limit=limit,
        )
        if apply_:
            with hung, _progress() as shown:
                report = plan_and_apply(
                    settings,
                    streams,
                    selection,
                    options,
                    requested_by=by,
                    on_plan=lambda planned: typer.echo(planned.summary(), err=True),
                    **shown,
                )
        else:
            report = plan_after_recovery(settings, streams, selection, options, requested_by=by)
    if as_json:
        typer.echo(json.dumps(report.as_dict()))
    else:
        report_view(report)
    raise typer.Exit(0 if report.good else 1)


def _require_plan_alone(context: typer.Context, apply_: bool) -> None:
    """Raises UsageError if an option that makes a plan is combined with --plan."""
    from streamflow.errors import UsageError

    refuse_options(
        context,
        given_options(context).keys() - {"plan_id", "apply_", "by", "as_json"},
        "cannot be combined with --plan: a plan has its own dead letters and options; make a new plan "
        "for others",
    )
    if not apply_:
        raise UsageError("--plan needs --apply: add it to send what would pass")


def _select(
    settings: "Settings",
    streams: "tuple[Stream, ...]",
    codes: list[str] | None,
    ids: list[str] | None,
    *,
    stream: str | None,
    **filters: Any,
) -> "Selection":
    from streamflow.dead_letters.selection_parser import make_selection
    from streamflow.registry import hasher_for, stream_named

    return make_selection(
        hasher_for(settings, streams),
        codes=codes or (),
        ids=ids or (),
        stream=None if stream is None else stream_named(streams, stream),
        **filters,
    )


@contextmanager
def _progress() -> Iterator[dict[str, Any]]:
    """Shows progress on stderr and stops on Ctrl-C; yields the arguments of `apply` for both."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        *Progress.get_default_columns()[1:2],
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with (
        _stop_on_signal(Console(stderr=True)) as stop,
        Progress(*columns, console=Console(stderr=True), transient=True) as bar,
    ):
        task = bar.add_task("replaying", total=None)

        def on_progress(done: int, total: int) -> None:
            what = "waiting until all are stored" if done >= total else "replaying"
            bar.update(task, completed=done, total=total, description=what)

        yield {"stop": stop, "on_progress": on_progress}


@contextmanager
def _stop_on_signal(console: "Console") -> Iterator[threading.Event]:
    stop = threading.Event()

    def on_signal(_number: int, _frame: object) -> None:
        stop.set()
        console.print("stopping after the current batch")

    before = {
        number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
