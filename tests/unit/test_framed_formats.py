"""Avro, Protobuf and JSON with Confluent's framing: any bytes, and what schemas make of them. The registry
itself is asked in `test_schema_registry.py`."""

import base64
import io
import json
import re
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from uuid import UUID

import fastavro
import pytest
from google.protobuf import descriptor_pb2
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Base64Bytes, BaseModel, ConfigDict

import streamflow
from faults import free_ports
from kept import kept_faults
from loads import FakeRecord
from streamflow import (
    IGNORED,
    Avro,
    ConfigurationError,
    Debezium,
    JsonSchema,
    Protobuf,
    Rejection,
    SchemaRegistry,
    Tombstone,
    Unavailable,
    extras,
)
from streamflow.errors import ErrorCode
from streamflow.formats.framing import Framed
from streamflow.formats.schema_registry import RegisteredSchema

NUMBER = 7
FRAME = struct.pack(">bI", 0, NUMBER)
GUID = UUID("0190a3f4-5d3c-7b2e-8f00-4f6f1f2a3b4c")
# Where nothing answers: a test that asks the network fails.
NOBODY = SchemaRegistry("http://127.0.0.1:9")


def knowing(made: Framed[Any], kind: str, text: str) -> Any:
    """The format, with a schema that it has fetched before."""
    found = made._compile(RegisteredSchema(kind, text, ()))
    assert not isinstance(found, Rejection), found
    made._compiled[NUMBER] = made._compiled[GUID] = found
    return made


def avro(schema: Any, **options: Any) -> Avro:
    made: Avro = knowing(Avro(registry=NOBODY, **options), "AVRO", json.dumps(schema))
    return made


@cache
def avro_by(text: str) -> Avro:
    """For many examples."""
    return avro(json.loads(text))


@cache
def written_by(text: str) -> Any:
    return fastavro.parse_schema(json.loads(text))


def encoded(schema: Any, value: Any) -> bytes:
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, written_by(json.dumps(schema)), value)
    return buffer.getvalue()


def decode(made: Any, data: bytes, **more: Any) -> Any:
    found = made(FakeRecord(0, FRAME + data, **more))
    return json.loads(found, parse_float=Decimal) if isinstance(found, bytes) else found


def code_of(found: object) -> ErrorCode:
    assert isinstance(found, Rejection), found
    return found.code


ROW = {
    "type": "record",
    "name": "Row",
    "namespace": "shop",
    "fields": [
        {"name": "id", "type": "long"},
        {
            "name": "price",
            "type": {"type": "bytes", "logicalType": "decimal", "precision": 10, "scale": 2},
        },
        {
            "name": "fixed",
            "type": {
                "type": "fixed",
                "name": "Eight",
                "size": 8,
                "logicalType": "decimal",
                "precision": 10,
                "scale": 3,
            },
        },
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "millis", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "day", "type": ["null", {"type": "int", "logicalType": "date"}]},
        {"name": "ref", "type": {"type": "string", "logicalType": "uuid"}},
        {"name": "raw", "type": "bytes"},
        {"name": "weight", "type": ["null", "double"]},
        {"name": "colour", "type": {"type": "enum", "name": "Colour", "symbols": ["RED", "BLUE"]}},
        {"name": "tags", "type": {"type": "map", "values": {"type": "array", "items": "float"}}},
    ],
}


class Row(BaseModel):
    """What a contract could declare for it."""

    model_config = ConfigDict(strict=True, extra="forbid")

    id: int
    price: Decimal
    fixed: Decimal
    at: datetime
    millis: datetime
    day: date | None
    ref: UUID
    raw: Base64Bytes
    weight: float | None
    colour: str
    tags: dict[str, list[float]]


MOMENTS = st.datetimes(timezones=st.just(UTC))
ROWS = st.fixed_dictionaries(
    {
        "id": st.integers(-(2**63), 2**63 - 1),
        "price": st.decimals(-99_999_999, 99_999_999, places=2),
        "fixed": st.decimals(-9_999_999, 9_999_999, places=3),
        "at": MOMENTS,
        "millis": MOMENTS.map(lambda at: at.replace(microsecond=at.microsecond // 1000 * 1000)),
        "day": st.none() | st.dates(),
        "ref": st.uuids(),
        "raw": st.binary(max_size=8),
        "weight": st.none() | st.floats(allow_nan=False, allow_infinity=False),
        "colour": st.sampled_from(["RED", "BLUE"]),
        "tags": st.dictionaries(
            st.text(max_size=4),
            st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False)),
        ),
    }
)

