"""The tables as sources of dbt, in YAML. Pure."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import yaml
from psycopg.conninfo import conninfo_to_dict

from streamflow.postgres.tables import (
    ORIGIN_COLUMNS,
    SHARED_COLUMNS,
    SHARED_DESCRIPTIONS,
    Column,
    event_columns,
)
from streamflow.postgres.windows.tables import total_columns, window_tables, windows_in_words
from streamflow.settings import Settings
from streamflow.stream import Stream

_ADDED: Final = {
    **dict.fromkeys(ORIGIN_COLUMNS, "Where the event first entered Kafka."),
    "appended_at": "When the broker appended the record.",
    "loaded_at": "When the row was loaded.",
}


def sources(settings: Settings, streams: Sequence[Stream], schema: str) -> str:
    """The file of sources: event tables, totals of windows and the shared tables."""
    tables = [table for stream in streams for table in (_events(stream), *_windows(stream))]
    tables += [
        _table(
            name,
            SHARED_DESCRIPTIONS[name],
            [Column(column, kind, nullable=True) for column, kind in columns.items()],
        )
        for name, columns in SHARED_COLUMNS.items()
    ]
    source = {
        "name": "streamflow",
        "description": "Loaded by StreamFlow, each event exactly once.",
        "database": str(conninfo_to_dict(settings.database).get("dbname", "streamflow")),
        "schema": schema,
        "tables": tables,
    }
    document = {"version": 2, "sources": [source]}
    text: str = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=100)
    return text


def _events(stream: Stream) -> dict[str, Any]:
    about = {
        name: field.description
        for model in stream.decoder.models
        for name, field in model.model_fields.items()
        if field.description
    }
    found = _table(
        stream.event_table,
        f"Events of the stream {stream.name}.",
        event_columns(stream),
        about | _ADDED,
    )
    # For `dbt source freshness`, which also needs limits: those are the project's own.
    return found | {"config": {"loaded_at_field": "loaded_at"}}


def _windows(stream: Stream) -> list[dict[str, Any]]:
    return [
        _table(
            table.view,
            f"Totals of windows of the stream {stream.name}: {windows_in_words(table.spec)}.",
            total_columns(table),
        )
        for table in window_tables(stream)
    ]


def _table(
    name: str, about: str, columns: Iterable[Column], notes: dict[str, str] | None = None
) -> dict[str, Any]:
    return {
        "name": name,
        "description": about,
        "columns": [_column(column, (notes or {}).get(column.name)) for column in columns],
    }


def _column(column: Column, about: str | None) -> dict[str, Any]:
    found: dict[str, Any] = {"name": column.name, "data_type": column.type}
    if about:
        found["description"] = about
    if not column.nullable:
        found["data_tests"] = ["not_null"]
    return found
