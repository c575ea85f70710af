"""Records that Confluent's own serializers have written, decoded by the schemas of a real registry."""

import json
import struct
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
import requests
from confluent_kafka.schema_registry import Schema, SchemaReference, SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.schema_registry.json_schema import JSONSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from google.type import date_pb2, money_pb2

from loads import FakeRecord
from schema_registries import RegistryService
from streamflow import Avro, JsonSchema, Protobuf, Rejection, SchemaRegistry, Tombstone, Unavailable
from streamflow.errors import ErrorCode
from streamflow.formats.framing import Framed

# The registry alone takes from 11 s to start, on a busy machine three times as long.
pytestmark = [pytest.mark.integration, pytest.mark.chaos]

BY_TOPIC = {"subject.name.strategy.type": "TOPIC"}
MONEY = {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}
ORDER = {
    "type": "record",
    "name": "Order",
    "namespace": "shop",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "total", "type": MONEY},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "due", "type": ["null", {"type": "int", "logicalType": "date"}]},
    ],
}
ROW = {
    "id": 1,
    "total": Decimal("12.34"),
    "at": datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
    "due": date(2026, 2, 3),
}
DOCUMENT = {"id": 1, "total": "12.34", "at": "2026-01-02T03:04:05.000006Z", "due": "2026-02-03"}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryService]:
    made = RegistryService(tmp_path_factory.mktemp("registry"))
    made.start()
    yield made
    made.stop()


@pytest.fixture
def client(service: RegistryService) -> Iterator[SchemaRegistryClient]:
    with SchemaRegistryClient({"url": service.url}) as made:
        yield made


@pytest.fixture
def registry(service: RegistryService) -> SchemaRegistry:
    return SchemaRegistry(service.url)


def context(topic: str, field: str = MessageField.VALUE) -> SerializationContext:
    return SerializationContext(topic, field)


def decoded(made: Framed[Any], value: bytes | None, key: bytes | None = None) -> Any:
    found = made(FakeRecord(0, value, key=key))
    assert isinstance(found, bytes), found
    return json.loads(found)


def test_avro(client: SchemaRegistryClient, registry: SchemaRegistry) -> None:
    write = AvroSerializer(client, json.dumps(ORDER), conf=BY_TOPIC)
    made = Avro(registry=registry, framed_key=True)
    first = write(ROW, context("orders"))
    assert decoded(made, first) == DOCUMENT

    # The schema evolves: each record is read by its own, or all by one that is declared.
    note = {"name": "note", "type": "string", "default": "none"}
    wider = {**ORDER, "fields": [*ORDER["fields"], note]}
    write_wider = AvroSerializer(client, json.dumps(wider), conf=BY_TOPIC)
    second = write_wider({**ROW, "note": "x"}, context("orders"))
    assert decoded(made, second) == DOCUMENT | {"note": "x"}
    latest = Avro(registry=registry, reader_schema=wider)
    assert [decoded(latest, value)["note"] for value in (first, second)] == ["none", "x"]

    key_schema = {"type": "record", "name": "Key", "fields": [{"name": "id", "type": "long"}]}
    write_key = AvroSerializer(client, json.dumps(key_schema), conf=BY_TOPIC)
    key = write_key({"id": 1}, context("orders", MessageField.KEY))
    assert made(FakeRecord(0, None, key=key)) == Tombstone(b'{"id":1}')


def test_avro_with_references(client: SchemaRegistryClient, registry: SchemaRegistry) -> None:
    item = {"type": "record", "name": "shop.Item", "fields": [{"name": "price", "type": MONEY}]}
    client.register_schema("item", Schema(json.dumps(item), "AVRO"))
    basket = {
        "type": "record",
        "name": "shop.Basket",
        "fields": [{"name": "items", "type": {"type": "array", "items": "shop.Item"}}],
    }
    schema = Schema(json.dumps(basket), "AVRO", [SchemaReference("shop.Item", "item", 1)])
    write = AvroSerializer(client, schema, conf=BY_TOPIC)
    value = write({"items": [{"price": Decimal("1.50")}]}, context("baskets"))
    assert decoded(Avro(registry=registry), value) == {"items": [{"price": "1.50"}]}


