"""What follows from the declarations of streams: the datasets, and the jobs of workers. Pure."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from streamflow.lineage.datasets import Dataset, How, Job, Names, Source
from streamflow.postgres.tables import (
    DEAD_LETTERS,
    NOTIFICATIONS,
    SHARED_COLUMNS,
    WINDOW_COUNTS,
    Column,
    event_columns,
)
from streamflow.postgres.windows.tables import WindowTable, aggregate_columns, window_tables
from streamflow.stream import Stream
from streamflow.windows.specs import Windows

Sources = dict[str, Sequence[Source]]


class StreamDatasets:
    """The topics and tables of streams."""

    def __init__(self, names: Names, streams: Sequence[Stream]) -> None:
        self._names = names
        self.streams = tuple(streams)

    def events(self, stream: Stream) -> Dataset:
        """The topic of a stream's events, with the names that fields have in JSON."""
        columns = {
            _in_json(stream, column.name): column.type
            for column in event_columns(stream)
            if _is_field(stream, column.name)
        }
        return Dataset(title=stream.topic, name=self._names.topic(stream.topic), columns=columns)

    def derived(self, topic: str) -> Dataset:
        """A topic that workers write to."""
        return Dataset(title=topic, name=self._names.topic(topic))

    def event_table(self, stream: Stream, name: str | None = None) -> Dataset:
        """The table of a stream's events; with `name` another one with the same columns."""
        topic, columns = self._names.topic(stream.topic), event_columns(stream)
        sources = {
            column.name: [Source(topic, _in_json(stream, column.name), How.IDENTITY)]
            for column in columns
            if _is_field(stream, column.name)
        }
        return self.table(name or stream.event_table, _types(columns), sources)

    def table(
        self, name: str, columns: Mapping[str, str], sources: Mapping[str, Sequence[Source]]
    ) -> Dataset:
        named = self._names.table(name)
        return Dataset(title=name, name=named, columns=columns, sources=sources)

    def window_table(self, table: WindowTable) -> Dataset:
        sources = self.window_sources(table.stream, table.spec, self.events(table.stream))
        for name, aggregate in table.spec.aggregates.items():
            state = aggregate_columns(name, aggregate, table.types.get(name, ""))
            sources |= {column.name: sources[name] for column in state if name in sources}
        columns = _types(table.columns)
        return self.table(table.name, columns, {k: v for k, v in sources.items() if k in columns})

    def window_sources(self, stream: Stream, spec: Windows, events: Dataset) -> Sources:
        """Where the columns of windows come from: bounds, groups, and by their names the aggregates. `events`
        is the topic or the table that is counted."""

        def source(path: str, how: How) -> Source:
            first, *rest = path.split(".")
            name = first if first in events.columns else _in_json(stream, first)
            return Source(events.name, ".".join((name, *rest)), how)

        grouped = [source(path, How.GROUP_BY) for path in spec.by_fields]
        grouped.append(source(stream.event_time, How.WINDOW))
        bound = [source(stream.event_time, How.TRANSFORMATION)]
        found: Sources = dict.fromkeys(
            ("window_start", "window_end", "session_start", "session_end"), bound
        )
        found |= dict.fromkeys(("count", "counted"), grouped)
        for column, path in zip(spec.by_columns, spec.by_fields, strict=True):
            found[column] = [source(path, How.IDENTITY)]
        for name, aggregate in spec.aggregates.items():
            field = aggregate.field
            own = [] if field is None else [source(field, How.AGGREGATION)]
            found[name] = [*own, *grouped]
        return found

    def shared_table(self, name: str) -> Dataset:
        """A table that streams share."""
        sources: dict[str, list[Source]] = defaultdict(list)
        if name == NOTIFICATIONS.name:
            for topic in dict.fromkeys(stream.notifications_topic for stream in self.streams):
                for column in ("message", "time", "event_id", "user"):
                    sources[column].append(Source(self._names.topic(topic), column, How.IDENTITY))
        if name == WINDOW_COUNTS.name:
            for stream in self.streams:
                if stream.event_counts is None:
                    continue
                own = self.window_sources(stream, stream.event_counts, self.events(stream))
                own["event_type"] = [own[column][0] for column in stream.event_counts.by_columns]
                for column in ("window_start", "window_end", "event_type", "count"):
                    sources[column] += own[column]
        return self.table(name, SHARED_COLUMNS[name], sources)

    def jobs_of(self, worker: str) -> list[Job]:
        """One for each dataset that a worker writes, so that no input seems to go into all of them."""
        made = {"validator": self._of_validator, "analytics": self._of_analytics}
        outputs = made.get(worker, self._of_loader)()
        return [
            Job(
                name=f"{worker}.{written[0].title}",
                inputs=list({each.name: each for each in read}.values()),
                outputs=written,
                is_streaming=True,
            )
            for written, read in outputs
        ]

    def _of_validator(self) -> list[tuple[list[Dataset], list[Dataset]]]:
        read: dict[str, list[Dataset]] = defaultdict(list)
        for stream in self.streams:
            if stream.notify is not None:
                read[stream.notifications_topic].append(self.events(stream))
            read[stream.dead_letter_topic].append(self.events(stream))
        return [([self.derived(topic)], inputs) for topic, inputs in read.items()]

    def _of_analytics(self) -> list[tuple[list[Dataset], list[Dataset]]]:
        read: dict[str, list[Dataset]] = defaultdict(list)
        for stream in self.streams:
            if stream.counted:
                read[stream.analytics_topic].append(self.events(stream))
        return [([self.derived(topic)], inputs) for topic, inputs in read.items()]

    def _of_loader(self) -> list[tuple[list[Dataset], list[Dataset]]]:
        shared: dict[str, list[Dataset]] = defaultdict(list)
        outputs: list[tuple[list[Dataset], list[Dataset]]] = []
        for stream in self.streams:
            written = [self.event_table(stream)]
            if stream.state_table is not None:
                written.append(self.event_table(stream, stream.state_table))
            outputs.append((written, [self.events(stream)]))
            analytics = self.derived(stream.analytics_topic)
            if stream.event_counts is not None:
                shared[WINDOW_COUNTS.name].append(analytics)
            if stream.notify is not None:
                shared[NOTIFICATIONS.name].append(self.derived(stream.notifications_topic))
            shared[DEAD_LETTERS.name].append(self.derived(stream.dead_letter_topic))
            outputs += [
                ([self.window_table(table)], [analytics]) for table in window_tables(stream)
            ]
        return outputs + [([self.shared_table(name)], read) for name, read in shared.items()]

    def replay(self) -> Job:
        """Of dead letters, back into the topics that their records were in."""
        letters = self.shared_table(DEAD_LETTERS.name)
        value = [Source(letters.name, "value", How.TRANSFORMATION)]
        topics = [
            Dataset(
                title=events.title,
                name=events.name,
                columns=events.columns,
                sources=dict.fromkeys(events.columns, value),
            )
            for events in map(self.events, self.streams)
        ]
        return Job(name="replay_dead_letters", inputs=[letters], outputs=topics)


def _types(columns: Sequence[Column]) -> dict[str, str]:
    return {column.name: column.type for column in columns}


def _is_field(stream: Stream, column: str) -> bool:
    return any(column in model.model_fields for model in stream.decoder.models)


def _in_json(stream: Stream, field: str) -> str:
    """The name of a field in JSON."""
    for model in stream.decoder.models:
        if field in model.model_fields:
            return model.model_fields[field].serialization_alias or field
    return field
