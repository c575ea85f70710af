"""Commands on data: worker, db, audit."""

import getpass
import json
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from streamflow.errors import ConfigurationError, StreamFlowError, StreamsRefused
from streamflow.units import counted
from streamflow_cli.configured import settings_and_streams
from streamflow_cli.options import refuse_options

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from streamflow.registry import Streams
    from streamflow.settings import Settings
    from streamflow.stream import Stream

db = typer.Typer(help="The database's schema.")


class WorkerName(StrEnum):
    VALIDATOR = "validator"
    ANALYTICS = "analytics"
    LOADER = "loader"
    BRIDGE = "bridge"
    INGEST = "ingest"


def worker(
    name: Annotated[WorkerName, typer.Argument(help="Which worker to run.")],
    instance: Annotated[
        str | None,
        typer.Option(
            envvar="STREAMFLOW_INSTANCE",
            help="Stable name of this instance: a restart under the same name settles at once what "
            "its predecessor left open. Two running instances need two names.",
        ),
    ] = None,
    health_port: Annotated[
        int, typer.Option(help="Port of /health, /ready and /metrics; 0 takes any free one.")
    ] = 0,
    accept_rejects: Annotated[
        bool,
        typer.Option(
            "--accept-rejects", help="Go on however many records are rejected: no circuit breaker."
        ),
    ] = False,
) -> None:
    """Runs one worker in the foreground until SIGTERM or Ctrl-C.

    Example: streamflow worker loader --health-port 9103
    """
    from streamflow import extras
    from streamflow.settings import load_ingest_settings, load_process_settings

    if name is WorkerName.INGEST:
        extras.require("ingest", "HTTP ingest")
        from streaming_workers.ingest.server import run_ingest

        run_ingest(load_ingest_settings(), instance=instance, health_port=health_port)
        return
    if name is WorkerName.BRIDGE:
        extras.require("bridge", "the bridge")
        from streaming_workers.bridge.server import run_bridge

        run_bridge(load_process_settings(), health_port=health_port)
        return
    from streaming_workers import launch

    launch.run_worker(
        load_process_settings(),
        name.value,
        instance=instance,
        health_port=health_port,
        accept_rejects=accept_rejects,
    )


def others_in_place(streams: "Streams") -> StreamFlowError:
    names = ", ".join(stream.name for stream in streams)
    return ConfigurationError(f"not every stream can start; what {names} needs is in place")


def upgrade_tables(
    run: "Callable[..., object]", settings: "Settings", streams: "Streams"
) -> "StreamsRefused | None":
    """Upgrades the schema as far as it can be, and warns of columns without a field; returns what could
    not be upgraded."""
    from streamflow.postgres.schema import surplus

    refused = None
    try:
        run(settings, streams)
    except StreamsRefused as error:
        refused = error
    others = [stream for stream in streams if not refused or stream.name not in refused.streams]
    for line in surplus(settings, others):
        typer.echo(f"warning: {line}", err=True)
    return refused


@db.command("upgrade")
def db_upgrade() -> None:
    """Brings the database's schema up to date. Safe to repeat.

    Example: streamflow db upgrade
    """
    from streamflow.postgres.schema import upgrade

    settings, streams = settings_and_streams()
    refused = upgrade_tables(upgrade, settings, streams)
    if refused is not None:
        raise refused
    if streams.failed:
        raise others_in_place(streams)
    typer.echo("the schema is up to date")


@db.command("roles")
def db_roles(
    apply: Annotated[bool, typer.Option("--apply", help="Execute the statements, too.")] = False,
    prefix: Annotated[str, typer.Option(help="Beginning of the roles' names.")] = "streamflow",
) -> None:
    """Prints the SQL of least-privilege roles: PREFIX_worker loads and cannot alter the schema,
    PREFIX_reader (for the dashboard) only reads. Repeat it after you add a stream, and after an upgrade.
    In a database of your own, an administrator creates the two first if its owner may not.

    Example: streamflow db roles | psql --single-transaction -v ON_ERROR_STOP=1 "$DATABASE_URL"
    """
    from streamflow.postgres.roles import apply_roles, role_names, role_statements
    from streamflow.settings.platform import database_is_embedded
    from streamflow_stack.parts import database_of
    from streamflow_stack.state import state_of

    settings, streams = settings_and_streams()
    if apply and database_is_embedded(settings):
        database_of(settings, state_of(settings)).ensure_groups(role_names(prefix))
    made = apply_roles if apply else role_statements
    for statement in made(settings, streams, prefix):
        typer.echo(f"{statement};")
    if apply:
        typer.echo(
            f"granted: give each user its role, as in GRANT {prefix}_worker TO the_loaders_user",
            err=True,
        )


