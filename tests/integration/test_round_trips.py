"""Any contract, into PostgreSQL and back (G15): what is read equals what was sent, and PostgreSQL counts it
as the windows do."""

import json
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import dict_row
from pydantic import AfterValidator, AwareDatetime, BaseModel, Field, PlainSerializer, create_model

from services import DatabaseService
from streamflow import EpochMillis, Event, Hashed, Stream, Timestamp, TumblingWindow
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


class Colour(Enum):
    RED = "red"
    ODD = "a\\b'\"\t"


class Size(BaseModel):
    width: Decimal
    unit: str | None
    seen: datetime | None = None


TEXT = st.text(
    st.characters(exclude_characters="\0@", exclude_categories=["Cs"]), max_size=300
).filter(lambda text: "%40" not in text and "\\" not in text[:0])
BIGINT = st.integers(-(2**63), 2**63 - 1)
# jsonb holds numbers as decimals: from there on a double without a fraction reads as a whole number.
JSON = st.recursive(
    st.none() | st.booleans() | BIGINT | st.floats(-(10**15), 10**15) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
DAY = st.dates(date(1, 1, 2), date(9999, 12, 29))
TIMES = st.builds(
    lambda day, at, zone: f"{day.isoformat()}T{at.isoformat()}{zone}",
    DAY.filter(lambda day: date(1, 1, 4) < day < date(9999, 12, 27)),
    st.times(),
    st.sampled_from(("Z", "+05:30", "-11:00")),
)
# Written with milliseconds.
STAMPS = st.builds(
    lambda moment, milliseconds: f"{moment:%Y-%m-%dT%H:%M:%S}.{milliseconds:03d}Z",
    st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1)),  # noqa: DTZ001 (made one of UTC)
    st.integers(0, 999),
)
# Each annotation with values, as JSON.
FIELDS: dict[str, tuple[Any, st.SearchStrategy[Any]]] = {
    "text": (str, TEXT),
    "short": (Annotated[str, Field(max_length=3)], st.text(st.sampled_from("a\\\t\n'\"é😀"), max_size=3)),
    "number": (int, BIGINT),
    "wide": (Annotated[int, Field(ge=-(2**200), le=2**200)], st.integers(-(2**200), 2**200)),
    "ratio": (float, st.floats(allow_nan=False, allow_infinity=False)),
    "flag": (bool, st.booleans()),
    "price": (Annotated[Decimal, Field(max_digits=12, decimal_places=2)],
              st.decimals(-(10**9), 10**9, places=2).map(str)),
    "factor": (Decimal, st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**30),
                                    max_value=10**30).map(str)),
    "ref": (UUID, st.uuids().map(str)),
    "day": (date, DAY.map(date.isoformat)),
    "at": (time, st.times().map(time.isoformat)),
    "span": (timedelta, st.timedeltas(timedelta(days=-9000), timedelta(days=9000)).map(
        lambda span: span.total_seconds())),
    "colour": (Colour, st.sampled_from([each.value for each in Colour])),
    "kind": (Literal["a", "b"], st.sampled_from("ab")),
    "raw": (bytes, TEXT),
    "due": (AwareDatetime, TIMES),
    "stamp": (Timestamp, STAMPS),
    "millis": (EpochMillis, st.integers(-(10**13), 10**14)),
    "anything": (Any, JSON),
    "mixed": (int | str | list[int], BIGINT | TEXT | st.lists(BIGINT, max_size=3)),
    "tags": (list[str], st.lists(TEXT, max_size=3)),
    "counts": (dict[str, int | None], st.dictionaries(TEXT, BIGINT | st.none(), max_size=3)),
    "size": (Size, st.fixed_dictionaries(
        {"width": st.decimals(-(10**9), 10**9, places=3).map(str), "unit": TEXT | st.none()},
        optional={"seen": TIMES})),
    "hashed": (Hashed, st.text(st.sampled_from("0123456789abcdef"), min_size=64, max_size=64)),
}  # fmt: skip


@st.composite
def contracts(draw: st.DrawFn) -> tuple[Stream, list[dict[str, Any]]]:
    """A stream with some of the fields, by other names in JSON or not, optional, nullable or not; and
    documents."""
    names = draw(st.lists(st.sampled_from(sorted(FIELDS)), min_size=1, max_size=6, unique=True))
    fields: dict[str, Any] = {"moment": (Timestamp, ...)}
    values: dict[str, st.SearchStrategy[Any]] = {"moment": STAMPS}
    optional: dict[str, st.SearchStrategy[Any]] = {}
    for name in names:
        annotation, strategy = FIELDS[name]
        alias = draw(st.sampled_from((None, f"{name}Alias", "é x")))
        alias = alias if alias not in (*values, *optional) else None
        shape = draw(st.sampled_from(("required", "required", "nullable", "optional")))
        if shape != "required" and name != "anything":
            annotation, strategy = annotation | None, strategy | st.none()
        field = Field(... if shape != "optional" else None, alias=alias)
        fields[name] = (annotation, field)
        (optional if shape == "optional" else values)[alias or name] = strategy
    contract = create_model("Drawn", __base__=Event, **fields)
    countable = [name for name in names if name in COUNTABLE]
    by = draw(st.sampled_from([None, *countable]))
    stream = Stream(
        name="drawn", contract=contract, table="drawn", key=lambda _: "k", event_time="moment",
        unknown_fields=draw(st.sampled_from(("forbid", "ignore", "keep"))),
        windows=TumblingWindow("10s", by=by),
    )  # fmt: skip
    document = st.fixed_dictionaries(values, optional=optional)
    if stream.unknown_fields != "forbid":
        document = st.builds(
            lambda known, more: {f"x{name}": value for name, value in more.items()} | known,
            document,
            st.dictionaries(st.sampled_from("abc"), JSON, max_size=2),
        )
    return stream, draw(st.lists(document, min_size=1, max_size=5))


EXAMPLES = int(os.environ.get("EXAMPLES", "25"))
COUNTABLE = ("text", "number", "wide", "flag", "price", "factor", "ref", "day", "colour", "kind")


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