def test_protobuf_by_descriptors(client: SchemaRegistryClient, registry: SchemaRegistry) -> None:
    write = ProtobufSerializer(money_pb2.Money, client, BY_TOPIC)
    value = write(money_pb2.Money(currency_code="EUR", units=12), context("money"))
    expected = {"currency_code": "EUR", "units": 12, "nanos": 0}
    assert decoded(Protobuf(registry=registry), value) == expected
    assert decoded(Protobuf(money_pb2.Money), value) == expected


def test_protobuf_by_text(client: SchemaRegistryClient, registry: SchemaRegistry) -> None:
    text = """
        syntax = "proto3";
        import "google/type/date.proto";
        message Other {}
        message Bill { message Line { string sku = 1; } google.type.Date due = 1; Line line = 2; }
    """
    number = client.register_schema("bills-value", Schema(text, "PROTOBUF"))
    due = date_pb2.Date(year=2026, month=2, day=3).SerializeToString()
    bill = b"\x0a" + bytes([len(due)]) + due + b"\x12\x03\x0a\x01a"
    value = struct.pack(">bI", 0, number) + b"\x02\x02" + bill
    expected = {"due": "2026-02-03", "line": {"sku": "a"}}
    assert decoded(Protobuf(registry=registry), value) == expected


def test_json_schema(client: SchemaRegistryClient, registry: SchemaRegistry) -> None:
    schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Order",
        "type": "object",
        "properties": {"id": {"type": "integer"}},
    }
    write = JSONSerializer(json.dumps(schema), client, conf=BY_TOPIC)
    value = write({"id": 1}, context("documents"))
    strict = JsonSchema(validate=True, registry=registry)
    assert decoded(JsonSchema(), value) == decoded(strict, value) == {"id": 1}
    refused = strict(FakeRecord(0, value.replace(b"1}", b'"x"}')))
    assert isinstance(refused, Rejection)
    assert refused.message.endswith("properties/id/type")


def test_a_schema_is_asked_for_once_and_an_unknown_one_not_for_each_record(
    client: SchemaRegistryClient, registry: SchemaRegistry, service: RegistryService
) -> None:
    made = Avro(registry=registry)
    unknown = struct.pack(">bI", 0, 2**31 - 1) + b"\2"
    value = AvroSerializer(client, '"long"', conf=BY_TOPIC)(5, context("numbers"))
    for _ in range(3):
        assert decoded(made, value) == 5
        found = made(FakeRecord(0, unknown))
        assert isinstance(found, Rejection)
        assert found.code is ErrorCode.UNKNOWN_SCHEMA
    access = (service.directory / "registry.log").read_text()
    asked = [
        line
        for line in access.splitlines()
        if "AccessLogReceiver" in line and "schemas/ids/2147483647" in line
    ]
    assert len(asked) == 1
    guid = made(FakeRecord(0, b"\1" + bytes(16) + b"\2"))
    assert isinstance(guid, Rejection)
    assert guid.code is ErrorCode.UNKNOWN_SCHEMA


def test_the_last_one_stops_the_registry(
    client: SchemaRegistryClient, registry: SchemaRegistry, service: RegistryService
) -> None:
    """An outage is waited for: no record becomes a dead letter, and what is known goes on."""
    known, value = (
        Avro(registry=registry),
        AvroSerializer(client, '"string"', conf=BY_TOPIC)("a", context("texts")),
    )
    assert decoded(known, value) == "a"
    service.stop()
    assert decoded(known, value) == "a"
    with pytest.raises(Unavailable, match="the schema registry does not answer"):
        known(FakeRecord(0, struct.pack(">bI", 0, 4711) + b"x"))
    with pytest.raises(requests.ConnectionError):
        requests.get(service.url, timeout=5)
