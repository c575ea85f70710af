"""The assets of the streams as data: keys, lineage, columns. Pure."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import dagster as dg

from streamflow.kafka.topics import declared_topics, unmanaged_topics
from streamflow.names import asset_name
from streamflow.postgres.tables import (
    SHARED_COLUMNS,
    SHARED_DESCRIPTIONS,
    Column,
    Table,
    event_columns,
    tables_of_topics,
)
from streamflow.postgres.windows.tables import WindowTable, window_tables, windows_in_words
from streamflow.settings import Settings
from streamflow.stream import Stream
from streamflow.stream_topics import TopicSpec

OWNERS: Final = ("team:streamflow",)
PRODUCERS: Final = "producers"
TOPICS: Final = "kafka"
TABLES: Final = "postgres"
ROLLUPS: Final = "rollups"
OPERATIONS: Final = "operations"
EXPORTS: Final = "exports"


@dataclass(frozen=True, kw_only=True)
class TopicEntry:
    """A topic and what the graph shows of it."""

    key: dg.AssetKey
    spec: TopicSpec
    description: str
    deps: tuple[dg.AssetKey, ...]
    columns: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class TableEntry:
    """A table and what the graph shows of it.

    Attributes:
        stream: whose events it has.
        windows: which windows' parts it has.
    """

    key: dg.AssetKey
    table: Table
    topics: tuple[str, ...]
    description: str
    deps: tuple[dg.AssetKey, ...]
    columns: dict[str, str]
    stream: Stream | None = None
    windows: WindowTable | None = None

    @property
    def owner(self) -> Stream | None:
        """The stream that alone has it; None for what streams share."""
        return self.stream if self.windows is None else self.windows.stream


@dataclass(frozen=True, kw_only=True)
class Catalog:
    """Everything derived from the streams."""

    streams: tuple[Stream, ...]
    topics: tuple[TopicEntry, ...]
    unmanaged_topics: tuple[TopicEntry, ...]
    tables: tuple[TableEntry, ...]

    def table(self, name: str) -> TableEntry:
        return next(entry for entry in self.tables if entry.table.name == name)

    def drained_with(self, name: str) -> list[dg.AssetKey]:
        """A table, and the tables of windows that are in the same topics."""
        topics = set(self.table(name).topics)
        return [
            entry.key
            for entry in self.tables
            if entry.table.name == name or (entry.windows and topics.intersection(entry.topics))
        ]


def producer_key(stream: Stream) -> dg.AssetKey:
    """What sends the stream's events."""
    return dg.AssetKey(["producer", asset_name(stream.name)])


def topic_key(name: str) -> dg.AssetKey:
    """`name` is without the prefix."""
    return dg.AssetKey([TOPICS, asset_name(name)])


def table_key(name: str) -> dg.AssetKey:
    return dg.AssetKey([TABLES, asset_name(name)])


def rollup_key(table: str) -> dg.AssetKey:
    return dg.AssetKey([ROLLUPS, asset_name(table)])


def catalog_of(settings: Settings, streams: Sequence[Stream]) -> Catalog:
    # The partitions and settings of a topic that is not managed are up to its owner.
    unmanaged = [TopicSpec(name, 0, {}) for name in unmanaged_topics(streams)]
    return Catalog(
        streams=tuple(streams),
        topics=_topics(settings, streams, declared_topics(settings, streams)),
        tables=_tables(settings, streams),
        unmanaged_topics=_topics(settings, streams, unmanaged),
    )


def _topics(
    settings: Settings, streams: Sequence[Stream], specs: Sequence[TopicSpec]
) -> tuple[TopicEntry, ...]:
    descriptions: dict[str, str] = {}
    deps: dict[str, list[dg.AssetKey]] = defaultdict(list)
    columns: dict[str, dict[str, str]] = {}
    for stream in streams:
        fields = _contract_columns(stream)
        descriptions[stream.topic] = (
            f"Events of {stream.name}, as they happened: {', '.join(fields)}."
        )
        columns[stream.topic] = fields
        deps[stream.topic].append(producer_key(stream))
        for topic, description in (
            (
                stream.analytics_topic,
                "What the windows count and aggregate, from the analytics worker.",
            ),
            (stream.notifications_topic, "One notification a valid event, from the validator."),
            (stream.dead_letter_topic, "Records that broke their contract, as they came."),
        ):
            descriptions[topic] = description
            deps[topic].append(topic_key(stream.name))
    return tuple(
        TopicEntry(
            key=topic_key(spec.name.removeprefix(settings.prefix)),
            spec=spec,
            description=descriptions[spec.name],
            deps=tuple(deps[spec.name]),
            columns=columns.get(spec.name, {}),
        )
        for spec in specs
    )


def _tables(settings: Settings, streams: Sequence[Stream]) -> tuple[TableEntry, ...]:
    topics: dict[str, list[str]] = defaultdict(list)
    tables: dict[str, Table] = {}
    for topic, table in tables_of_topics(streams).items():
        tables[table.name] = table
        topics[table.name].append(topic)
    owners = {stream.event_table: stream for stream in streams}
    of_topics = (
        TableEntry(
            key=table_key(name),
            table=table,
            topics=tuple(topics[name]),
            description=SHARED_DESCRIPTIONS.get(
                name, f"Every valid event of {topics[name][0]}, exactly once."
            ),
            deps=tuple(topic_key(topic.removeprefix(settings.prefix)) for topic in topics[name]),
            columns=column_types(event_columns(owners[name]))
            if name in owners
            else SHARED_COLUMNS[name],
            stream=owners.get(name),
        )
        for name, table in tables.items()
    )
    of_windows = (_window_entry(table) for stream in streams for table in window_tables(stream))
    return (*of_topics, *of_windows)


def _window_entry(table: WindowTable) -> TableEntry:
    stream = table.stream
    return TableEntry(
        key=table_key(table.name),
        table=table.table,
        topics=(stream.analytics_topic,),
        description=f"Windows of {stream.name}, {windows_in_words(table.spec)}: a row for each part of a "
        f"window, as one source partition has counted it, or a correction by late events. Their totals are "
        f"in the view {table.view}.",
        deps=(topic_key(stream.topics.analytics),),
        columns=column_types(table.columns),
        windows=table,
    )


def column_types(columns: Sequence[Column]) -> dict[str, str]:
    return {
        column.name: f"{column.type}{'' if column.nullable else ' not null'}" for column in columns
    }


def _contract_columns(stream: Stream) -> dict[str, str]:
    declared = {name for model in stream.decoder.models for name in model.model_fields}
    return {column.name: column.type for column in event_columns(stream) if column.name in declared}


def schema_metadata(columns: Mapping[str, str]) -> dict[str, Any]:
    """The metadata in which Dagster looks for columns; empty if none are known."""
    schema = dg.TableSchema(
        columns=[
            dg.TableColumn(
                name=name,
                type=kind.removesuffix(" not null"),
                constraints=dg.TableColumnConstraints(nullable=not kind.endswith(" not null")),
            )
            for name, kind in columns.items()
        ]
    )
    return {"dagster/column_schema": schema} if columns else {}
