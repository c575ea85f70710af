"""CloudEvents, Debezium's envelope, and what any decode function returns: pure, from bytes to documents."""

import base64
import json
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any, Literal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import Base64Bytes, BaseModel, ConfigDict

from kept import kept_faults
from loads import FakeRecord
from streamflow import IGNORED, CloudEvents, Debezium, Rejection, Tombstone
from streamflow.errors import ErrorCode
from streamflow.formats.documents import Ignored, parse, read_document, write
from streamflow.records import Headers

ATTRIBUTES = {"specversion": "1.0", "id": "7", "source": "/shop", "type": "placed"}
# Something that no message may repeat.
SECRET = "ann.example-4711"


def record(
    value: bytes | None, headers: Headers | None = None, key: bytes | None = None
) -> FakeRecord:
    return FakeRecord(0, value, headers=headers, key=key)


def structured(**fields: Any) -> FakeRecord:
    value = json.dumps(ATTRIBUTES | fields).encode()
    return record(value, [("content-type", b"application/cloudevents+json; charset=UTF-8")])


def binary(value: bytes, content_type: bytes = b"application/json", **changes: str) -> FakeRecord:
    headers: Headers = [
        (f"ce_{name}", text.encode()) for name, text in (ATTRIBUTES | changes).items()
    ]
    return record(value, [("content-type", content_type), *headers])


def code_of(found: object) -> ErrorCode:
    assert isinstance(found, Rejection)
    assert SECRET not in found.message
    return found.code


def document_of(found: object) -> Any:
    assert isinstance(found, bytes), found
    return json.loads(found, parse_float=Decimal)


class TestDocuments:
    def test_without_decode_the_value_is_the_document_and_null_a_tombstone(self) -> None:
        assert read_document(None, record(b"{not yet judged")) == b"{not yet judged"
        assert read_document(None, record(None)) == Tombstone()

    def test_a_dict_becomes_json(self) -> None:
        fields = {"at": datetime(2026, 1, 2, tzinfo=UTC), "price": Decimal("1.10")}
        found = read_document(lambda _record: fields, record(b""))
        assert document_of(found) == {"at": "2026-01-02T00:00:00Z", "price": "1.10"}

    @pytest.mark.parametrize("answer", [b"{}", Rejection(ErrorCode.TOO_LARGE, "", ""), IGNORED])
    def test_other_answers_are_passed_on(self, answer: Any) -> None:
        assert read_document(lambda _record: answer, record(b"")) is answer

    @pytest.mark.parametrize("answer", [None, "text", 1])
    def test_a_forgotten_return_loses_no_record(self, answer: Any) -> None:
        with pytest.raises(TypeError, match="decode returned"):
            read_document(lambda _record: answer, record(b""))

    def test_no_digit_is_lost(self) -> None:
        text = (
            b'{"a":12345678901234567890.123456789,"b":-9223372036854775809,"c":1e400,"d":0.10,'
            b'"e":18446744073709551616,"f":18446744073709551615,"g":-1}'
        )
        assert write(parse(text)) == text

    @pytest.mark.parametrize(
        ("value", "code"),
        [
            (b"", ErrorCode.EMPTY_VALUE),
            (b"{", ErrorCode.INVALID_JSON),
            (b"[NaN]", ErrorCode.INVALID_JSON),
            (b"\xff{}", ErrorCode.INVALID_UTF8),
            (b"[" * 100_000, ErrorCode.INVALID_JSON),
            (b"[" + b"0," * 300_000 + b"0]", ErrorCode.TOO_LARGE),
            (b'"' + b"a" * 8_400_000 + b'"', ErrorCode.TOO_LARGE),
        ],
    )
    def test_what_is_not_json(self, value: bytes, code: ErrorCode) -> None:
        assert code_of(parse(value)) is code

    @pytest.mark.parametrize(
        ("value", "code"),
        [
            (b'"\\ud800"', ErrorCode.UNSTORABLE_VALUE),
            (b"[" * 254 + b"]" * 254, None),
            (b"[" * 255 + b"]" * 255, ErrorCode.SCHEMA_VIOLATION),
            (b"[" * 800 + b"]" * 800, ErrorCode.SCHEMA_VIOLATION),
        ],
    )
    def test_what_cannot_be_written(self, value: bytes, code: ErrorCode | None) -> None:
        found = write(parse(value))
        assert (found.code if isinstance(found, Rejection) else None) is code


