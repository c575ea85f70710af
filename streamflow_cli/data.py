"""Commands on data: worker, topics, db, audit."""

import getpass
import json
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streamflow.errors import ConfigurationError, StreamFlowError
from streamflow_cli.configured import settings_and_streams
from streamflow_cli.confirming import confirm

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from streamflow.kafka.ownership import Drift
    from streamflow.postgres.schema import TablesRefused
    from streamflow.registry import Streams
    from streamflow.settings import Settings

db = typer.Typer(help="The database's schema.")


class WorkerName(StrEnum):
    VALIDATOR = "validator"
    ANALYTICS = "analytics"
    LOADER = "loader"
    BRIDGE = "bridge"


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
    from streamflow.settings import load_process_settings

    if name is WorkerName.BRIDGE:
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


def init(
    wait: Annotated[
        float,
        typer.Option(min=0, help="Seconds to wait for a broker or database that is starting."),
    ] = 60.0,
) -> None:
    """Puts topics and schema in place before workers start. Safe to repeat, and at the same time.

    Example: streamflow init --wait 120
    """
    from streamflow.kafka.clients import retrying
    from streamflow.kafka.ownership import surplus
    from streamflow.kafka.topic_changes import postponed, risk
    from streamflow.kafka.topics import TopicsRefused, provision
    from streamflow.postgres import schema
    from streamflow.postgres.owned_topics import TopicsTable

    settings, streams = settings_and_streams()
    patiently = retrying(wait)
    # The schema first: topics that are created are noted in it.
    refused = _upgrade(partial(patiently, schema.upgrade), settings, streams)
    without_topics: TopicsRefused | None = None
    differences: Sequence[Drift] = ()
    try:
        differences = patiently(provision, settings, streams, TopicsTable(settings))
    except TopicsRefused as error:
        without_topics, differences = error, error.differences
    for drift in differences:
        if not drift.is_surplus and risk(drift) is None:
            typer.echo(f"{drift.topic}: {drift.what} was {drift.found or 'missing'}")
    for line in (*surplus(differences), *postponed(differences)):
        typer.echo(f"warning: {line}", err=True)
    if (reason := refused or without_topics) is not None:
        raise reason
    if streams.failed:
        raise _others_in_place(streams)
    typer.echo("topics and schema are in place")


def _others_in_place(streams: "Streams") -> StreamFlowError:
    names = ", ".join(stream.name for stream in streams)
    return ConfigurationError(f"not every stream can start; what {names} needs is in place")


def _upgrade(
    run: "Callable[..., object]", settings: "Settings", streams: "Streams"
) -> "TablesRefused | None":
    """Upgrades the schema as far as it can be, and warns of columns without a field; returns what could
    not be upgraded."""
    from streamflow.postgres.schema import TablesRefused, surplus

    refused = None
    try:
        run(settings, streams)
    except TablesRefused as error:
        refused = error
    others = [stream for stream in streams if not refused or stream.name not in refused.streams]
    for line in surplus(settings, others):
        typer.echo(f"warning: {line}", err=True)
    return refused


