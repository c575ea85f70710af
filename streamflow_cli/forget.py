"""`streamflow forget`: shows what is stored of a subject, erases it, and certifies that."""

import json
import sys
from functools import partial
from getpass import getuser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from streamflow.errors import UsageError
from streamflow.units import counted
from streamflow_cli.configured import settings_and_streams
from streamflow_cli.confirming import confirm

if TYPE_CHECKING:
    from rich.console import Console

    from streamflow.erasure.certificate import Certificate
    from streamflow.erasure.erase import Subject
    from streamflow.settings import Settings
    from streamflow.stream import Stream

_STDIN = "-"


def forget(
    subject: Annotated[
        str | None,
        typer.Argument(help="An e-mail address, or its hash; - reads it from standard input."),
    ] = None,
    user: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The user's name, as in the field user; - reads it from standard input.",
        ),
    ] = None,
    certificate: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            readable=True,
            help="Repeat the erasures of these certificates, as --json printed them.",
        ),
    ] = None,
    again: Annotated[
        bool,
        typer.Option("--again", help="Repeat all earlier erasures, after restoring a backup."),
    ] = False,
    apply_: Annotated[
        bool, typer.Option("--apply", help="Erase. Without this, only show.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    by: Annotated[
        str | None, typer.Option(help="Who requested it; the current user by default.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one line for each.")] = False,
) -> None:
    """Shows what is stored of a person; with --apply, erases it and prints a certificate.

    From then on nothing of theirs is stored. If it is killed, run it again; after it, the same without
    --apply has nothing to erase. Other users of the machine can
    see a command's arguments; - keeps the address out of them.

    Example: streamflow forget - --apply --yes < address.txt
    """
    from streamflow.erasure import erase
    from streaming_workers.runtime.watchdog import no_endless_call

    if sum((*(given is not None for given in (subject, user, certificate)), again)) != 1:
        raise UsageError(
            "name one subject: an address, its hash or --user NAME; or --certificate FILE, or --again for all"
        )
    if apply_ and not yes and (as_json or _STDIN in (subject, user)):
        raise UsageError("with - or --json there is no prompt: add --yes")
    settings, streams = settings_and_streams(need_all=True)
    by = by or getuser()
    if again:
        subjects = erase.listed(settings)
    elif certificate is not None:
        subjects = erase.certified(certificate)
    else:
        subjects = [_subject(settings, streams, subject, user)]
    hung = partial(no_endless_call, settings.stall_seconds, "forget", "run it again")
    for one in subjects:
        if not (apply_ and yes):
            with hung():
                planned = erase.plan(settings, streams, one, requested_by=by)
            _show(planned, as_json=as_json)
        if apply_ and not yes:
            confirm("erase this for good?", "nothing was erased")
        if apply_:
            with hung():
                done = erase.apply(settings, streams, one, requested_by=by)
            _show(done, as_json=as_json)


def _subject(
    settings: "Settings", streams: "tuple[Stream, ...]", address: str | None, user: str | None
) -> "Subject":
    from streamflow.erasure.erase import parse_subject
    from streamflow.postgres.forgotten import Kind

    kind, given = (Kind.ADDRESS, address) if user is None else (Kind.USER, user)
    return parse_subject(
        settings,
        streams,
        kind,
        sys.stdin.readline().removesuffix("\n") if given == _STDIN else given or "",
    )


def _show(certificate: "Certificate", *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(certificate.as_dict()))
        return
    from streamflow_cli.tables import make_console, plain_table

    console = make_console()
    _show_rows(console, certificate)
    if certificate.kafka:
        console.print("still in Kafka, until retention removes it:")
        held = plain_table("topic", "partition", "records", "offsets", "until")
        for topic, partition, number, offsets, until in certificate.kafka:
            held.add_row(
                topic, str(partition), f"{number:,}", _ranges(offsets), until or "not limited"
            )
        console.print(held)
    if certificate.not_loaded:
        console.print(
            f"not loaded yet: {counted(certificate.not_loaded, 'record')}; what is theirs is "
            "emptied when it is"
        )
    for place in certificate.elsewhere:
        console.print(f"not reached: {place}")


def _show_rows(console: "Console", certificate: "Certificate") -> None:
    from streamflow_cli.tables import plain_table

    done = certificate.finished_at is not None
    erased, before = certificate.erased, certificate.already_erased
    if not any((*erased.values(), *before.values())):
        console.print(f"nothing {'was' if done else 'is'} stored of this subject")
    elif not done and not any(erased.values()):
        console.print("nothing more is stored of this subject")
    if done:
        console.print(f"erased on {certificate.finished_at}: erasure {certificate.erasure}")
    elif any(erased.values()):
        console.print("to be erased (nothing has been changed):")
    if tables := [name for name in erased | before if erased.get(name) or before.get(name)]:
        rows = plain_table("table", "erased" if done else "to be erased", "already erased")
        for name in tables:
            rows.add_row(name, f"{erased.get(name, 0):,}", f"{before.get(name, 0):,}")
        console.print(rows)


def _ranges(offsets: "list[tuple[int, int]]") -> str:
    shown = [
        str(first) if end == first + 1 else f"{first}-{end - 1}" for first, end in offsets[:10]
    ]
    return ", ".join([*shown, *(["…"] if len(offsets) > len(shown) else [])])
