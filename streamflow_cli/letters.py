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
from streamflow.dead_letter_records import truncation_of
from streamflow.dead_letters.report import Report
from streamflow.dead_letters.select import Summary, decoded
from streamflow.dead_letters.store import Entry
from streamflow.records import Origin
from streamflow_cli.tables import make_console, plain_table

_TITLES = ("id", "code", "status", "failed at")
_MESSAGE_WIDTH = 30
_ANY_WIDTH = 10_000
_LONGEST_SHOWN = 10_000  # bytes of a payload
# What came from outside must not steer the terminal.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def summary_json(letter: Summary) -> dict[str, Any]:
    """A letter of a list."""
    found = letter._asdict()
    del found["start"]
    return found | {
        "id": str(letter.id),
        "origin": str(letter.origin),
        "failed_at": _time(letter.failed_at),
    }


def letters_table(letters: Sequence[Summary], total: int) -> None:
    """Prints a list of letters, and how many there are in all."""
    console = make_console()
    full = plain_table(*_TITLES, "attempt", "stage", "message")
    full.columns[-1].min_width = _MESSAGE_WIDTH
    for each in letters:
        full.add_row(
            *_short(each),
            str(each.attempt),
            escape(_text(each.stage)),
            escape(_text(each.message)),
        )
    needed = console.measure(full, options=console.options.update(width=_ANY_WIDTH)).minimum
    if letters and needed <= console.width:
        console.print(full)
    elif letters:
        _print_in_two_lines(console, letters)
    if len(letters) < total:
        console.print(f"{len(letters):,} of {total:,} dead letters; --limit shows more.")
    else:
        console.print(f"{total:,} dead letters.")


def _short(letter: Summary) -> tuple[str, str, str, str]:
    """What the first line of a letter tells; markup is escaped."""
    return (
        escape(_text(letter.id)),
        escape(letter.error_code),
        letter.status,
        _time(letter.failed_at) or "unknown",
    )


def _print_in_two_lines(console: Console, letters: Sequence[Summary]) -> None:
    """For a narrow terminal: what went wrong stands below the letter that it is about."""
    rows = [_TITLES, *map(_short, letters)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    console.print(f"[bold]{lines[0]}[/]")
    for line, each in zip(lines[1:], letters, strict=True):
        console.print(line)
        tries = f"{each.attempt} attempts, " if each.attempt else ""
        told = f"{_text(each.stage)}: {tries}{_text(each.message)}"
        console.print(Padding(escape(told), (0, 0, 0, 4)))


def letter_json(letter: dict[str, Any], entries: Sequence[Entry]) -> dict[str, Any]:
    """A whole letter. Bytes are text where they are UTF-8, else ``{"base64": …}``."""
    times = ("failed_at", "appended_at", "loaded_at")
    headers = decoded(letter["headers"])
    truncated = truncation_of(headers)
    plain = {
        name: value
        for name, value in letter.items()
        if not name.startswith(("source_", "origin_", "record_", *times))
    }
    return (
        {"id": _position(letter, "source")}
        | plain
        | {
            "origin": _position(letter, "origin"),
            "record": _position(letter, "record"),
            **{name: _time(letter[name]) for name in times},
            "key": _readable(letter["key"]),
            "value": _readable(letter["value"]),
            "truncated": None if truncated is None else truncated._asdict(),
            "headers": [[name, _readable(value)] for name, value in headers],
            "replays": [
                entry._asdict() | {"updated_at": _time(entry.updated_at)} for entry in entries
            ],
        }
    )


def letter_view(letter: dict[str, Any], entries: Sequence[Entry]) -> None:
    """Prints a whole letter."""
    console = make_console()
    found = letter_json(letter, entries)
    grid = Table.grid(padding=(0, 2))
    for name in (
        "id", "origin", "record", "status", "attempt", "error_code", "message", "exception", "stage",
        "group_name", "failed_at", "appended_at", "redacted", "key",
    ):  # fmt: skip
        grid.add_row(name.replace("_", " "), escape(_text(found[name])))
    console.print(grid)
    console.print("\n[bold]headers[/]")
    for name, value in found["headers"]:
        console.print(f"  {escape(_text(name))}: {escape(_text(value))}", highlight=False)
    console.print("\n[bold]payload[/]")
    truncated = truncation_of(decoded(letter["headers"]))
    if truncated is not None:
        console.print(f"  {truncated}", highlight=False)
    console.print(_payload(letter["value"]), highlight=False, markup=False)
    console.print("\n[bold]replays[/]")
    for entry in entries:
        told = f"  {entry.replay_id} by {entry.requested_by}, {_time(entry.updated_at)}: "
        told += f"{entry.outcome} {entry.code}".strip()
        console.print(
            escape(_text(told) + (f", sent to {entry.sent_to}" if entry.sent_to else "")),
            highlight=False,
        )
    if not entries:
        console.print("  none")


def report_view(report: Report) -> None:
    """Prints a plan or a replay: numbers by error code, samples of what does not pass, verdict."""
    console = make_console()
    verdicts = ("pass", "fail") if report.dry_run else ("stored", "failed")
    table = plain_table("code", "selected", *verdicts, "at cap", "reasons")
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
        console.print("Nothing was changed. To replay just what would pass of these:")
        console.print(f"  streamflow dlq replay --plan {report.plan_id} --apply", highlight=False)


def _position(letter: dict[str, Any], kind: str) -> str:
    return str(Origin(*(letter[f"{kind}_{part}"] for part in ("topic", "partition", "offset"))))


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
    return _CONTROL.sub(_visible, text)


def _visible(match: re.Match[str]) -> str:
    return f"\\x{ord(match[0]):02x}"


def _payload(raw: bytes | None) -> str:
    if raw is None:
        return "  none"
    text = raw[:_LONGEST_SHOWN].decode("utf-8", "backslashreplace")
    more = len(raw) - _LONGEST_SHOWN
    return f"  {_CONTROL.sub(_visible, text)}" + (
        f"\n  … {more:,} bytes more: see --json" if more > 0 else ""
    )
