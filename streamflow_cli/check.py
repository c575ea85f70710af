"""The command ``check``: what it finds, for people and for programs."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streamflow.units import counted, either

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from streamflow.check import Extent, StreamCheck, WindowTableCheck
    from streamflow.postgres.schema import TablePlan
    from streamflow.postgres.tables import Column
    from streamflow.settings import Settings


def check(
    streams: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME | MODULE:NAME]…",
            help="The streams to check: configured ones by name, beside all that are configured; others as "
            "MODULE:NAME. [default: those of STREAMFLOW_STREAMS]",
            show_default=False,
        ),
    ] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Without broker and database.")
    ] = False,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="DATABASE_URL",
            help="Say what the declarations change for this database, which is only read: safe, needs a "
            "step, or breaking. Leave the password to PGPASSWORD.",
        ),
    ] = None,
    allow_steps: Annotated[
        bool,
        typer.Option("--allow-steps", help="With --against: exit 0 if a change needs a step, too."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Tries declarations before data flows, and changes nothing: takes sample events of each model into the
    database and back, in temporary tables, and compares topics and tables with those that are there. Exits 1
    if something is wrong, or could not be tried.

    Example: streamflow check my_streams:ORDERS
    """
    from streamflow.check import check as check_streams

    names, paths = _names_and_paths(streams or [])
    settings, extent = _settings(paths, against, offline=offline, allow_steps=allow_steps)
    found = check_streams(settings, extent, names)
    notes = _notes(settings, found, extent)
    is_good = all(checked.is_good(allow_steps=allow_steps) for checked in found)
    if as_json:
        report: list[dict[str, Any]] = [checked.as_dict() for checked in found]
        typer.echo(json.dumps({"good": is_good, "streams": report, "notes": notes}))
    else:
        _show(found, is_good=is_good)
        for note in notes:
            typer.echo(f"note: {note}")
    raise typer.Exit(0 if is_good else 1)


def _notes(settings: "Settings", found: "Sequence[StreamCheck]", extent: "Extent") -> list[str]:
    """What to do before the running stack runs these streams."""
    from streamflow.check import Extent
    from streamflow_stack.known_streams import unknown_note

    if extent is Extent.AGAINST:
        return []
    names = [checked.name for checked in found if checked.table]
    note = unknown_note(settings, names)
    return [] if note is None else [note]


def _names_and_paths(streams: "Sequence[str]") -> tuple[list[str], list[str]]:
    from streamflow.errors import UsageError

    paths = [text for text in streams if ":" in text]
    names = [text for text in streams if ":" not in text]
    if names and paths:
        raise UsageError(
            f"{names[0]} is the name of a configured stream, and {paths[0]} is not looked up among those: "
            "give names only, or MODULE:NAME only"
        )
    return names, paths


def _settings(
    paths: "Sequence[str]", against: str | None, *, offline: bool, allow_steps: bool
) -> "tuple[Settings, Extent]":
    from streamflow.check import Extent
    from streamflow.errors import UsageError
    from streamflow.settings import load_process_settings

    if offline and against is not None:
        raise UsageError("--offline asks no database, and --against does: give one of them")
    if allow_steps and against is None:
        raise UsageError("--allow-steps is about the changes that --against DATABASE_URL finds")
    overrides = {"STREAMFLOW_STREAMS": ",".join(paths)} if paths else {}
    if against is not None:
        overrides["DATABASE_URL"] = against
        extent = Extent.AGAINST
    else:
        extent = Extent.OFFLINE if offline else Extent.FULL
    return load_process_settings(**overrides), extent


def _show(found: "Sequence[StreamCheck]", *, is_good: bool) -> None:
    from streamflow_cli.tables import make_console

    console = make_console()
    for checked in found:
        console.print(f"[bold]{checked.name}[/]")
        if checked.table:
            if checked.changes is None:
                _show_plan(console, checked)
            else:
                _show_changes(console, checked)
            _line(console, f"samples: {_tried(checked)}")
        for note in checked.notes:
            _line(console, f"note: {note}")
        for reason in checked.not_tried:
            _line(console, f"not tried: {reason}", "yellow")
        for problem in checked.problems:
            _line(console, f"problem: {problem.part}: {problem.text}", "red")
        console.print()
    problems = sum(len(checked.problems) for checked in found)
    if is_good:
        console.print("[green]Good[/]: nothing was found wrong.")
    elif problems:
        console.print(f"[red]Not good[/]: {counted(problems, 'problem')}.")
    elif any(checked.not_tried for checked in found):
        console.print("[yellow]Not known[/]: not everything could be tried.")
    else:
        levels = {checked.name: checked.level for checked in found}
        worst = "; ".join(f"{name}: {level}" for name, level in levels.items() if level != "safe")
        console.print(f"[red]Not safe[/]: {worst}.")


def _show_plan(console: "Console", checked: "StreamCheck") -> None:

    for topic in checked.topics:
        partitions = f", {counted(topic.partitions, 'partition')}" if topic.partitions else ""
        _line(console, f"topic {topic.topic} {topic.action}{partitions}")
        if topic.action != "is refused":
            for note in topic.notes:
                _line(console, f"  {note}")
    for planned in checked.tables:
        changes = f": {'; '.join(planned.changes)}" if planned.changes else ""
        _line(console, f"{planned.kind} {planned.name} {planned.action}{changes}")
    _show_columns(console, checked.columns)
    if checked.plan is not None and checked.plan.surplus:
        _line(console, f"columns without a field, which stay: {', '.join(checked.plan.surplus)}")
    if checked.windows:
        _line(console, f"windows: {checked.windows}")
    for table in checked.window_tables:
        becomes = _becomes_of_windows(checked.plan, table)
        totals = f", totals in {table.view}" if table.view else ""
        what = f"windows of {table.what}" if table.view else table.what
        _line(console, f"{what}: table {table.table} {becomes}{totals}")
        _show_columns(console, table.columns)


def _show_columns(console: "Console", of_table: "Sequence[Column]") -> None:
    from streamflow_cli.tables import plain_table

    columns = plain_table("  column", "type", "null")
    for column in of_table:
        columns.add_row(f"  {column.name}", column.type, "yes" if column.nullable else "no")
    console.print(columns)


def _becomes_of_windows(plan: "TablePlan | None", table: "WindowTableCheck") -> str:
    if plan is None or plan.refused:
        return "is declared"
    if f"table {table.table}" in plan.changes:
        return "will be created"
    return "gets another view" if f"view {table.view}" in plan.changes else "is there"


def _show_changes(console: "Console", checked: "StreamCheck") -> None:
    for change in checked.changes or ():
        _line(console, f"{change.level}: {change.what}")
        if change.way:
            _line(console, f"  → {change.way}")
    if not checked.changes:
        _line(console, "safe: nothing changes")
    newest = either(checked.rows, "one was", f"{checked.rows:,} were")
    _line(console, f"rows: the newest {newest} read with this contract")


def _tried(checked: "StreamCheck") -> str:
    way = "JSON, PostgreSQL and back" if checked.stored else "JSON and back"
    return f"{counted(checked.samples, 'event')} went through {way}"


def _line(console: "Console", text: str, style: str | None = None) -> None:
    console.print(f"  {text}", style=style, markup=False, soft_wrap=True)