class TestCloudEvents:
    def test_structured(self) -> None:
        event = structured(data={"sku": "a"}, time="2026-01-02T00:00:00Z")
        assert document_of(CloudEvents()(event)) == {"sku": "a"}
        taking = CloudEvents({"id": "event_id", "time": "created_at", "type": "kind"})
        assert document_of(taking(event)) == {
            "sku": "a",
            "event_id": "7",
            "created_at": "2026-01-02T00:00:00Z",
            "kind": "placed",
        }

    def test_structured_without_a_content_type(self) -> None:
        value = structured(data={"sku": "a"}).value()
        assert document_of(CloudEvents()(record(value))) == {"sku": "a"}

    def test_binary(self) -> None:
        value = b'{"sku": "a",  "price": 1.10}'
        event = binary(value, time="2026-01-02T00:00:00Z")
        assert CloudEvents()(event) == value  # untouched
        taking = CloudEvents({"time": "created_at", "datacontenttype": "form"})
        assert document_of(taking(event)) == {
            "sku": "a",
            "price": Decimal("1.10"),
            "created_at": "2026-01-02T00:00:00Z",
            "form": "application/json",
        }

    def test_an_attribute_that_is_absent_is_an_absent_field(self) -> None:
        assert document_of(CloudEvents({"time": "at"})(binary(b"{}"))) == {}

    def test_data_in_a_field_of_its_own(self) -> None:
        taking = CloudEvents({"id": "id"}, data="payload")
        assert document_of(taking(structured(data=[1, 2]))) == {"id": "7", "payload": [1, 2]}
        assert document_of(taking(binary(b'"x"'))) == {"id": "7", "payload": "x"}

    def test_base64(self) -> None:
        data = base64.b64encode(b'{"price": 0.10}').decode()
        found = document_of(CloudEvents()(structured(data_base64=data)))
        assert found == {"price": Decimal("0.10")}

    def test_without_data(self) -> None:
        assert code_of(CloudEvents()(structured())) is ErrorCode.EMPTY_VALUE
        assert document_of(CloudEvents({"id": "id"})(structured())) == {"id": "7"}
        assert document_of(CloudEvents({"id": "id"})(binary(b""))) == {"id": "7"}
        assert CloudEvents()(record(None)) == Tombstone()

    @pytest.mark.parametrize(
        ("event", "code", "word"),
        [
            (
                structured(specversion="0.3", data={}),
                ErrorCode.SCHEMA_VIOLATION,
                "only CloudEvents",
            ),
            (structured(id="", data={}), ErrorCode.SCHEMA_VIOLATION, "id: this attribute"),
            (structured(source=None, data={}), ErrorCode.SCHEMA_VIOLATION, "source: this"),
            (structured(type=1, data={}), ErrorCode.SCHEMA_VIOLATION, "type: this attribute"),
            (structured(data=SECRET), ErrorCode.SCHEMA_VIOLATION, "data: not a JSON object"),
            (
                structured(data=SECRET, datacontenttype="text/plain"),
                ErrorCode.SCHEMA_VIOLATION,
                "datacontenttype",
            ),
            (structured(data_base64=SECRET), ErrorCode.SCHEMA_VIOLATION, "not base64"),
            (structured(data_base64="e30=", data={}), ErrorCode.SCHEMA_VIOLATION, "as well as"),
            (structured(data_base64="ew=="), ErrorCode.INVALID_JSON, "not JSON"),
            (binary(b"{}", specversion="2.0"), ErrorCode.SCHEMA_VIOLATION, "only CloudEvents"),
            (binary(b"<a/>", b"application/xml"), ErrorCode.SCHEMA_VIOLATION, "only JSON data"),
            (record(b"{}"), ErrorCode.SCHEMA_VIOLATION, "specversion: this attribute"),
            (record(b"[]"), ErrorCode.SCHEMA_VIOLATION, "no CloudEvent"),
            (
                record(b"[]", [("content-type", b"application/cloudevents-batch+json")]),
                ErrorCode.SCHEMA_VIOLATION,
                "a batch",
            ),
            (
                record(b"\0", [("content-type", b"application/cloudevents+avro")]),
                ErrorCode.SCHEMA_VIOLATION,
                "only application/cloudevents[+]json",
            ),
            (
                record(b"{}", [("ce_specversion", b"1.0"), ("ce_id", b"\xff")]),
                ErrorCode.INVALID_UTF8,
                "header ce_id",
            ),
        ],
    )
    def test_what_is_no_event(self, event: FakeRecord, code: ErrorCode, word: str) -> None:
        found = CloudEvents()(event)
        assert code_of(found) is code
        assert isinstance(found, Rejection)
        assert word.replace("[+]", "+") in found.message

    def test_of_headers_with_one_name_the_last_counts(self) -> None:
        event = binary(b"{}")
        headers = [("ce_id", b"first"), *(event.headers() or []), ("ce_id", b"last")]
        found = CloudEvents({"id": "id"})(record(b"{}", headers))
        assert document_of(found) == {"id": "last"}

    def test_declarations_that_cannot_work(self) -> None:
        [fault] = kept_faults(CloudEvents({"ce_id": "id"}))
        assert "no attribute 'ce_id'" in fault
        [fault] = kept_faults(CloudEvents({"id": "id", "type": "id"}))
        assert "two values go into field id" in fault

    @given(
        st.one_of(st.none(), st.binary(max_size=60)),
        st.lists(
            st.tuples(
                st.sampled_from(["content-type", "ce_specversion", "ce_id", "ce_source", "ce_type"])
                | st.text(max_size=5),
                st.none()
                | st.binary(max_size=20)
                | st.sampled_from([b"1.0", b"application/cloudevents+json", b"application/json"]),
            )
        ),
    )
    def test_any_bytes(self, value: bytes | None, headers: Headers) -> None:
        found = CloudEvents({"id": "id"})(record(value, headers))
        assert isinstance(found, bytes | Rejection | Tombstone)

    @given(
        st.dictionaries(
            st.text(st.characters(exclude_categories=["Cs"])),
            st.none() | st.booleans() | st.integers() | st.decimals(allow_nan=False).map(str),
        )
    )
    @example({"n": 10**30})
    def test_round_trip(self, data: dict[str, Any]) -> None:
        assert document_of(CloudEvents()(structured(data=data))) == data
        encoded = json.dumps(data).encode()
        assert document_of(CloudEvents({"id": "id"})(binary(encoded))) == data | {"id": "7"}


