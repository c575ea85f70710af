"""Commands on data: worker, topics, db, audit."""

import getpass
import json
from enum import StrEnum
from typing import Annotated

import typer


class WorkerName(StrEnum):
    """The workers that can be run."""

    VALIDATOR = "validator"
    ANALYTICS = "analytics"
    LOADER = "loader"
    BRIDGE = "bridge"


def register(app: typer.Typer) -> None:
    """Adds the commands of this module to the root application."""
    app.command()(worker)
    app.command()(init)
    app.command()(topics)
    app.command()(audit)
    db = typer.Typer(help="The database's schema.")
    db.command("upgrade")(db_upgrade)
    app.add_typer(db, name="db")


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
            "--accept-rejects", help="Go on however many records are refused: no circuit breaker."
        ),
    ] = False,
) -> None:
    """Runs one worker in the foreground until SIGTERM or Ctrl-C.

    Example: streamflow worker loader --health-port 9103
    """
    from streamflow.settings import load_settings

    if name is WorkerName.BRIDGE:
        from streaming_workers.bridge.server import run_bridge

        run_bridge(load_settings(), health_port=health_port)
        return
    from streaming_workers import launch

    launch.run_worker(
        load_settings(),
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
    import tenacity

    from streamflow.errors import Unavailable
    from streamflow.kafka.topics import provision
    from streamflow.postgres.owned_topics import TopicsTable
    from streamflow.postgres.schema import upgrade
    from streamflow.registry import load_streams
    from streamflow.settings import load_settings

    settings = load_settings()
    streams = load_streams(settings)
    patiently = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(Unavailable),
        stop=tenacity.stop_after_delay(wait),
        wait=tenacity.wait_fixed(1),
        reraise=True,
    )
    # Topics that are created are noted in the schema.
    patiently(upgrade, settings, streams)
    for drift in patiently(provision, settings, streams, TopicsTable(settings)):
        typer.echo(f"{drift.topic}: {drift.what} was {drift.found or 'missing'}")
    typer.echo("topics and schema are in place")


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
            help="Make a topic that somebody else created StreamFlow's, so that --apply may alter "
            "it. May be repeated.",
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
    """Shows the declared topics, whose they are and how the broker's differ; exits 1 when they do.

    A topic that StreamFlow did not create is never altered unless it is adopted.

    Example: streamflow topics --apply
    """
    if accept_recreated is not None:
        from streamflow_cli.recreated import accept

        accept(accept_recreated, yes=yes)
        return
    from streamflow.kafka.ownership import Owner
    from streamflow.kafka.topics import (
        adopt,
        declared_topics,
        drifts,
        owners,
        provision,
        unmanaged_topics,
    )
    from streamflow.postgres.owned_topics import TopicsTable
    from streamflow.registry import load_streams
    from streamflow.settings import load_settings
    from streamflow_cli.tables import make_console, plain_table

    settings = load_settings()
    streams = load_streams(settings)
    owned = TopicsTable(settings)
    if adopted:
        adopt(settings, streams, adopted, owned)
    if apply:
        provision(settings, streams, owned)
    specs = declared_topics(settings, streams)
    found = drifts(settings, specs)
    whose = owners(settings, specs, owned)
    unmanaged = unmanaged_topics(streams)
    if as_json:
        report = [
            {
                "topic": spec.name,
                "owner": whose.get(spec.name),
                "partitions": spec.partitions,
                "config": spec.config,
                "drift": [each._asdict() for each in found if each.topic == spec.name],
            }
            for spec in specs
        ]
        report += [
            {"topic": name, "owner": Owner.UNMANAGED, "partitions": None, "config": {}, "drift": []}
            for name in unmanaged
        ]
        typer.echo(json.dumps(report))
    else:
        table = plain_table("topic", "whose", "partitions", "retention (h)", "differs in")
        for spec in specs:
            differs = [
                f"{each.what}: {each.found or 'missing'}, not {each.declared}"
                for each in found
                if each.topic == spec.name
            ]
            hours = int(spec.config["retention.ms"]) / 3_600_000
            table.add_row(
                spec.name,
                whose.get(spec.name, "-"),
                str(spec.partitions),
                f"{hours:g}",
                "; ".join(differs) or "-",
            )
        for name in unmanaged:
            table.add_row(name, Owner.UNMANAGED, "-", "-", "-")
        make_console().print(table)
        foreign = sorted({each.topic for each in found if whose.get(each.topic) is Owner.FOREIGN})
        if foreign:
            typer.echo(
                f"StreamFlow did not create {', '.join(foreign)}, and does not alter it: declare it "
                "with Topics(managed=False), or adopt it with --adopt TOPIC",
                err=True,
            )
        elif found:
            typer.echo("the broker's topics differ: run `streamflow topics --apply`", err=True)
    raise typer.Exit(1 if found else 0)


def db_upgrade() -> None:
    """Brings the database's schema up to date. Safe to repeat.

    Example: streamflow db upgrade
    """
    from streamflow.postgres.schema import upgrade
    from streamflow.registry import load_streams
    from streamflow.settings import load_settings

    settings = load_settings()
    upgrade(settings, load_streams(settings))
    typer.echo("the schema is up to date")


def audit(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    wait: Annotated[
        float, typer.Option(help="Seconds to let the workers catch up before judging.")
    ] = 30.0,
    acknowledge: Annotated[
        bool,
        typer.Option(
            "--acknowledge",
            help="Take the gaps that earlier audits have named as known: what was lost by them stays "
            "in the report, and is no problem any more.",
        ),
    ] = False,
) -> None:
    """Proves that every record was stored, dead-lettered or known as a duplicate, and that every event
    has its notification and stands in its window. Exits 1 if that is not so, or cannot be said yet.

    Example: streamflow audit --json
    """
    from streamflow.audit.ledger import acknowledge as acknowledge_gaps
    from streamflow.audit.ledger import run_audit
    from streamflow.registry import load_streams
    from streamflow.settings import load_settings
    from streamflow_cli.tables import audit_table

    settings = load_settings()
    streams = load_streams(settings)
    if acknowledge:
        for gap in acknowledge_gaps(settings, streams, getpass.getuser()):
            typer.echo(
                f"acknowledged: {gap.topic}[{gap.partition}] offsets {gap.first} to {gap.end - 1}, "
                f"{gap.cause}, noted by {gap.reader}",
                err=True,
            )
    report = run_audit(settings, streams, patience=wait)
    if as_json:
        typer.echo(json.dumps(report.as_dict()))
    else:
        audit_table(report)
    raise typer.Exit(0 if report.closed else 1)