def topics(
    apply: Annotated[
        bool,
        typer.Option(
            "--apply", help="Create topics, and alter those of StreamFlow, until nothing differs."
        ),
    ] = False,
    adopted: Annotated[
        list[str] | None,
        typer.Option(
            "--adopt",
            metavar="TOPIC",
            help="Let --apply alter a topic that StreamFlow did not create. May be repeated.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    accept_recreated: Annotated[
        str | None,
        typer.Option(
            metavar="TOPIC",
            help="Set aside what is stored of a topic that was recreated or truncated, and let the "
            "workers begin with what it holds now.",
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Shows the declared topics, their owners and how the broker's differ; exits 1 if they do.

    More partitions than declared in a topic of StreamFlow's are only warned of. A change that moves keys
    or removes records is asked about, or needs --yes.

    A topic that StreamFlow did not create is never altered unless it is adopted.

    Example: streamflow topics --apply
    """
    if accept_recreated is not None:
        from streamflow_cli.recreated import accept

        accept(accept_recreated, yes=yes)
        return
    from streamflow.kafka.ownership import Owner, surplus
    from streamflow.kafka.topics import (
        adopt,
        all_topics,
        alterable,
        drifts,
        owners,
        provision,
        refused,
        unmanaged_topics,
    )
    from streamflow.postgres.owned_topics import TopicsTable

    settings, streams = settings_and_streams()
    owned = TopicsTable(settings)
    if adopted:
        adopt(settings, streams, adopted, owned)
    specs = all_topics(settings, streams)
    if apply:
        why = refused(settings, streams, owned)
        others = all_topics(settings, [stream for stream in streams if stream.name not in why])
        _confirm_changes(settings, alterable(settings, others, owned), yes=yes)
        provision(settings, streams, owned, confirmed=True)
    differences = drifts(settings, specs)
    owner_of = owners(settings, specs, owned)
    # Of another owner's topic more partitions are a difference like any other.
    tolerated = [
        drift
        for drift in differences
        if drift.is_surplus and owner_of.get(drift.topic) is Owner.OURS
    ]
    report: list[dict[str, Any]] = [
        {
            "topic": spec.name,
            "owner": owner_of.get(spec.name),
            "partitions": spec.partitions,
            "config": spec.config,
            "drift": [drift._asdict() for drift in differences if drift.topic == spec.name],
        }
        for spec in specs
    ]
    report += [
        {"topic": name, "owner": Owner.UNMANAGED, "partitions": None, "config": {}, "drift": []}
        for name in unmanaged_topics(streams)
    ]
    if as_json:
        typer.echo(json.dumps(report))
    else:
        _show_topics(report, {drift.topic for drift in differences if drift not in tolerated})
    for line in surplus(tolerated):
        typer.echo(f"warning: {line}", err=True)
    raise typer.Exit(0 if differences == tolerated and not streams.failed else 1)


def _confirm_changes(settings: "Settings", differences: "Sequence[Drift]", *, yes: bool) -> None:
    """Shows what is about to change, and asks if that moves or removes something."""
    from streamflow.kafka.topics import costs

    asks = False
    for drift in differences:
        if drift.is_surplus:
            continue
        if drift.what == "topic":
            typer.echo(f"{drift.topic}: is created", err=True)
            continue
        cost = costs(settings, drift)
        asks = asks or cost is not None
        note = f" ({cost})" if cost else ""
        typer.echo(f"{drift.topic}: {drift.what} {drift.found} → {drift.declared}{note}", err=True)
    if asks and not yes:
        confirm("make these changes?", "nothing was changed")


def _retention(config: "Mapping[str, str]") -> str:
    if config.get("cleanup.policy") == "compact":
        return "compacted"
    return f"{int(config['retention.ms']) / 3_600_000:g}" if config else "-"


def _show_topics(report: list[dict[str, Any]], to_alter: set[str]) -> None:
    from streamflow.kafka.ownership import Owner
    from streamflow_cli.tables import make_console, plain_table

    table = plain_table("topic", "owner", "partitions", "retention (h)", "differs in")
    for row in report:
        config = row["config"]
        differs = [
            f"{drift['what']}: {drift['found'] or 'missing'}, not {drift['declared']}"
            for drift in row["drift"]
        ]
        table.add_row(
            row["topic"],
            row["owner"] or "-",
            str(row["partitions"] or "-"),
            _retention(config),
            "; ".join(differs) or "-",
        )
    make_console().print(table)
    differing = [row for row in report if row["topic"] in to_alter]
    foreign = sorted(row["topic"] for row in differing if row["owner"] is Owner.FOREIGN)
    if foreign:
        typer.echo(
            f"StreamFlow did not create {', '.join(foreign)}, and does not alter it: declare it "
            "with Topics(managed=False), or adopt it with --adopt TOPIC",
            err=True,
        )
    elif differing:
        typer.echo("the broker's topics differ: `streamflow topics --apply` alters them", err=True)


@db.command("upgrade")
def db_upgrade() -> None:
    """Brings the database's schema up to date. Safe to repeat.

    Example: streamflow db upgrade
    """
    from streamflow.postgres.schema import upgrade

    settings, streams = settings_and_streams()
    refused = _upgrade(upgrade, settings, streams)
    if refused is not None:
        raise refused
    if streams.failed:
        raise _others_in_place(streams)
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
        typer.echo(
            f"{column.table}.{column.column}: {column.lifted:,} rows hashed under the newest key"
        )
    problems = [problem for column in done for problem in column.problems()]
    for problem in problems:
        typer.echo(f"error: {problem}", err=True)
    raise typer.Exit(1 if problems else 0)


def audit(
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
) -> None:
    """Proves that every record was stored, dead-lettered or known as a duplicate, and that every event
    has its notification and is counted in its window. Exits 1 if not, or if it cannot be said yet.

    Example: streamflow audit --json
    """
    from streamflow.audit.acknowledging import acknowledge as acknowledge_found
    from streamflow.audit.ledger import run_audit
    from streamflow.registry import stream_named
    from streamflow_cli.tables import audit_table

    settings, streams = settings_and_streams()
    if stream is not None:
        stream_named(streams, stream)
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
    report = run_audit(settings, streams, patience=wait)
    failed = streams.failed
    if stream is not None:
        report, failed = report.of_stream(stream), ()
    if as_json:
        typer.echo(json.dumps(report.as_dict()))
    else:
        audit_table(report, [one.name or one.path for one in failed])
    raise typer.Exit(0 if report.closed and not failed else 1)
