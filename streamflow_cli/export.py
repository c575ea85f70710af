"""Commands for those who read the tables: export, dbt-sources."""

from datetime import date, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from streamflow.units import counted
from streamflow_cli.configured import settings_and_streams


class FileFormat(StrEnum):
    PARQUET = "parquet"
    CSV = "csv"
    NDJSON = "ndjson"


def export(
    stream: Annotated[str, typer.Argument(metavar="STREAM", help="Whose events.")],
    first: Annotated[
        datetime | None,
        typer.Option(
            "--from",
            formats=["%Y-%m-%d"],
            metavar="DAY",
            help="First day of event time, in UTC, as 2026-01-31. [default: the first with events]",
        ),
    ] = None,
    last: Annotated[
        datetime | None,
        typer.Option(
            "--to",
            formats=["%Y-%m-%d"],
            metavar="DAY",
            help="Last day, inclusive. [default: the last with events]",
        ),
    ] = None,
    file_format: Annotated[
        FileFormat, typer.Option("--format", help="Of the files.")
    ] = FileFormat.PARQUET,
    out: Annotated[
        str,
        typer.Option(
            metavar="URL", help="Folder, or the URL of an object store, like s3://bucket/exports."
        ),
    ] = "export",
) -> None:
    """Writes the events of a stream as files, one for each day, which take the place of earlier ones.

    Each says which records it covers: `streamflow audit --export URL` compares it with the table.

    Example: streamflow export orders --from 2026-01-01 --to 2026-01-31 --out /data/exports
    """
    from streamflow.errors import UsageError
    from streamflow.export.days import days, export_day
    from streamflow.export.destination import Destination
    from streamflow.postgres.connections import session
    from streamflow.registry import stream_named

    if first is not None and last is not None and last < first:
        raise UsageError("--to is before --from")
    settings, streams = settings_and_streams()
    chosen = stream_named(streams, stream)
    destination = Destination(out)
    total = 0
    with session(settings, "export") as connection:
        found = days(connection, chosen, _day(first), _day(last))
        for day in found:
            done = export_day(connection, settings, chosen, day, destination, file_format.value)
            total += done.covered.rows
            typer.echo(f"{day}: {counted(done.covered.rows, 'event')} in {done.path}")
    if not found:
        typer.echo(f"{chosen.event_table} has no events of these days: nothing was written")
    else:
        typer.echo(f"exported {counted(total, 'event')} of {counted(len(found), 'day')}")


def _day(moment: datetime | None) -> date | None:
    return None if moment is None else moment.date()


def dbt_sources(
    out: Annotated[
        Path | None, typer.Option(help="File to write; standard output without it.")
    ] = None,
    schema: Annotated[
        str, typer.Option(metavar="NAME", help="PostgreSQL schema that the tables are in.")
    ] = "public",
) -> None:
    """Prints the tables of all streams as sources of dbt (https://docs.getdbt.com/docs/build/sources).

    Example: streamflow dbt-sources --out models/streamflow.yml
    """
    from streamflow.errors import UsageError
    from streamflow.export.dbt import sources

    settings, streams = settings_and_streams()
    text = sources(settings, streams, schema)
    if out is None:
        typer.echo(text, nl=False)
        return
    try:
        out.write_text(text)
    except OSError as error:
        raise UsageError(f"{out} cannot be written: {error.strerror}") from error
    typer.echo(f"wrote {out}")
