"""What a run of `streamflow produce` says at its end."""

import json
from typing import TYPE_CHECKING

import typer

from streamflow.units import counted, either

if TYPE_CHECKING:
    from streaming_workers.producer.file import Sent
    from streaming_workers.producer.source import Source


def print_json(sent: "Sent", seconds: float) -> None:
    summary = {
        "sent": sent.records,
        "valid": sent.records - sum(sent.invalid.values()),
        "invalid": sent.invalid,
        "hashed": sent.hashed,
        "skipped": sent.skipped,
        "skipped_before": sent.skipped_before,
        "line": sent.line,
        "finished": sent.finished,
        "waiting": sent.waiting,
        "seconds": round(seconds, 3),
    }
    typer.echo(json.dumps(summary))


def print_summary(sent: "Sent", seconds: float, source: "Source | None", *, resume: bool) -> None:
    unit = "line" if source is None else source.unit
    typer.echo(f"sent {counted(sent.records, 'event')} in {seconds:.1f} s")
    for code, number in sorted(sent.invalid.items()):
        typer.echo(f"  {number:,} of them invalid: {code}")
    if sent.hashed:
        typer.echo(f"  {sent.hashed:,} of them valid since what they held in clear was hashed")
    if sent.skipped:
        typer.echo(f"skipped {counted(sent.skipped, f'invalid {unit}')}", err=True)
    if sent.skipped_before:
        lines = counted(sent.skipped_before, f"invalid {unit}")
        them = either(sent.skipped_before, "it", "them")
        typer.echo(
            f"earlier runs skipped {lines}: --resume does not go back to {them}, whatever --on-invalid "
            f"says; mend {them} in a new file, and send that",
            err=True,
        )
    if sent.waiting:
        typer.echo(
            f"line {sent.line + 1:,} has no newline yet and waits: --resume sends it when it has one, "
            "--resume --complete as it is",
            err=True,
        )
    elif source is not None and not sent.finished:
        rest = (
            "--resume goes on from there"
            if source.resumable
            else f"send the rest from {unit} {sent.line + 1:,} on"
        )
        typer.echo(f"stopped after {unit} {sent.line:,}: {rest}", err=True)
    elif source is not None and not sent.records and not sent.skipped:
        why = _sent_before(sent, unit) if resume and sent.line else "it is empty"
        typer.echo(f"nothing to send: {why}")


def _sent_before(sent: "Sent", unit: str) -> str:
    if not sent.skipped_before:
        return (
            f"{either(sent.line, f'its {unit} was', f'all {sent.line:,} {unit}s were')} sent before"
        )
    before = sent.line - sent.skipped_before
    return (
        f"of {counted(sent.line, unit)} read before, {before:,} {either(before, 'was', 'were')} sent "
        f"and {sent.skipped_before:,} skipped as invalid"
    )
