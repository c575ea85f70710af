"""Declarations of upsert streams, and which row a tombstone deletes."""

from dataclasses import replace
from datetime import date
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any
from uuid import UUID

import orjson
import pytest
from pydantic import Field, create_model

from loads import FakeRecord
from streamflow import Event, Hashed, Stream, Timestamp, Tombstone
from streamflow.declarations import problems
from streamflow.errors import ErrorCode
from streamflow.postgres.rows.events import EventRows
from streamflow.postgres.tables import event_columns, event_table
from streamflow.records import Origin, Rejection
from streamflow.tombstones import Deletion


class Colour(Enum):
    RED = "red"


class Rank(Enum):
    ONE = 1


class Customer(Event):
    id: Annotated[int, Field(alias="customerId")]
    name: str
    email: Hashed | None = None
    note: str | None = None
    score: float = 0.0
    timestamp: Timestamp


CUSTOMERS = Stream(
    name="customers", contract=Customer, table="customers", key="id", mode="upsert",
    primary_key=("id",),
)  # fmt: skip


def stream_of(annotation: Any, **changes: Any) -> Stream:
    contract = create_model(
        "Keyed", __base__=Event, id=(annotation, ...), timestamp=(Timestamp, ...)
    )
    return replace(CUSTOMERS, contract=contract, **changes)


def tombstone(stream: Stream, key: bytes | None) -> Any:
    return stream.read(FakeRecord(0, None, key=key))


def test_it_is_sound() -> None:
    assert problems(CUSTOMERS) == []
    assert problems(replace(CUSTOMERS, key=lambda each: str(each.id))) == []


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"mode": "merge"}, 'mode must be "append" or "upsert", not the text'),
        ({"mode": "append"}, "primary_key is for upsert streams"),
        ({"primary_key": ()}, "an upsert stream needs the fields of its primary key"),
        ({"primary_key": ("id", "id")}, "each once"),
        ({"primary_key": "id"}, 'must be a tuple of names of fields, as in primary_key=("id",)'),
        (
            {"primary_key": ("idd",), "key": str},
            "primary_key names the field idd, which Customer does",
        ),
        (
            {"primary_key": ("note",), "key": "note"},
            "Customer.note is in the primary key, so it must not",
        ),
        ({"primary_key": ("score",), "key": str}, "so it must not be optional"),
        ({"primary_key": ("timestamp",), "key": str}, "so it must be a text, a whole number"),
        (
            {"key": "name"},
            "key is name, which is no field of the primary key: all changes of a row",
        ),
        ({"table": "t" * 45}, "is 53 characters long, and there is room for 50"),
    ],
)
def test_what_cannot_be_an_upsert_stream(changes: dict[str, Any], says: str) -> None:
    assert any(says in each for each in problems(replace(CUSTOMERS, **changes))), problems(
        replace(CUSTOMERS, **changes)
    )


def test_a_key_has_a_type_of_which_equal_values_have_one_text() -> None:
    for annotation in (float, list[str], bytes, Any):
        assert any(
            "must be a text, a whole number" in each for each in problems(stream_of(annotation))
        )
    assert any("they identify no row" in each for each in problems(stream_of(Hashed)))


def test_its_tables_are_nobody_else_s() -> None:
    plain = replace(CUSTOMERS, name="others", mode="append", primary_key=())
    for table in ("customers", "customers_changes", "customers_state", "customers_state_pkey"):
        [problem] = problems(replace(plain, table=table), [CUSTOMERS])
        assert table in problem
    deleted = create_model("Deleted", __base__=Customer, deleted=(bool, ...))
    assert any("the field name deleted is taken" in each for each in problems(
        replace(CUSTOMERS, contract=deleted)
    ))  # fmt: skip
    assert problems(replace(plain, contract=deleted, table="more")) == []


@pytest.mark.parametrize(
    ("annotation", "key", "value"),
    [
        (int, b"7", 7),
        (str, b'caf\xc3\xa9 "x"', 'caf\u00e9 "x"'),
        (bool, b"true", True),
        (Colour, b"red", Colour.RED),
        (Rank, b"1", Rank.ONE),
        (Decimal, b"12.5", Decimal("12.5")),
        (UUID, b"12345678-1234-1234-1234-123456789012", UUID("12345678123412341234123456789012")),
        (date, b"2026-03-01", date(2026, 3, 1)),
    ],
)
def test_the_key_of_a_record_is_the_text_of_the_field(
    annotation: Any, key: bytes, value: Any
) -> None:
    stream = stream_of(annotation)
    event = stream.decoder.models[0].model_construct(id=value)
    assert stream.key_of(event) == key
    assert tombstone(stream, key) == Deletion((value,))


