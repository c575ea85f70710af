"""The command ``init``: puts topics and schema in place, and names them."""

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from streamflow_cli.configured import settings_and_streams
from streamflow_cli.data import others_in_place, upgrade_tables

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from streamflow.kafka.ownership import Drift
    from streamflow.postgres.schema import TablePlan
    from streamflow.stream import Stream


def init(
    wait: Annotated[
        float,
        typer.Option(min=0, help="Seconds to wait for a broker or database that is starting."),
    ] = 60.0,
) -> None:
    """Puts topics and schema in place before workers start, and names them. Safe to repeat, and at the same
    time.

    Example: streamflow init --wait 120
    """
    from streamflow.errors import StreamsRefused
    from streamflow.kafka.clients import retrying
    from streamflow.kafka.ownership import surplus
    from streamflow.kafka.topic_changes import postponed
    from streamflow.kafka.topics import provision
    from streamflow.postgres import schema
    from streamflow.postgres.owned_topics import TopicsTable
    from streamflow_stack.known_streams import unknown_note

    settings, streams = settings_and_streams()
    patiently = retrying(wait)
    plans = patiently(schema.plans, settings, streams)
    # The schema first: topics that are created are noted in it.
    refused = upgrade_tables(partial(patiently, schema.upgrade), settings, streams)
    without_topics: StreamsRefused | None = None
    differences: Sequence[Drift] = ()
    try:
        differences = patiently(provision, settings, streams, TopicsTable(settings))
    except StreamsRefused as error:
        without_topics, differences = error, error.differences
    not_provisioned = without_topics.streams if without_topics is not None else ()
    for line in _in_place(streams, plans, differences, not_provisioned):
        typer.echo(line)
    unknown = unknown_note(settings, [stream.name for stream in streams])
    for line in (*surplus(differences), *postponed(differences), *filter(None, [unknown])):
        typer.echo(f"warning: {line}", err=True)
    if (reason := refused or without_topics) is not None:
        raise reason
    if streams.failed:
        raise others_in_place(streams)
    typer.echo("topics and schema are in place")


def _in_place(
    streams: "Sequence[Stream]",
    plans: "Mapping[str, TablePlan]",
    differences: "Sequence[Drift]",
    not_provisioned: "Collection[str]",
) -> "Iterator[str]":
    """The topics and tables of each stream, but for those that were refused, and what became of them."""
    for stream in streams:
        topics = [] if stream.name in not_provisioned else list(_topics(stream, differences))
        tables = [] if plans[stream.name].refused else list(_tables(stream, plans[stream.name]))
        if topics or tables:
            yield f"stream {stream.name}"
        yield from (f"  {line}" for line in (*topics, *tables))


def _topics(stream: "Stream", differences: "Sequence[Drift]") -> "Iterator[str]":
    from streamflow.kafka.topic_changes import risk

    for topic in stream.topic_names:
        made = [
            drift
            for drift in differences
            if drift.topic == topic and not drift.is_surplus and risk(drift) is None
        ]
        if any(drift.what == "topic" for drift in made):
            yield f"topic {topic} was created"
        elif made:
            changes = (f"{drift.what} {drift.found} → {drift.declared}" for drift in made)
            yield f"topic {topic} was altered: {', '.join(changes)}"
        else:
            yield f"topic {topic} is there"


def _tables(stream: "Stream", plan: "TablePlan") -> "Iterator[str]":
    from streamflow.check import planned_tables
    from streamflow.planned import PlannedAction

    done = {PlannedAction.CREATE: "was created", PlannedAction.ALTER: "was altered"}
    for planned in planned_tables(stream, plan):
        changes = f": {', '.join(planned.changes)}" if planned.changes else ""
        yield f"{planned.kind} {planned.name} {done.get(planned.action, planned.action)}{changes}"
