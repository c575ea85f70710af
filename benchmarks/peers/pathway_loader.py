"""Pathway: into PostgreSQL as a stream of changes, whose table has two more columns."""

import pathway as pw
import psycopg
from login_events import DATABASE, TABLE
from pathway_source import TIME, valid_events
from psycopg.conninfo import conninfo_to_dict


class Event(pw.Schema):
    number: int
    type: str
    user: str
    user_email: str | None = pw.column_definition(default_value=None)
    timestamp: str


with psycopg.connect(DATABASE, autocommit=True) as connection:
    connection.execute(f"ALTER TABLE {TABLE} ADD time bigint NOT NULL, ADD diff smallint NOT NULL")
    [schema] = connection.execute("SELECT current_schema()").fetchone() or []

events = valid_events(Event, json_field_paths={"number": "/id"}, with_metadata=True)
rows = events.select(
    events.type,
    events.user,
    events.user_email,
    timestamp=events.timestamp.dt.strptime(TIME).dt.to_utc("UTC"),
    origin_topic=pw.unwrap(events._metadata["topic"].as_str()),
    origin_partition=pw.unwrap(events._metadata["partition"].as_int()),
    origin_offset=pw.unwrap(events._metadata["offset"].as_int()),
    number=events.number,
).rename_by_dict({"number": "id"})
server = {
    key: value
    for key, value in conninfo_to_dict(DATABASE).items()
    if key in {"host", "port", "dbname", "user", "password"}
}
pw.io.postgres.write(rows, server, TABLE, schema_name=schema)
pw.run(monitoring_level=pw.MonitoringLevel.NONE)