NODE = {
    "type": "record",
    "name": "Node",
    "fields": [{"name": "weight", "type": "double"}, {"name": "next", "type": ["null", "Node"]}],
}


class TestAvro:
    @given(ROWS)
    def test_round_trip_into_a_contract(self, row: dict[str, Any]) -> None:
        found = avro_by(json.dumps(ROW))(FakeRecord(0, FRAME + encoded(ROW, row)))
        assert isinstance(found, bytes), found
        assert vars(Row.model_validate_json(found)) == row

    @given(st.binary(max_size=200))
    def test_any_bytes(self, data: bytes) -> None:
        for schema in (ROW, NODE, ["null", "string", NODE], "string"):
            found = avro_by(json.dumps(schema))(FakeRecord(0, FRAME + data))
            assert isinstance(found, bytes | Rejection)

    @pytest.mark.parametrize(
        ("schema", "data", "code"),
        [
            ("string", b"\x08ab", ErrorCode.INVALID_FORMAT),
            ("string", b"\x02ab", ErrorCode.INVALID_FORMAT),
            ("string", b"\x02\xff", ErrorCode.INVALID_UTF8),
            ("bytes", b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01", ErrorCode.INVALID_FORMAT),
            ("double", struct.pack("<d", float("nan")), ErrorCode.UNSTORABLE_VALUE),
            (["null", "float"], b"\x02" + struct.pack("<f", -1e999), ErrorCode.UNSTORABLE_VALUE),
            (
                {"type": "int", "logicalType": "date"},
                b"\xfe" * 4 + b"\x0f",
                ErrorCode.UNSTORABLE_VALUE,
            ),
            (
                {"type": "long", "logicalType": "timestamp-millis"},
                b"\xfe" * 8 + b"\x01",
                ErrorCode.UNSTORABLE_VALUE,
            ),
            ({"type": "string", "logicalType": "uuid"}, b"\x02a", ErrorCode.UNSTORABLE_VALUE),
            # More digits than the schema allows.
            (
                {"type": "bytes", "logicalType": "decimal", "precision": 2, "scale": 0},
                b"\x04\x7f\xff",
                ErrorCode.UNSTORABLE_VALUE,
            ),
        ],
    )
    def test_what_is_broken(self, schema: Any, data: bytes, code: ErrorCode) -> None:
        assert code_of(decode(avro(schema), data)) is code

    def test_a_megabyte_of_digits_takes_no_time(self) -> None:
        schema = {"type": "bytes", "logicalType": "decimal", "precision": 10**9, "scale": 0}
        began = time.monotonic()
        found = decode(avro(schema), encoded("bytes", b"\x7f" * 1_000_000))
        assert code_of(found) is ErrorCode.UNSTORABLE_VALUE
        assert time.monotonic() - began < 1

    def test_many_of_the_smallest_items(self) -> None:
        items = {"type": "record", "name": "One", "fields": [{"name": "a", "type": "boolean"}]}
        data = encoded({"type": "array", "items": items}, [{"a": True}] * 100_000)
        found = avro({"type": "array", "items": items})(FakeRecord(0, FRAME + data))
        assert isinstance(found, bytes)  # and the contract says that it is too large
        assert len(found) == 1_100_001

    def test_a_scale_that_no_number_has(self) -> None:
        schema = {"type": "bytes", "logicalType": "decimal", "precision": 10**6, "scale": 10**6}
        assert code_of(decode(avro(schema), b"\x02\x01")) is ErrorCode.UNSTORABLE_VALUE

    def test_a_list_of_a_hundred_thousand_nodes_ends_no_process(self) -> None:
        node = bytes(8) + b"\x02"
        found = decode(avro(NODE), node * 100_000 + bytes(8) + b"\0")
        assert code_of(found) is ErrorCode.INVALID_FORMAT
        nested = {"weight": 1.0, "next": {"weight": 2.0, "next": None}}
        assert decode(avro(NODE), encoded(NODE, nested)) == nested

    def test_items_without_bytes_are_not_read(self) -> None:
        empty = {"type": "record", "name": "Empty", "fields": []}
        for items in ("null", empty, {"type": "fixed", "name": "None", "size": 0}):
            schema = json.dumps({"type": "array", "items": items})
            found = Avro(registry=NOBODY)._compile(RegisteredSchema("AVRO", schema, ()))
            assert code_of(found) is ErrorCode.SCHEMA_VIOLATION

    def test_a_reader_schema(self) -> None:
        reader = {
            "type": "record",
            "name": "Row",
            "namespace": "shop",
            "fields": [
                {"name": "id", "type": "long"},
                {"name": "note", "type": "string", "default": "none"},
            ],
        }
        writer = {**reader, "fields": [{"name": "id", "type": "int"}, {"name": "x", "type": "int"}]}
        for given_schema in (reader, json.dumps(reader)):
            made = avro(writer, reader_schema=given_schema)
            assert decode(made, encoded(writer, {"id": 1, "x": 2})) == {"id": 1, "note": "none"}
        found = decode(avro("string", reader_schema=reader), b"\x02a")
        assert code_of(found) is ErrorCode.SCHEMA_VIOLATION
        [fault] = kept_faults(Avro(reader_schema="{"))
        assert "reader_schema is no Avro schema" in fault

    def test_a_schema_with_references(self) -> None:
        item = {
            "type": "record",
            "name": "shop.Item",
            "fields": [{"name": "sku", "type": "string"}],
        }
        order = {
            "type": "record",
            "name": "shop.Order",
            "fields": [{"name": "items", "type": {"type": "array", "items": "shop.Item"}}],
        }
        made = Avro(registry=NOBODY)
        schema = RegisteredSchema("AVRO", json.dumps(order), (("item", json.dumps(item)),))
        made._compiled[NUMBER] = made._compile(schema)
        assert decode(made, b"\x02\x02a\x00") == {"items": [{"sku": "a"}]}


CHANGE = {
    "type": "record",
    "name": "Envelope",
    "fields": [
        {
            "name": "before",
            "type": [
                "null",
                {
                    "type": "record",
                    "name": "Value",
                    "fields": [
                        {"name": "id", "type": "int"},
                        {
                            "name": "at",
                            "type": {
                                "type": "long",
                                "connect.name": "io.debezium.time.MicroTimestamp",
                            },
                        },
                        {
                            "name": "any",
                            "type": {
                                "type": "record",
                                "name": "VariableScaleDecimal",
                                "connect.name": "io.debezium.data.VariableScaleDecimal",
                                "fields": [
                                    {"name": "scale", "type": "int"},
                                    {"name": "value", "type": "bytes"},
                                ],
                            },
                        },
                    ],
                },
            ],
        },
        {"name": "after", "type": ["null", "Value"]},
        {"name": "op", "type": "string"},
    ],
}


def test_debezium_within_avro() -> None:
    row = {"id": 1, "at": 1_767_225_600_000_000, "any": {"scale": 1, "value": b"\x7b"}}
    expected = {"id": 1, "at": "2026-01-01T00:00:00Z", "any": "12.3"}
    made = Debezium(format=avro(CHANGE))
    created = encoded(CHANGE, {"before": None, "after": row, "op": "c"})
    assert decode(made, created) == expected
    deleted = encoded(CHANGE, {"before": row, "after": None, "op": "d"})
    found = decode(made, deleted)
    assert isinstance(found, Tombstone)
    assert json.loads(found.key or b"") == expected
    assert made(FakeRecord(0, None)) is IGNORED


def proto_file() -> descriptor_pb2.FileDescriptorProto:
    """A file with messages within messages, as protoc describes it."""
    types = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="shop.proto", package="shop", syntax="proto3")
    file.dependency.extend(
        f"google/protobuf/{name}.proto" for name in ("duration", "struct", "timestamp", "wrappers")
    )
    file.enum_type.add(name="Colour").value.extend(
        [
            descriptor_pb2.EnumValueDescriptorProto(name="RED", number=0),
            descriptor_pb2.EnumValueDescriptorProto(name="BLUE", number=1),
        ]
    )
    file.message_type.add(name="Zero")
    order = file.message_type.add(name="Order")
    entry = order.nested_type.add(name="TagsEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=types.TYPE_STRING, label=types.LABEL_OPTIONAL)
    entry.field.add(name="value", number=2, type=types.TYPE_DOUBLE, label=types.LABEL_OPTIONAL)
    order.nested_type.add(name="Item").field.add(
        name="sku", number=1, type=types.TYPE_STRING, label=types.LABEL_OPTIONAL
    )
    order.oneof_decl.add(name="_note")
    fields: list[tuple[str, Any, str, bool]] = [
        ("id", types.TYPE_INT64, "", False),
        ("big", types.TYPE_UINT64, "", False),
        ("paid", types.TYPE_BOOL, "", False),
        ("raw", types.TYPE_BYTES, "", False),
        ("colour", types.TYPE_ENUM, ".shop.Colour", False),
        ("at", types.TYPE_MESSAGE, ".google.protobuf.Timestamp", False),
        ("took", types.TYPE_MESSAGE, ".google.protobuf.Duration", False),
        ("data", types.TYPE_MESSAGE, ".google.protobuf.Struct", False),
        ("maybe", types.TYPE_MESSAGE, ".google.protobuf.Int64Value", False),
        ("items", types.TYPE_MESSAGE, ".shop.Order.Item", True),
        ("tags", types.TYPE_MESSAGE, ".shop.Order.TagsEntry", True),
        ("weights", types.TYPE_DOUBLE, "", True),
        ("parent", types.TYPE_MESSAGE, ".shop.Order", False),
    ]
    for number, (name, kind, type_name, repeated) in enumerate(fields, start=1):
        label = types.LABEL_REPEATED if repeated else types.LABEL_OPTIONAL
        field = order.field.add(name=name, number=number, type=kind, label=label)
        if type_name:
            field.type_name = type_name
    order.field.add(
        name="note",
        number=20,
        type=types.TYPE_STRING,
        label=types.LABEL_OPTIONAL,
        oneof_index=0,
        proto3_optional=True,
    )
    return file


PROTO = base64.b64encode(proto_file().SerializeToString()).decode()
TEXT = """
syntax = "proto3";
package shop;
import "google/protobuf/timestamp.proto";
import "google/type/date.proto";
import "confluent/type/decimal.proto";
import "shop/item.proto";
message Zero {}
message Order {
  int64 id = 1;
  google.protobuf.Timestamp at = 2;
  google.type.Date day = 3;
  confluent.type.Decimal price = 4;
  repeated Item items = 5;
}
"""
# Two levels of indexes: the second message of the file; the Item within it.
ORDER, ITEM = b"\x02\x02", b"\x04\x02\x02"


@cache
def protobuf() -> Protobuf:
    made: Protobuf = knowing(Protobuf(registry=NOBODY), "PROTOBUF", PROTO)
    return made


@cache
def order_class() -> Callable[..., Message]:
    made = protobuf()
    found = made._compiled[NUMBER]
    assert not isinstance(found, Rejection)
    made_class = made._class_of(found, [1])
    assert made_class is not None
    return made_class


class TestProtobuf:
    @given(
        st.integers(-(2**63), 2**63 - 1),
        st.datetimes(timezones=st.just(UTC)),
        st.timedeltas(timedelta(days=-1000), timedelta(days=1000)),
        st.binary(max_size=4),
        st.none() | st.text(max_size=4),
    )
    def test_round_trip(
        self, number: int, at: datetime, took: timedelta, raw: bytes, note: str | None
    ) -> None:
        message: Any = order_class()(id=number, raw=raw, at=at, took=took, note=note)
        found = decode(protobuf(), ORDER + message.SerializeToString())

        class Read(BaseModel):
            model_config = ConfigDict(strict=True)
            id: int
            raw: Base64Bytes
            at: datetime
            took: timedelta
            note: str | None = None

        read = Read.model_validate_json(json.dumps(found, default=str))
        assert vars(read) == {"id": number, "raw": raw, "at": at, "took": took, "note": note}

    def test_all_kinds_of_fields(self) -> None:
        message: Any = order_class()(
            big=2**64 - 1,
            colour=1,
            data={"a": [1, None, {"b": True}]},
            maybe={"value": 5},
            items=[{"sku": "a"}, {}],
            tags={"x": 1.5},
            weights=[0.5, 2],
            parent={"colour": 7},
        )
        empty = {
            "id": 0,
            "big": 0,
            "paid": False,
            "raw": "",
            "colour": "RED",
            "items": [],
            "tags": {},
            "weights": [],
        }
        assert decode(protobuf(), ORDER + message.SerializeToString()) == empty | {
            "big": 2**64 - 1,
            "colour": "BLUE",
            "data": {"a": [1, None, {"b": True}]},
            "maybe": 5,
            "items": [{"sku": "a"}, {"sku": ""}],
            "tags": {"x": 1.5},
            "weights": [0.5, 2],
            "parent": empty | {"colour": 7},
        }

    def test_messages_by_their_indexes(self) -> None:
        assert decode(protobuf(), b"\0") == {}  # the first one
        assert decode(protobuf(), b"\x02\0") == {}
        assert decode(protobuf(), ITEM + b"\x0a\x01a") == {"sku": "a"}
        for wrong in (b"\x02\x06", b"\x02\x01", b"\x04\0\0"):
            assert code_of(decode(protobuf(), wrong)) is ErrorCode.SCHEMA_VIOLATION
        for cut in (b"", b"\x02", b"\x80", b"\x80" * 10, b"\xfe\x7f\0", b"\x01\0"):
            assert code_of(decode(protobuf(), cut)) is ErrorCode.INVALID_FORMAT

    def test_a_generated_class_needs_no_registry(self) -> None:
        message_class: Any = order_class()
        made = Protobuf(message_class)
        made.prepare()
        [fault] = kept_faults(Protobuf(message_class, framed_key=True))
        assert "framed_key" in fault
        found = decode(made, ORDER + message_class(id=5, note="x").SerializeToString())
        assert (found["id"], found["note"]) == (5, "x")

    def test_the_text_of_a_file_and_of_one_that_it_imports(self) -> None:
        item = 'syntax = "proto3"; package shop; message Item { string sku = 1; }'
        made = Protobuf(registry=NOBODY)
        found = made._compile(RegisteredSchema("PROTOBUF", TEXT, (("shop/item.proto", item),)))
        assert not isinstance(found, Rejection), found
        made._compiled[NUMBER] = found
        message_class: Any = made._class_of(found, [1])
        message = message_class(
            id=1,
            at=datetime(2026, 1, 1, tzinfo=UTC),
            day={"year": 2026, "month": 2, "day": 3},
            price={"value": b"\x04\xd2", "scale": 2},
            items=[{"sku": "a"}],
        )
        assert decode(made, ORDER + message.SerializeToString()) == {
            "id": 1,
            "at": "2026-01-01T00:00:00Z",
            "day": "2026-02-03",
            "price": "12.34",
            "items": [{"sku": "a"}],
        }
        for broken in ("message {", TEXT, "no text; at all"):
            refused = made._compile(RegisteredSchema("PROTOBUF", broken, ()))
            assert code_of(refused) is ErrorCode.SCHEMA_VIOLATION

    @pytest.mark.parametrize(
        ("data", "code"),
        [
            (b"\x08", ErrorCode.INVALID_FORMAT),
            (b"\x6a\x00" * 3, None),  # parents
            (b"\xa2\x01\x01\xff", ErrorCode.INVALID_FORMAT),  # a text that is not UTF-8
            (b"\x62\x08" + struct.pack("<d", float("inf")), ErrorCode.UNSTORABLE_VALUE),
            (b"\x32\x0a\x08" + b"\xff" * 8 + b"\x7f", ErrorCode.UNSTORABLE_VALUE),  # a time
        ],
    )
    def test_what_is_broken(self, data: bytes, code: ErrorCode | None) -> None:
        found = decode(protobuf(), ORDER + data)
        assert (found.code if isinstance(found, Rejection) else None) is code

    def test_deep_nesting(self) -> None:
        data = b""
        for _ in range(5_000):
            length, prefix = len(data), b"\x6a"
            while length > 127:
                prefix, length = prefix + bytes([length & 127 | 128]), length >> 7
            data = prefix + bytes([length]) + data
        assert code_of(decode(protobuf(), ORDER + data)) is ErrorCode.INVALID_FORMAT

    @given(st.binary(max_size=200))
    def test_any_bytes(self, data: bytes) -> None:
        for framed in (data, ORDER + data):
            found = protobuf()(FakeRecord(0, FRAME + framed))
            assert isinstance(found, bytes | Rejection)


SCHEMA = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "type": "object",
    "properties": {"id": {"type": "integer"}, "price": {"type": "number"}},
    "required": ["id"],
}