def change(op: str | None, **fields: Any) -> bytes:
    source = {"ts_ms": 1_767_225_600_000, "lsn": 24_023_128, "table": "orders"}
    envelope = {"before": None, "after": None, "source": source, "ts_ms": 1_767_225_600_500}
    return json.dumps(envelope | {"op": op} | fields).encode()


ROW = {"id": 1, "name": "ann"}


def column(name: str, kind: str, logical: str = "", **parameters: str) -> dict[str, Any]:
    made: dict[str, Any] = {"field": name, "type": kind, "optional": True}
    return made | ({"name": logical} if logical else {}) | {"parameters": parameters}


COLUMNS = [
    column("id", "int64"),
    column("at", "int64", "io.debezium.time.MicroTimestamp"),
    column("millis", "int64", "io.debezium.time.Timestamp"),
    column("nanos", "int64", "io.debezium.time.NanoTimestamp"),
    column("zoned", "string", "io.debezium.time.ZonedTimestamp"),
    column("day", "int32", "io.debezium.time.Date"),
    column("clock", "int64", "io.debezium.time.MicroTime"),
    column("price", "bytes", "org.apache.kafka.connect.data.Decimal", scale="2"),
    column("any", "struct", "io.debezium.data.VariableScaleDecimal"),
    column("tags", "string", "io.debezium.data.Json"),
    column("raw", "bytes"),
    {"field": "days", "type": "array", "items": column("", "int32", "io.debezium.time.Date")},
]
VALUES = {
    "id": 1,
    "at": 1_767_225_600_123_456,
    "millis": 1_767_225_600_123,
    "nanos": 1_767_225_600_123_456_789,
    "zoned": "2026-01-01T00:00:00.5Z",
    "day": 20_454,
    "clock": 3_661_000_001,
    "price": base64.b64encode((-1999).to_bytes(2, "big", signed=True)).decode(),
    "any": {"scale": 3, "value": base64.b64encode(b"\x04\xd2").decode()},
    "tags": '{"a": [1.10]}',
    "raw": "//4=",
    "days": [0, 20_454],
}


