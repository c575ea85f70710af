"""The command ``topics``: what is declared, what the broker has, and how the broker gets there."""

import json
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streamflow_cli.configured import settings_and_streams
from streamflow_cli.confirming import confirm

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from streamflow.kafka.ownership import Drift
    from streamflow.settings import Settings


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
        drifts,
        owners,
        provision,
        unmanaged_topics,
    )
    from streamflow.postgres.owned_topics import TopicsTable

    settings, streams = settings_and_streams()
    owned = TopicsTable(settings)
    if adopted:
        adopt(settings, streams, adopted, owned)
    specs = all_topics(settings, streams)
    if apply:
        provision(settings, streams, owned, confirm=partial(_confirm_changes, settings, yes=yes))
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