@pytest.mark.parametrize(
    ("key", "code", "says"),
    [
        (
            None,
            ErrorCode.SCHEMA_VIOLATION,
            "the key of a tombstone: missing, so no row can be deleted",
        ),
        (b"", ErrorCode.SCHEMA_VIOLATION, "missing"),
        (b"seven", ErrorCode.SCHEMA_VIOLATION, "the key of a tombstone: id"),
        (b"\xff", ErrorCode.INVALID_UTF8, "the key of a tombstone: not UTF-8 from byte 0 on"),
        (b"9" * 30, ErrorCode.UNSTORABLE_VALUE, "the key of a tombstone: "),
    ],
)
def test_a_key_that_is_none(key: bytes | None, code: ErrorCode, says: str) -> None:
    found = tombstone(stream_of(int), key)
    assert isinstance(found, Rejection)
    assert found.code is code
    assert says in found.message


def test_a_clear_text_key_is_refused() -> None:
    found = tombstone(stream_of(str), b"ann@example.com")
    assert isinstance(found, Rejection)
    assert found.code is ErrorCode.CLEAR_TEXT_PII


def test_several_fields_are_a_json_object() -> None:
    pair = replace(CUSTOMERS, primary_key=("id", "name"))
    assert tombstone(pair, b'{"name":"n","customerId":7,"more":"ann@example.com"}') == Deletion(
        (7, "n")
    )
    for key, says in (
        (b'{"customerId":7}', "the key of a tombstone has no name"),
        (b"7", "not a JSON object with customerId, name"),
        (b"{", "not JSON"),
    ):
        found = tombstone(pair, key)
        assert isinstance(found, Rejection)
        assert says in found.message


def test_what_the_format_says_holds() -> None:
    other = replace(CUSTOMERS, decode=lambda _record: Tombstone(b'{"customerId":8,"name":null}'))
    assert tombstone(other, b"7") == Deletion((8,))
    own = replace(CUSTOMERS, decode=lambda _record: Tombstone())
    assert tombstone(own, b"7") == Deletion((7,))


def test_in_an_append_stream_it_is_an_empty_value() -> None:
    found = tombstone(replace(CUSTOMERS, mode="append", primary_key=()), b"7")
    assert isinstance(found, Rejection)
    assert found.code is ErrorCode.EMPTY_VALUE
    assert isinstance(CUSTOMERS.read(FakeRecord(0, b"")), Rejection)


def test_a_tombstone_is_a_line_like_those_of_events() -> None:
    rows = EventRows(CUSTOMERS)
    table = event_table(CUSTOMERS)
    assert table.name == "customers_changes"
    event = CUSTOMERS.decoder.decode(
        orjson.dumps({"customerId": 7, "name": "n", "timestamp": "2026-03-01T12:00:00.000Z"})
    )
    assert isinstance(event, Customer)
    lines = [
        rows.line(event, Origin("customers", 0, 5), (2, 1_000)),
        rows.deletion_line(Deletion((7,)), Origin("customers", 0, 6), (2, 1_000)),
        rows.deletion_line(Deletion((7,)), Origin("customers", 0, 6), (0, -1)),
    ]
    values = [
        dict(zip(table.columns, line.decode().rstrip("\n").split("\t"), strict=True))
        for line in lines
    ]
    assert [row["deleted"] for row in values] == ["false", "true", "true"]
    assert [row["id"] for row in values] == ["7", "7", "7"]
    assert [row["name"] for row in values] == ["n", r"\N", r"\N"]
    assert [row["timestamp"] for row in values[1:]] == [
        "1970-01-01 00:00:01+00:00", "1970-01-01 00:00:00+00:00",
    ]  # fmt: skip
    nullable = {column.name: column.nullable for column in event_columns(CUSTOMERS)}
    assert {name for name in ("id", "timestamp", "deleted", "name") if nullable[name]} == {"name"}