@db.command("rehash")
def db_rehash() -> None:
    """Hashes stored rows that are under an older key of STREAMFLOW_PII_KEY under the newest one. Safe to
    repeat, after any end of an earlier run; workers may run. Exits 1 if rows are under a key that is not
    listed: those stay as they are.

    Example: streamflow db rehash
    """
    from streamflow.postgres.rehash import rehash

    done = rehash(
        *settings_and_streams(need_all=True), lambda table: typer.echo(f"done: {table}", err=True)
    )
    for column in done:
        if not column.is_sketch:
            typer.echo(
                f"{column.table}.{column.column}: {counted(column.lifted, 'row')} hashed under the newest key"
            )
    for note in [note for column in done for note in column.notes()]:
        typer.echo(f"note: {note}", err=True)
    problems = [problem for column in done for problem in column.problems()]
    for problem in problems:
        typer.echo(f"error: {problem}", err=True)
    raise typer.Exit(1 if problems else 0)


def audit(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    wait: Annotated[
        float, typer.Option(help="Seconds to let the workers catch up before judging.")
    ] = 30.0,
    acknowledge: Annotated[
        bool,
        typer.Option(
            "--acknowledge",
            help="Acknowledge the gaps and the differing windows that earlier audits have found: they stay "
            "in the report, but are no longer a problem.",
        ),
    ] = False,
    stream: Annotated[
        str | None, typer.Option(metavar="NAME", help="Show and judge this stream alone.")
    ] = None,
    since_last: Annotated[
        bool,
        typer.Option(
            "--since-last",
            help="Compare what came since the last audit, and some of the rest in turn; says since when the "
            "rest was not looked at. Without it everything is compared.",
        ),
    ] = False,
    export: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Compare what `streamflow export` wrote there with the tables instead, row by row.",
        ),
    ] = None,
) -> None:
    """Proves that every record was stored, dead-lettered or known as a duplicate, and that every event
    has its notification and is counted in its window. Exits 1 if not, or if it cannot be said yet.

    Example: streamflow audit --json
    """
    from streamflow.audit.acknowledging import acknowledge as acknowledge_found
    from streamflow.audit.acknowledging import not_acknowledged
    from streamflow.audit.ledger import run_audit
    from streamflow.registry import stream_named
    from streamflow_cli.audit_tables import audit_table

    settings, streams = settings_and_streams()
    if stream is not None:
        stream_named(streams, stream)
    if export is not None:
        refuse_options(
            context, ("wait", "acknowledge", "since_last"), "is for the ledger, not for --export"
        )
        chosen = [each for each in streams if stream in (None, each.name)]
        _audit_export(settings, chosen, export, as_json=as_json)
    if acknowledge:
        found = acknowledge_found(settings, streams, getpass.getuser())
        for gap in found.gaps:
            typer.echo(
                f"acknowledged: {gap.topic}[{gap.partition}] offsets {gap.first} to {gap.end - 1}, "
                f"{gap.cause}, noted by {gap.reader}",
                err=True,
            )
        for difference in found.differences:
            typer.echo(f"acknowledged: {difference}", err=True)
    report = run_audit(settings, streams, patience=wait, since_last=since_last)
    failed = streams.failed
    if stream is not None:
        report, failed = report.of_stream(stream), ()
    if as_json:
        typer.echo(json.dumps(report.as_dict()))
    else:
        audit_table(report, [one.name or one.path for one in failed])
    if acknowledge:
        for reason in not_acknowledged(report):
            typer.echo(f"not acknowledged: {reason}", err=True)
    raise typer.Exit(0 if report.closed and not failed else 1)


def _audit_export(
    settings: "Settings", streams: "Sequence[Stream]", url: str, *, as_json: bool
) -> NoReturn:
    """Says whether exported files and tables agree, and exits."""
    from streamflow.audit.report import Verdict
    from streamflow.export.proof import prove
    from streamflow_cli.audit_tables import export_table

    proof = prove(settings, streams, url)
    if as_json:
        typer.echo(json.dumps(proof.as_dict()))
    else:
        export_table(proof)
    raise typer.Exit(0 if proof.verdict is Verdict.CLOSED else 1)
