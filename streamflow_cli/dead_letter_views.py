"""Dead letters and replays, for the terminal and as JSON."""

import re
from base64 import b64encode
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from streamflow.contract import format_time
from streamflow.dead_letters.report import ReplayReport
from streamflow.dead_letters.select import MOST_COUNTED, DeadLetter, DeadLetterSummary
from streamflow.dead_letters.store import HistoryEntry
from streamflow.units import counted
from streamflow_cli.tables import make_console, plain_table

_TIMES = ("failed_at", "appended_at", "loaded_at")
_AS_THEY_ARE = (
    "error_code", "stage", "group_name", "exception", "message", "attempt", "redacted", "status",
)  # fmt: skip
_TITLES = ("id", "code", "status", "failed at")
_MESSAGE_WIDTH = 30
_ANY_WIDTH = 10_000
_LONGEST_SHOWN = 10_000  # bytes of a value
# Values come from outside and must not control the terminal.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def summary_json(letter: DeadLetterSummary) -> dict[str, Any]:
    fields = letter._asdict()
    del fields["start"]
    return fields | {
        "id": str(letter.id),
        "origin": str(letter.origin),
        "failed_at": _time(letter.failed_at),
    }


def dead_letters_table(letters: Sequence[DeadLetterSummary], total: int) -> None:
    """`total` is how many match in all, or more than `MOST_COUNTED`."""
    console = make_console()
    full = plain_table(*_TITLES, "attempt", "stage", "message")
    full.columns[-1].min_width = _MESSAGE_WIDTH
    for letter in letters:
        rest = (str(letter.attempt), letter.stage, letter.message)
        full.add_row(*_short(letter), *(escape(_text(part)) for part in rest))
    needed = console.measure(full, options=console.options.update(width=_ANY_WIDTH)).minimum
    if letters and needed <= console.width:
        console.print(full)
    elif letters:
        _print_in_two_lines(console, letters)
    number = counted(min(total, MOST_COUNTED), "dead letter")
    if total > MOST_COUNTED:
        number = f"more than {number}"
    if len(letters) < total:
        console.print(f"{len(letters):,} of {number}; --limit shows more.")
    else:
        console.print(f"{number}.")


def _short(letter: DeadLetterSummary) -> tuple[str, str, str, str]:
    """The first line of a dead letter; markup is escaped."""
    return (
        escape(_text(letter.id)),
        escape(letter.error_code),
        letter.status,
        _time(letter.failed_at) or "unknown",
    )


def _print_in_two_lines(console: Console, letters: Sequence[DeadLetterSummary]) -> None:
    """For a narrow terminal: stage and message are below each dead letter."""
    rows = [_TITLES, *map(_short, letters)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    console.print(f"[bold]{lines[0]}[/]")
    for line, letter in zip(lines[1:], letters, strict=True):
        console.print(line)
        tries = f"{counted(letter.attempt, 'attempt')}, " if letter.attempt else ""
        cause = f"{_text(letter.stage)}: {tries}{_text(letter.message)}"
        console.print(Padding(escape(cause), (0, 0, 0, 4)))


def dead_letter_json(letter: DeadLetter, history: Sequence[HistoryEntry]) -> dict[str, Any]:
    """Bytes are text if they are UTF-8, else ``{"base64": …}``."""
    return {
        "id": str(letter.id),
        **{name: getattr(letter, name) for name in _AS_THEY_ARE},
        "origin": str(letter.origin),
        "record": str(letter.record),
        **{name: _time(getattr(letter, name)) for name in _TIMES},
        "key": _readable(letter.key),
        "value": _readable(letter.value),
        "truncated": None if letter.truncated is None else letter.truncated._asdict(),
        "headers": [[name, _readable(value)] for name, value in letter.headers],
        "replays": [entry._asdict() | {"updated_at": _time(entry.updated_at)} for entry in history],
    }


def dead_letter_view(letter: DeadLetter, history: Sequence[HistoryEntry]) -> None:
    console = make_console()
    fields = dead_letter_json(letter, history)
    grid = Table.grid(padding=(0, 2))
    for name in (
        "id", "origin", "record", "status", "attempt", "error_code", "message", "exception", "stage",
        "group_name", "failed_at", "appended_at", "redacted", "key",
    ):  # fmt: skip
        grid.add_row(name.replace("_", " "), escape(_text(fields[name])))
    console.print(grid)
    console.print("\n[bold]headers[/]")
    for name, value in fields["headers"]:
        console.print(f"  {escape(_text(name))}: {escape(_text(value))}", highlight=False)
    console.print("\n[bold]value[/]")
    if letter.truncated is not None:
        console.print(f"  {letter.truncated}", highlight=False)
    console.print(_value(letter.value), highlight=False, markup=False)
    console.print("\n[bold]replays[/]")
    for entry in history:
        line = f"  {entry.replay_id} by {entry.requested_by}, {_time(entry.updated_at)}: "
        line += f"{entry.outcome} {entry.code}".strip()
        line += f", sent to {entry.sent_to}" if entry.sent_to else ""
        console.print(escape(_text(line)), highlight=False)
    if not history:
        console.print("  none")


def report_view(report: ReplayReport) -> None:
    console = make_console()
    results = ("pass", "fail") if report.dry_run else ("stored", "failed")
    table = plain_table("code", "selected", *results, "at limit", "reasons")
    for line in report.lines():
        table.add_row(
            escape(line.error_code),
            *(f"{number:,}" for number in line[1:5]),
            escape(", ".join(f"{reason} {number:,}" for reason, number in line.reasons.items())),
        )
    if report.selected:
        console.print(table)
    for sample in report.samples:
        console.print(
            f"  {escape(_text(sample.id))} {sample.reason}: {escape(_text(sample.message))}",
            highlight=False,
        )
    console.print(escape(report.summary()), highlight=False)
    if report.dry_run and report.passed:
        console.print("Nothing was changed. To replay those that would pass:")
        console.print(f"  streamflow dlq replay --plan {report.plan_id} --apply", highlight=False)


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else format_time(moment)


def _readable(raw: bytes | None) -> str | dict[str, str] | None:
    if raw is None:
        return None
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return {"base64": b64encode(raw).decode()}


def _text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = f"base64 {value['base64']}" if isinstance(value, dict) else str(value)
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", text)


def _value(raw: bytes | None) -> str:
    if raw is None:
        return "  none"
    text = _text(raw[:_LONGEST_SHOWN].decode("utf-8", "backslashreplace"))
    more = len(raw) - _LONGEST_SHOWN
    return f"  {text}" + (f"\n  … {counted(more, 'more byte')}: see --json" if more > 0 else "")
