"""The assets that the registry of streams brings along, as data: keys, lineage, columns. Pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import dagster as dg

from streamflow.kafka.topics import declared_topics, unmanaged_topics
from streamflow.postgres.tables import (
    DEAD_LETTERS,
    NOTIFICATIONS,
    SHARED_COLUMNS,
    WINDOW_COUNTS,
    Table,
    column_type,
    event_columns,
    tables_of_topics,
)
from streamflow.settings import Settings
from streamflow.stream import Stream, TopicSpec

OWNERS: Final = ("team:streamflow",)
PRODUCERS: Final = "producers"
TOPICS: Final = "kafka"
TABLES: Final = "postgres"
ROLLUPS: Final = "rollups"
OPERATIONS: Final = "operations"

_SHARED_TELL: Final = {
    WINDOW_COUNTS.name: "Events counted in windows; a window's total is the sum of its rows.",
    NOTIFICATIONS.name: "One notification for each valid event.",
    DEAD_LETTERS.name: "Records that broke their contract, with the cause; addresses are hashed.",
}


@dataclass(frozen=True, kw_only=True)
class TopicEntry:
    """A topic and what the graph shows of it."""

    key: dg.AssetKey
    spec: TopicSpec
    tells: str
    deps: tuple[dg.AssetKey, ...] = ()
    columns: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class TableEntry:
    """A table and what the graph shows of it."""

    key: dg.AssetKey
    table: Table
    topics: tuple[str, ...]
    tells: str
    deps: tuple[dg.AssetKey, ...]
    columns: dict[str, str]
    stream: Stream | None = None


@dataclass(frozen=True)
class Catalog:
    """Everything derived from the streams."""

    streams: tuple[Stream, ...]
    producers: tuple[dg.AssetKey, ...]
    topics: tuple[TopicEntry, ...]
    tables: tuple[TableEntry, ...]
    unmanaged_topics: tuple[TopicEntry, ...] = ()

    def table(self, name: str) -> TableEntry:
        """The entry of a table."""
        return next(entry for entry in self.tables if entry.table.name == name)


def word(name: str) -> str:
    """A name as Dagster takes it in an asset key."""
    return re.sub(r"[^A-Za-z0-9_]", "_", name)


def producer_key(stream: Stream) -> dg.AssetKey:
    """What sends the events of a stream."""
    return dg.AssetKey(["producer", word(stream.name)])


def topic_key(name: str) -> dg.AssetKey:
    """Of a topic, by its name without prefix."""
    return dg.AssetKey(["kafka", word(name)])


def table_key(name: str) -> dg.AssetKey:
    """Of a table."""
    return dg.AssetKey(["postgres", word(name)])


def catalog_of(settings: Settings, streams: Sequence[Stream]) -> Catalog:
    """Derives the assets of these streams."""
    # Of a topic that is not managed, the partitions and settings are its owner's.
    unmanaged = [TopicSpec(name, 0, {}) for name in unmanaged_topics(streams)]
    return Catalog(
        streams=tuple(streams),
        producers=tuple(producer_key(stream) for stream in streams),
        topics=_topics(settings, streams, declared_topics(settings, streams)),
        tables=_tables(settings, streams),
        unmanaged_topics=_topics(settings, streams, unmanaged),
    )


def _topics(
    settings: Settings, streams: Sequence[Stream], specs: Sequence[TopicSpec]
) -> tuple[TopicEntry, ...]:
    tells: dict[str, str] = {}
    deps: dict[str, list[dg.AssetKey]] = {}
    columns: dict[str, dict[str, str]] = {}
    for stream in streams:
        own = topic_key(stream.name)
        tells[stream.topic] = f"Events of {stream.name}, as they happened: {_fields(stream)}."
        columns[stream.topic] = _contract_columns(stream)
        deps.setdefault(stream.topic, []).append(producer_key(stream))
        for topic, told in (
            (stream.analytics_topic, "Counts of the windows, from the analytics worker."),
            (stream.notifications_topic, "One notification a valid event, from the validator."),
            (stream.dead_letter_topic, "Records that broke their contract, as they came."),
        ):
            tells[topic] = told
            deps.setdefault(topic, []).append(own)
    return tuple(
        TopicEntry(
            key=topic_key(spec.name.removeprefix(settings.prefix)),
            spec=spec,
            tells=tells[spec.name],
            deps=tuple(deps[spec.name]),
            columns=columns.get(spec.name, {}),
        )
        for spec in specs
    )


def _tables(settings: Settings, streams: Sequence[Stream]) -> tuple[TableEntry, ...]:
    topics: dict[str, list[str]] = {}
    tables: dict[str, Table] = {}
    for topic, table in tables_of_topics(streams).items():
        tables[table.name] = table
        topics.setdefault(table.name, []).append(topic)
    owners = {stream.table: stream for stream in streams}
    return tuple(
        TableEntry(
            key=table_key(name),
            table=table,
            topics=tuple(topics[name]),
            tells=_SHARED_TELL.get(name, f"Every valid event of {topics[name][0]}, exactly once."),
            deps=tuple(topic_key(each.removeprefix(settings.prefix)) for each in topics[name]),
            columns=_event_types(owners[name]) if name in owners else SHARED_COLUMNS[name],
            stream=owners.get(name),
        )
        for name, table in tables.items()
    )


def _event_types(stream: Stream) -> dict[str, str]:
    return {
        column.name: f"{column.type}{'' if column.nullable else ' not null'}"
        for column in event_columns(stream)
    }


def _contract_columns(stream: Stream) -> dict[str, str]:
    return {
        name: column_type(each.annotation)[0]
        for model in stream.decoder.models
        for name, each in model.model_fields.items()
    }


def _fields(stream: Stream) -> str:
    return ", ".join(_contract_columns(stream))


def column_schema(columns: dict[str, str]) -> dg.TableSchema:
    """Columns as Dagster shows them."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                name=name,
                type=kind.removesuffix(" not null"),
                constraints=dg.TableColumnConstraints(nullable=not kind.endswith(" not null")),
            )
            for name, kind in columns.items()
        ]
    )


def schema_metadata(columns: dict[str, str]) -> dict[str, Any]:
    """The metadata under which Dagster looks for columns; nothing where none are known."""
    return {"dagster/column_schema": column_schema(columns)} if columns else {}