class TestJsonSchema:
    @staticmethod
    @cache
    def validating() -> JsonSchema:
        made: JsonSchema = knowing(
            JsonSchema(validate=True, registry=NOBODY), "JSON", json.dumps(SCHEMA)
        )
        return made

    def test_the_frame_is_taken_off(self) -> None:
        value = b'{"id": 1,  "price": 1.10}'
        assert JsonSchema()(FakeRecord(0, FRAME + value)) == value

    def test_the_registered_schema_if_asked_for(self) -> None:
        made = knowing(JsonSchema(validate=True, registry=NOBODY), "JSON", json.dumps(SCHEMA))
        assert decode(made, b'{"id": 1, "price": 12345678901234567890.1}')["price"] == Decimal(
            "12345678901234567890.1"
        )
        found = decode(made, b'{"id": "4711-secret"}')
        assert code_of(found) is ErrorCode.SCHEMA_VIOLATION
        assert found.message == "the registered schema does not allow it: properties/id/type"
        assert code_of(decode(made, b"{")) is ErrorCode.INVALID_JSON
        assert code_of(decode(made, b"[" * 100_000)) is ErrorCode.INVALID_JSON

    def test_a_reference_that_leads_nowhere(self) -> None:
        schema = json.dumps({"$ref": "https://example.com/nowhere.json"})
        made = knowing(JsonSchema(validate=True, registry=NOBODY), "JSON", schema)
        assert code_of(decode(made, b"{}")) is ErrorCode.SCHEMA_VIOLATION

    @given(st.binary(max_size=60))
    def test_any_bytes(self, data: bytes) -> None:
        made = self.validating()
        assert isinstance(made(FakeRecord(0, FRAME + data)), bytes | Rejection)


