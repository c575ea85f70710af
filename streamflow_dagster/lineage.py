"""Lineage of Dagster's steps: what `streamflow.lineage` does, with the ids of Dagster's runs.

Each step is a run of its own, a part of Dagster's run: that one's id is the parent's id in OpenLineage.
"""

import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

import dagster as dg

from streamflow.daily_rollup import DailyRollup
from streamflow.lineage.datasets import How, Job, Source
from streamflow.lineage.runs import lineage_of
from streamflow.lineage.streams import StreamDatasets
from streamflow.postgres.sessions.tables import SessionTable
from streamflow.postgres.tables import DEAD_LETTERS
from streamflow.settings import Settings
from streamflow.stream import Stream
from streamflow_dagster.catalog import rollup_key
from streamflow_dagster.defs.rollups_sql import ACTIVE_USERS, has_users

_USER: Final = "user"


@contextmanager
def lineage_of_step(
    settings: Settings, streams: Sequence[Stream], job: Callable[[StreamDatasets], Job]
) -> Iterator[Counter[str]]:
    """As `lineage_of`, for the step of an asset that is running."""
    if settings.openlineage_url is None:
        yield Counter()
        return
    context = dg.AssetExecutionContext.get()
    parent = context.run.run_id
    # A step that is retried is another run.
    attempt = (
        f"{context.op_execution_context.op_handle} {context.op_execution_context.retry_number}"
    )
    run_id = str(uuid.uuid5(uuid.UUID(parent), attempt))
    of = (parent, context.run.job_name)
    with lineage_of(settings, streams, job, run_id=run_id, parent=of) as rows:
        yield rows


def load_job(datasets: StreamDatasets, key: dg.AssetKey, table: str) -> Job:
    """Loading a table up to where its topics end."""
    own = next(job for job in datasets.jobs_of("loader") if job.outputs[0].title == table)
    return replace(own, name=key.to_user_string(), is_streaming=False)


def hourly_job(datasets: StreamDatasets, columns: Mapping[str, str]) -> Job:
    """Events by type and hour."""
    sources: dict[str, list[Source]] = {"hour": [], "event_type": [], "events": [], "users": []}
    inputs = []
    for stream in datasets.streams:
        table = datasets.event_table(stream)
        inputs.append(table)
        grouped = [Source(table.name, stream.event_time, How.WINDOW)]
        sources["hour"].append(grouped[0]._replace(how=How.TRANSFORMATION))
        if stream.kind_field is not None:
            grouped.append(Source(table.name, stream.kind_field, How.GROUP_BY))
            sources["event_type"].append(grouped[1]._replace(how=How.IDENTITY))
        sources["events"] += grouped
        if has_users(stream):
            sources["users"] += [Source(table.name, _USER, How.AGGREGATION), *grouped]
    output = datasets.table("hourly_events", columns, {k: v for k, v in sources.items() if v})
    return Job(name=_name(output.title), inputs=inputs, outputs=[output])


def daily_job(datasets: StreamDatasets, rollup: DailyRollup, columns: Mapping[str, str]) -> Job:
    """A rollup by day. Where its columns come from only its query says, which is a part of the job; of the
    built-in one it is known."""
    inputs = [datasets.event_table(stream) for stream in datasets.streams]
    sources: dict[str, list[Source]] = {"day": [], "users": [], "events": []}
    for stream, table in zip(datasets.streams, inputs, strict=True):
        time = Source(table.name, stream.event_time, How.TRANSFORMATION)
        sources["day"].append(time)
        if rollup == ACTIVE_USERS:
            grouped = time._replace(how=How.WINDOW)
            sources["users"] += [Source(table.name, _USER, How.AGGREGATION), grouped]
            sources["events"].append(grouped)
    output = datasets.table(rollup.table, columns, {k: v for k, v in sources.items() if v})
    return Job(name=_name(rollup.table), inputs=inputs, outputs=[output], query=rollup.query)


def causes_job(datasets: StreamDatasets, columns: Mapping[str, str]) -> Job:
    """Dead letters by cause."""
    letters = datasets.shared_table(DEAD_LETTERS.name)
    grouped = [
        Source(letters.name, column, How.GROUP_BY)
        for column in ("source_topic", "error_code", "stage")
    ]
    same = zip(("topic", "error_code", "stage"), grouped, strict=True)
    sources = {column: [source._replace(how=How.IDENTITY)] for column, source in same}
    sources["letters"] = grouped
    sources["open"] = [Source(letters.name, "status", How.AGGREGATION), *grouped]
    output = datasets.table("dead_letters_by_cause", columns, sources)
    return Job(name=_name(output.title), inputs=[letters], outputs=[output])


def sessions_job(datasets: StreamDatasets, table: SessionTable) -> Job:
    """Sessions of the events of a stream."""
    events = datasets.event_table(table.stream)
    columns = {column.name: column.type for column in table.columns}
    sources = datasets.window_sources(table.stream, table.spec, events)
    for name, aggregate in table.spec.aggregates.items():
        sources |= dict.fromkeys(aggregate.results(name), sources[name])
    known = {name: found for name, found in sources.items() if name in columns}
    output = datasets.table(table.name, columns, known)
    return Job(name=_name(table.name), inputs=[events], outputs=[output])


def _name(table: str) -> str:
    return rollup_key(table).to_user_string()