def with_schema(op: str, columns: list[dict[str, Any]] = COLUMNS, **rows: Any) -> bytes:
    row_schema = {"type": "struct", "fields": columns}
    schema = {
        "type": "struct",
        "fields": [row_schema | {"field": "before"}, row_schema | {"field": "after"}],
    }
    payload = {"before": None, "after": None, "op": op, "source": {}} | rows
    return json.dumps({"schema": schema, "payload": payload}).encode()


class Converted(BaseModel):
    """What a contract could declare for these columns."""

    model_config = ConfigDict(strict=True, extra="forbid")

    id: int
    at: datetime
    millis: datetime
    nanos: datetime
    zoned: datetime
    day: date
    clock: time
    price: Decimal
    any: Decimal
    tags: dict[str, list[float]]
    raw: Base64Bytes
    days: list[date]


class TestDebezium:
    @pytest.mark.parametrize("op", ["c", "u", "r"])
    def test_the_row_after_a_change(self, op: str) -> None:
        value = change(op, after=ROW, before={"id": 1, "name": "bob"})
        assert document_of(Debezium()(record(value))) == ROW

    def test_fields_of_source_and_envelope(self) -> None:
        taking = Debezium(
            source={"ts_ms": "changed_at", "lsn": "position", "snapshot": "snapshot"},
            envelope={"op": "operation"},
        )
        assert document_of(taking(record(change("u", after=ROW)))) == ROW | {
            "changed_at": 1_767_225_600_000,
            "position": 24_023_128,
            "operation": "u",
        }

    def test_a_delete_is_a_tombstone(self) -> None:
        found = Debezium()(record(change("d", before=ROW)))
        assert isinstance(found, Tombstone)
        assert document_of(found.key) == ROW

    def test_a_delete_without_the_row_is_known_by_the_key(self) -> None:
        plain = json.dumps({"id": 1}).encode()
        schema = {"type": "struct", "fields": [column("id", "int32", "io.debezium.time.Date")]}
        whole = json.dumps({"schema": schema, "payload": {"id": 0}}).encode()
        for key, expected in ((plain, {"id": 1}), (whole, {"id": "1970-01-01"})):
            found = Debezium()(record(change("d"), key=key))
            assert isinstance(found, Tombstone)
            assert document_of(found.key) == expected
        for bad in (None, b"", b"17", SECRET.encode()):
            assert code_of(Debezium()(record(change("d"), key=bad))) is ErrorCode.SCHEMA_VIOLATION

    def test_a_delete_as_a_document(self) -> None:
        taking = Debezium(deletes="document", envelope={"op": "op"})
        assert document_of(taking(record(change("d", before=ROW)))) == ROW | {"op": "d"}
        assert code_of(taking(record(change("d")))) is ErrorCode.SCHEMA_VIOLATION

    @pytest.mark.parametrize(
        "value",
        [
            None,
            change("m", message={"prefix": "x"}),
            b'{"source": {}, "ddl": "DROP TABLE a"}',
            # Heartbeats, and where transactions begin and end.
            b'{"ts_ms": 5}',
            b'{"schema": {"type": "struct", "fields": []}, "payload": {"ts_ms": 5}}',
            b'{"ts_ms": 5, "ts_us": 5000, "ts_ns": 5000000}',
            b'{"status": "BEGIN", "id": "571", "event_count": null, "data_collections": null}',
        ],
    )
    def test_what_means_nothing(self, value: bytes | None) -> None:
        assert Debezium()(record(value)) is IGNORED

    @pytest.mark.parametrize(
        ("value", "code"),
        [
            (change("t"), ErrorCode.UNKNOWN_TYPE),
            (change(SECRET), ErrorCode.UNKNOWN_TYPE),
            (change(None), ErrorCode.SCHEMA_VIOLATION),
            (json.dumps(ROW).encode(), ErrorCode.SCHEMA_VIOLATION),
            (json.dumps({"ts_ms": 5} | ROW).encode(), ErrorCode.SCHEMA_VIOLATION),
            (b"{}", ErrorCode.SCHEMA_VIOLATION),
            (b'{"status": ["BEGIN"], "id": "571"}', ErrorCode.SCHEMA_VIOLATION),
            (b"[]", ErrorCode.SCHEMA_VIOLATION),
            (b"", ErrorCode.EMPTY_VALUE),
            (b"{", ErrorCode.INVALID_JSON),
            (change("u", after=SECRET), ErrorCode.SCHEMA_VIOLATION),
            (
                change("u", after={"id": 1, "text": "__debezium_unavailable_value"}),
                ErrorCode.SCHEMA_VIOLATION,
            ),
            (
                change("u", after={"id": 1, "texts": ["__debezium_unavailable_value"]}),
                ErrorCode.SCHEMA_VIOLATION,
            ),
        ],
    )
    def test_what_is_no_change(self, value: bytes, code: ErrorCode) -> None:
        assert code_of(Debezium()(record(value))) is code

    def test_types_by_the_schema_in_the_record(self) -> None:
        found = Debezium()(record(with_schema("c", after=VALUES)))
        assert isinstance(found, bytes), found
        row = Converted.model_validate_json(found)
        moment = datetime(2026, 1, 1, 0, 0, 0, 123_456, tzinfo=UTC)
        assert vars(row) == {
            "id": 1,
            "at": moment,
            "millis": moment.replace(microsecond=123_000),
            "nanos": moment,
            "zoned": moment.replace(microsecond=500_000),
            "day": date(2026, 1, 1),
            "clock": time(1, 1, 1, 1),
            "price": Decimal("-19.99"),
            "any": Decimal("1.234"),
            "tags": {"a": [1.1]},
            "raw": b"\xff\xfe",
            "days": [date(1970, 1, 1), date(2026, 1, 1)],
        }

    @pytest.mark.parametrize(
        ("logical", "value"),
        [
            ("io.debezium.time.MicroTimestamp", 2**62),
            ("io.debezium.time.Date", -(2**31)),
            ("io.debezium.time.Time", -1),
            ("io.debezium.time.Timestamp", "text"),
            ("org.apache.kafka.connect.data.Decimal", "no base64"),
            ("io.debezium.data.VariableScaleDecimal", {"scale": 10**9, "value": "AQ=="}),
            ("io.debezium.data.VariableScaleDecimal", {"scale": 1, "value": "A" * 1_000_000}),
            ("io.debezium.data.Json", "{"),
        ],
    )
    def test_a_value_that_its_type_does_not_have_stays(self, logical: str, value: Any) -> None:
        found = Debezium()(
            record(with_schema("c", [column("x", "any", logical)], after={"x": value}))
        )
        assert document_of(found) == {"x": value}

    def test_a_scale_that_is_a_bomb(self) -> None:
        decimal = "org.apache.kafka.connect.data.Decimal"
        columns = [column("x", "bytes", decimal, scale="999999999")]
        assert document_of(Debezium()(record(with_schema("c", columns, after={"x": "AQ=="})))) == {
            "x": "AQ=="
        }

    def test_declarations_that_cannot_work(self) -> None:
        [fault] = kept_faults(Debezium(source={"ts_ms": "at"}, envelope={"ts_ms": "at"}))
        assert "two values go into field at" in fault

    json_values = st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False)
        | st.text(max_size=8),
        lambda parts: (
            st.lists(parts, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["schema", "payload", "type", "fields", "field", "name", "parameters"]
                )
                | st.text(max_size=4),
                parts
                | st.sampled_from(["struct", "array", "map", "io.debezium.time.Date"])
                | st.sampled_from(
                    ["org.apache.kafka.connect.data.Decimal", "io.debezium.data.Json"]
                ),
                max_size=4,
            )
        ),
        max_leaves=12,
    )
    operations: st.SearchStrategy[Literal["c", "d", "u"] | None] = st.sampled_from(
        ["c", "d", "u", None]
    )

    @given(json_values, json_values, operations)
    def test_any_json(self, schema: Any, row: Any, op: str | None) -> None:
        payload = {"op": op, "before": row, "after": row, "source": row}
        for document in (payload, {"schema": schema, "payload": payload}, row):
            value = json.dumps(document).encode()
            for key in (None, value):
                found = Debezium(source={"ts_ms": "at"})(record(value, key=key))
                assert isinstance(found, bytes | Rejection | Tombstone | Ignored)

    @given(st.none() | st.binary(max_size=80), st.none() | st.binary(max_size=20))
    def test_any_bytes(self, value: bytes | None, key: bytes | None) -> None:
        found = Debezium()(record(value, key=key))
        assert isinstance(found, Rejection | Ignored)

    def test_deep_schemas(self) -> None:
        depth = 300
        schema = b'{"type":"array","items":' * depth + b"{}" + b"}" * depth
        value = b'{"schema":' + schema + b',"payload":' + b"[" * depth + b"]" * depth + b"}"
        assert code_of(Debezium()(record(value))) is ErrorCode.SCHEMA_VIOLATION
