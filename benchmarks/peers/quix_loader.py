"""Quix Streams: its PostgreSQL sink, which inserts with ON CONFLICT DO NOTHING: once, after a crash too."""

from typing import Any

import psycopg
from login_events import DATABASE, TABLE, TOPIC, read
from psycopg.conninfo import conninfo_to_dict
from quix_application import application
from quixstreams import message_context
from quixstreams.sinks.community.postgresql import PostgreSQLSink


def row(value: bytes) -> dict[str, Any] | None:
    try:
        event = read(value)
    except ValueError:
        return None
    origin = message_context()
    return event.model_dump() | {
        "origin_topic": origin.topic,
        "origin_partition": origin.partition,
        "origin_offset": origin.offset,
    }


with psycopg.connect(DATABASE) as connection:
    [schema] = connection.execute("SELECT current_schema()").fetchone() or []
server = conninfo_to_dict(DATABASE)
sink = PostgreSQLSink(
    host=server["host"],
    port=int(server["port"]),
    dbname=server["dbname"],
    user=server["user"],
    password=server.get("password", ""),
    table_name=TABLE,
    schema_name=schema,
    schema_auto_update=False,
    include_metadata=False,
    on_conflict_do_nothing=True,
)
app = application(exactly_once=False, use_changelog_topics=False)
events = app.dataframe(app.topic(TOPIC, value_deserializer="bytes", key_deserializer="bytes"))
events.apply(row).filter(lambda found: found is not None).sink(sink)
app.run()