class TestFrames:
    @pytest.mark.parametrize("value", [b"", b"{}", b"\0", b"\0\0\0\0", b"\2" * 20, b"\1" * 16])
    def test_no_frame(self, value: bytes) -> None:
        code = ErrorCode.INVALID_FORMAT if value else ErrorCode.EMPTY_VALUE
        assert code_of(avro("string")(FakeRecord(0, value))) is code

    @given(st.binary(max_size=30), st.binary(max_size=30))
    def test_any_value_and_header(self, value: bytes, header: bytes) -> None:
        # Ids that no registry can have are not asked for; others need one, and there is none.
        made = avro("string")
        made._unknown = _Everything()  # type: ignore[assignment]
        found = made(FakeRecord(0, value, headers=[("__value_schema_id", header)]))
        assert isinstance(found, Rejection)

    def test_a_guid_in_a_header_or_before_the_data(self) -> None:
        made, prefix = avro("string"), b"\1" + GUID.bytes
        assert made(FakeRecord(0, prefix + b"\x02a")) == b'"a"'
        headers: Any = [("__value_schema_id", b"\xff"), ("__value_schema_id", prefix)]
        assert made(FakeRecord(0, b"\x02a", headers=headers)) == b'"a"'

    def test_indexes_in_a_header(self) -> None:
        headers: Any = [("__value_schema_id", b"\1" + GUID.bytes + ITEM)]
        assert protobuf()(FakeRecord(0, b"\x0a\x01a", headers=headers)) == b'{"sku":"a"}'

    def test_a_tombstone(self) -> None:
        assert avro("string")(FakeRecord(0, None)) == Tombstone()
        made = avro("string", framed_key=True)
        assert made(FakeRecord(0, None, key=FRAME + b"\x02a")) == Tombstone(b'"a"')
        assert code_of(made(FakeRecord(0, None, key=b"a"))) is ErrorCode.INVALID_FORMAT
        assert code_of(made(FakeRecord(0, None))) is ErrorCode.EMPTY_VALUE

    def test_larger_than_declared(self) -> None:
        assert code_of(decode(avro("bytes", max_bytes=10), b"\0" * 20)) is ErrorCode.TOO_LARGE

    def test_a_schema_of_another_kind_or_a_broken_one(self) -> None:
        for kind, text in (("JSON", "{}"), ("AVRO", "{"), ("AVRO", '{"type": "what"}')):
            found = Avro(registry=NOBODY)._compile(RegisteredSchema(kind, text, ()))
            assert code_of(found) is ErrorCode.SCHEMA_VIOLATION

    def test_ids_that_no_registry_has_are_not_asked_for(self) -> None:
        for number in (0, 2**31, 2**32 - 1):
            value = struct.pack(">bI", 0, number) + b"x"
            found = Avro(registry=NOBODY)(FakeRecord(0, value))
            assert code_of(found) is ErrorCode.UNKNOWN_SCHEMA

    def test_without_the_extra(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(extras, "is_installed", lambda _extra: False)
        for made in (Avro, Protobuf, JsonSchema):
            [fault] = kept_faults(made())
            assert fault.endswith(
                "needs the extra registry: pip install 'streamflow-kafka[registry]'"
            )


class _Everything(dict[Any, float]):
    def get(self, _key: object, _default: object = None) -> Any:
        return float("inf")


@contextmanager
def answering(status: int, body: bytes = b"<html>") -> Iterator[str]:
    """The URL of a server that always answers the same."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/secret-path"
    server.shutdown()
    thread.join()
    server.server_close()


class TestOutages:
    @pytest.mark.parametrize(
        ("status", "word"),
        [
            (404, "status 404: check STREAMFLOW_SCHEMA_REGISTRY_URL"),  # no registry at all
            (401, "refuses the credentials, status 401"),
            (503, "status 503"),
            (200, "does not answer"),  # with something that is no JSON
            (302, "status 302"),
        ],
    )
    def test_a_registry_that_cannot_answer_is_waited_for(self, status: int, word: str) -> None:
        with answering(status) as url, pytest.raises(Unavailable) as caught:
            decode(Avro(registry=SchemaRegistry(url, "ann", "hunter2")), b"x")
        assert word in str(caught.value)
        assert "secret-path" not in str(caught.value)
        assert "hunter2" not in str(caught.value)

    def test_nobody_answers(self) -> None:
        [port] = free_ports(1)
        with pytest.raises(Unavailable, match="the schema registry does not answer"):
            decode(Avro(registry=SchemaRegistry(f"http://127.0.0.1:{port}")), b"x")

    def test_none_is_configured(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for made in (Avro(), Protobuf(), JsonSchema(validate=True)):
            with pytest.raises(ConfigurationError, match="set STREAMFLOW_SCHEMA_REGISTRY_URL"):
                made.prepare()
        JsonSchema().prepare()
        Debezium().prepare()
        with pytest.raises(ConfigurationError):
            Debezium(format=Avro()).prepare()
        monkeypatch.setenv("STREAMFLOW_SCHEMA_REGISTRY_URL", "http://127.0.0.1:8081/api")
        monkeypatch.setenv("STREAMFLOW_SCHEMA_REGISTRY_USERNAME", "ann")
        monkeypatch.setenv("STREAMFLOW_SCHEMA_REGISTRY_PASSWORD", "hunter2")
        made = Avro()
        made.prepare()
        assert made.registry == SchemaRegistry("http://127.0.0.1:8081/api", "ann", "hunter2")
        assert "hunter2" not in repr(made.registry)

    def test_a_file_with_certificates_that_is_none(self, tmp_path: Path) -> None:
        (tmp_path / "empty").touch()
        for name in ("missing", "empty"):
            registry = SchemaRegistry("https://127.0.0.1:9", ca=tmp_path / name)
            with pytest.raises(ConfigurationError, match="check STREAMFLOW_SCHEMA_REGISTRY_CA"):
                Avro(registry=registry).prepare()

    @pytest.mark.parametrize("url", ["http://ann:hunter2@host", "host:8081", "http://h?a=b", ""])
    def test_urls_that_are_none_or_hold_a_password(
        self, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        [fault] = kept_faults(Avro(registry=SchemaRegistry(url)))
        assert fault.startswith("registry: SchemaRegistry: ")
        assert "write http" in fault
        assert "hunter2" not in fault
        if url:
            monkeypatch.setenv("STREAMFLOW_SCHEMA_REGISTRY_URL", url)
            with pytest.raises(ConfigurationError, match="STREAMFLOW_SCHEMA_REGISTRY_URL"):
                Avro().prepare()


def test_the_declarations_of_the_docs() -> None:
    page = (Path(__file__).parents[2] / "docs/formats.md").read_text()
    names = {name: getattr(streamflow, name) for name in streamflow.__all__}
    declared = re.findall(
        r"\bdecode=((?:CloudEvents|Debezium|Avro|Protobuf|JsonSchema)\(.*\)),?$", page, re.MULTILINE
    )
    declared += re.findall(r"`((?:CloudEvents|Debezium|Avro|JsonSchema)\([^`…]*\))`", page)
    assert len(declared) > 6
    for expression in declared:
        assert callable(eval(expression, names)), expression  # noqa: S307 (of our own page)
