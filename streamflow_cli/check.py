"""The command ``check``: what it finds, for people and for programs."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from streamflow.check import Extent, StreamCheck, WindowTableCheck
    from streamflow.postgres.schema import TablePlan
    from streamflow.postgres.tables import Column
    from streamflow.settings import Settings


def check(
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODULE:NAME]…",
            help="The streams to check. [default: those of STREAMFLOW_STREAMS]",
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

    settings, extent = _settings(paths or [], against, offline=offline, allow_steps=allow_steps)
    found = check_streams(settings, extent)
    is_good = all(checked.is_good(allow_steps=allow_steps) for checked in found)
    if as_json:
        streams: list[dict[str, Any]] = [checked.as_dict() for checked in found]
        typer.echo(json.dumps({"good": is_good, "streams": streams}))
    else:
        _show(found, is_good=is_good)
    raise typer.Exit(0 if is_good else 1)


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
        for reason in checked.not_tried:
            _line(console, f"not tried: {reason}", "yellow")
        for problem in checked.problems:
            _line(console, f"problem: {problem.part}: {problem.text}", "red")
        console.print()
    problems = sum(len(checked.problems) for checked in found)
    if is_good:
        console.print("[green]Good[/]: nothing was found wrong.")
    elif problems:
        console.print(f"[red]Not good[/]: {_counted(problems, 'problem')}.")
    elif any(checked.not_tried for checked in found):
        console.print("[yellow]Not known[/]: not everything could be tried.")
    else:
        levels = {checked.name: checked.level for checked in found}
        worst = "; ".join(f"{name}: {level}" for name, level in levels.items() if level != "safe")
        console.print(f"[red]Not safe[/]: {worst}.")


def _show_plan(console: "Console", checked: "StreamCheck") -> None:

    for topic in checked.topics:
        partitions = f", {_counted(topic.partitions, 'partition')}" if topic.partitions else ""
        _line(console, f"topic {topic.topic} {topic.action}{partitions}")
        if topic.action != "is refused":
            for note in topic.notes:
                _line(console, f"  {note}")
    plan = checked.plan
    _line(console, f"table {checked.table} {_becomes(checked)}")
    _show_columns(console, checked.columns)
    if plan is not None and plan.surplus:
        _line(console, f"columns without a field, which stay: {', '.join(plan.surplus)}")
    if checked.windows:
        _line(console, f"windows: {checked.windows}")
    for table in checked.window_tables:
        becomes = _becomes_of_windows(plan, table)
        _line(
            console,
            f"windows of {table.what}: table {table.table} {becomes}, totals in {table.view}",
        )
        _show_columns(console, table.columns)


def _show_columns(console: "Console", of_table: "Sequence[Column]") -> None:
    from streamflow_cli.tables import plain_table

    columns = plain_table("  column", "type", "null")
    for column in of_table:
        columns.add_row(f"  {column.name}", column.type, "yes" if column.nullable else "no")
    console.print(columns)


def _becomes(checked: "StreamCheck") -> str:
    """What becomes of its table."""
    plan = checked.plan
    if plan is None:
        return "is declared"
    if plan.refused:
        return "is refused"
    if f"table {checked.table}" in plan.changes:
        return "is created"
    of_windows = {
        change
        for table in checked.window_tables
        for change in (f"table {table.table}", f"view {table.view}")
    }
    changes = [change for change in plan.changes if change not in of_windows]
    return f"is altered: {'; '.join(changes)}" if changes else "is as declared"


def _becomes_of_windows(plan: "TablePlan | None", table: "WindowTableCheck") -> str:
    if plan is None or plan.refused:
        return "is declared"
    if f"table {table.table}" in plan.changes:
        return "is created"
    return "gets another view" if f"view {table.view}" in plan.changes else "is as declared"


def _show_changes(console: "Console", checked: "StreamCheck") -> None:
    for change in checked.changes or ():
        _line(console, f"{change.level}: {change.what}")
        if change.way:
            _line(console, f"  → {change.way}")
    if not checked.changes:
        _line(console, "safe: nothing changes")
    _line(console, f"rows: the newest {checked.rows:,} were read with this contract")


def _tried(checked: "StreamCheck") -> str:
    way = "JSON, PostgreSQL and back" if checked.stored else "JSON and back"
    return f"{checked.samples:,} events went through {way}"


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def _line(console: "Console", text: str, style: str | None = None) -> None:
    console.print(f"  {text}", style=style, markup=False, soft_wrap=True)
