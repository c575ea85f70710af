"""Any contract, into PostgreSQL and back (G15): what is read equals what was sent, and PostgreSQL counts it
as the windows do."""

import json
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import dict_row
from pydantic import AfterValidator, PlainSerializer

from drawn import contracts
from services import DatabaseService
from streamflow import Event, Stream, Timestamp
from streamflow.errors import ConfigurationError
from streamflow.postgres.connections import Connection
from streamflow.postgres.counted_by import kind_sql
from streamflow.postgres.creating import create_events
from streamflow.postgres.rows.events import EventRows
from streamflow.postgres.rows.read_back import event_of
from streamflow.postgres.sink.copy import copy
from streamflow.postgres.tables import event_columns
from streamflow.postgres.trial import problems_with_rows
from streamflow.privacy import Hasher
from streamflow.records import Origin, Rejection
from streamflow.samples.factory import SampleEvent
from streamflow.settings import Settings
from streamflow.trial import samples_of
from streamflow_stack.database import SUPERUSER
from upserts import CUSTOMERS

EXAMPLES = int(os.environ.get("EXAMPLES", "25"))


@settings(
    max_examples=EXAMPLES, deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@given(drawn=contracts())
def test_an_event_comes_back_as_it_was_sent(
    drawn: tuple[Stream, list[dict[str, Any]]], connection: Connection
) -> None:
    stream, documents = drawn
    read = [stream.decoder.decode(json.dumps(document).encode()) for document in documents]
    events = [event for event in read if not isinstance(event, Rejection)]
    # Sent by the producer, and read again.
    sent = [stream.decoder.decode(stream.decoder.encode(event)) for event in events]
    assert sent == events
    rows = EventRows(stream)
    lines = [
        rows.line(event, Origin("drawn", 0, offset), (2, 0)) for offset, event in enumerate(events)
    ]
    with (
        connection.transaction(force_rollback=True),
        connection.cursor(row_factory=dict_row) as cursor,
    ):
        connection.execute(create_events(stream, event_columns(stream)))
        copy(connection, sql.Identifier("drawn"), rows.table.columns, lines)
        query = sql.SQL("SELECT *, {kind} AS counted_by FROM drawn ORDER BY origin_offset")
        stored = cursor.execute(query.format(kind=kind_sql(stream))).fetchall()
    assert [event_of(stream, row) for row in stored] == events
    assert [row["counted_by"] for row in stored] == list(map(stream.kind_of, events))


class Holder(Event):
    moment: Timestamp
    text: str


def holder(contract: type[Event] = Holder) -> Stream:
    return Stream(name="held", contract=contract, table="held", key="text", event_time="moment")


def relations(connection: Connection) -> list[tuple[str, str]]:
    """Everything that a check could leave behind."""
    query = "SELECT relnamespace::regnamespace::text, relname FROM pg_class ORDER BY 1, 2"
    connection.execute("DISCARD TEMP")
    return [
        (schema, name)
        for schema, name in connection.execute(query).fetchall()
        if not schema.startswith("pg_toast")
    ]


def test_a_check_leaves_nothing_behind(database: Settings, connection: Connection) -> None:
    before = relations(connection)
    stream = holder()
    samples = samples_of(stream, Hasher())
    with ThreadPoolExecutor() as pool:
        checks = [pool.submit(problems_with_rows, database, stream, samples) for _ in range(3)]
        assert [each.result() for each in checks] == [[], [], []]
    assert problems_with_rows(database, CUSTOMERS, samples_of(CUSTOMERS, Hasher())) == []

    # Ctrl-C in the middle.
    def interrupt() -> Iterator[SampleEvent]:
        yield samples[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        problems_with_rows(database, stream, interrupt())  # type: ignore[arg-type]
    assert relations(connection) == before


def with_nul(text: str) -> str:
    return f"{text}\0" if len(text) > 100 else text


class Unkept(Holder):
    """What no decoder sees, but PostgreSQL does, and the reverse."""

    held: Annotated[str, AfterValidator(with_nul)]
    loose: Annotated[Any, PlainSerializer(lambda value: value if value != -1.5 else "lost")]


def test_what_postgresql_refuses_or_changes_is_named(
    database: Settings, connection: Connection
) -> None:
    before = relations(connection)
    stream = holder(Unkept)
    problems = problems_with_rows(database, stream, samples_of(stream, Hasher()))
    texts = {problem.field: problem.text for problem in problems}
    assert texts.keys() == {"held", "loose"}
    assert (
        "PostgreSQL refuses a valid Unkept with `held` at a limit of its type (22021"
        in texts["held"]
    )
    assert texts["loose"].startswith("`loose`: -1.5 comes back as 'lost' from PostgreSQL: ")
    assert relations(connection) == before


def test_a_role_that_may_not_create_anything(
    database_server: DatabaseService, database: Settings
) -> None:
    name = str(conninfo_to_dict(database.database)["dbname"])
    role = f"reader_{name[-6:]}"
    stream = holder()
    samples = samples_of(stream, Hasher())
    theirs = Settings(DATABASE_URL=re.sub("//[^@]+@", f"//{role}:pass@", database.database))
    administrator = database_server.database.url(name, SUPERUSER)
    with psycopg.connect(administrator, autocommit=True) as connection:
        connection.execute(
            f"CREATE ROLE {role} LOGIN PASSWORD 'pass';"
            f'REVOKE TEMPORARY ON DATABASE "{name}" FROM PUBLIC'
        )
        try:
            with pytest.raises(ConfigurationError, match=rf"GRANT TEMPORARY ON .* TO {role}, or"):
                problems_with_rows(theirs, stream, samples)
            # No right on any schema or table is needed beside that.
            connection.execute(f'GRANT TEMPORARY ON DATABASE "{name}" TO {role}')
            assert problems_with_rows(theirs, stream, samples) == []
        finally:
            connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
