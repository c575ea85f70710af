"""Bodies of requests: whatever comes, its events are found or it is a problem."""

import base64
import gzip
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingesting import CLOUDS
from order_streams import ORDERS
from streamflow.errors import ErrorCode
from streamflow.formats.cloudevents import CloudEvents
from streamflow.privacy import Hasher
from streamflow.records import OutRecord, Rejection
from streamflow.samples.record import SampleRecord
from streamflow.settings import Settings
from streamflow.stream import Stream
from streamflow.streams.user_events import USER_EVENTS
from streaming_workers.ingest.bodies import CONTENT_TYPES, Incoming, events_of, inflated
from streaming_workers.ingest.intake import Intake
from streaming_workers.ingest.pages import openapi, schema_of
from streaming_workers.ingest.problems import Problem, invalid_events, pointer_of
from streaming_workers.ingest.request import Request
from streaming_workers.ingest.submissions import fingerprint_of

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
CLOUD = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}
LOGIN = {"id": 1, "type": "USER_LOGIN", "user": "ann", "timestamp": "2026-03-01T12:00:00.000Z"}


def found(content_type: str, body: bytes, **headers: str) -> list[Incoming | Rejection]:
    return events_of({"content-type": content_type} | headers, body)


def documents(events: list[Incoming | Rejection]) -> list[bytes]:
    return [event.document for event in events if isinstance(event, Incoming)]


@given(st.lists(JSON, min_size=1, max_size=5), st.sampled_from((None, 1)))
def test_an_array_is_its_elements_and_lines_are_theirs(
    events: list[Any], indent: int | None
) -> None:
    body = json.dumps(events, indent=indent).encode()
    assert [json.loads(one) for one in documents(found("application/json", body))] == events
    lines = b"\r\n\n".join(json.dumps(event).encode() for event in events)
    assert [json.loads(one) for one in documents(found("application/x-ndjson", lines))] == events
    cloud = [CLOUD | {"data": event} for event in events]
    batch = found("application/cloudevents-batch+json; charset=utf-8", json.dumps(cloud).encode())
    assert [json.loads(one) for one in documents(batch)] == events


@given(st.binary() | st.text().map(str.encode), st.sampled_from(CONTENT_TYPES), st.booleans())
def test_any_body_is_events_or_a_problem(body: bytes, content_type: str, cloud: bool) -> None:
    headers = {"ce-specversion": "1.0"} if cloud else {}
    statuses = []
    try:
        assert found(content_type, body, **headers)
    except Problem as problem:
        statuses.append(problem.status)
    assert statuses in ([], [400])


@given(st.dictionaries(st.sampled_from((*CLOUD, "data", "data_base64", "subject", "No")), JSON))
def test_any_object_is_a_cloud_event_or_says_why_not(event: dict[str, Any]) -> None:
    [one] = found("application/cloudevents+json", json.dumps(event).encode())
    if isinstance(one, Rejection):
        assert one.code in (ErrorCode.SCHEMA_VIOLATION, ErrorCode.INVALID_JSON)
        return
    # As the decoder of the workers has it.
    record = SampleRecord("t", 0, one.document, headers=one.attributes)
    assert not isinstance(CloudEvents({"id": "x"}, data="data")(record), Rejection)


@pytest.mark.parametrize(
    "changed",
    [
        {"specversion": "0.3"}, {"specversion": None}, {"id": ""}, {"id": ["x"]}, {"Subject": "x"},
        {"data": 1, "data_base64": "MQ=="}, {"data_base64": "?"}, {"data_base64": 1},
        {"datacontenttype": "text/xml"},
    ],
)  # fmt: skip
def test_what_is_no_cloud_event_is_rejected(changed: dict[str, Any]) -> None:
    body = json.dumps(CLOUD | {"data": {}} | changed).encode()
    [one] = found("application/cloudevents+json", body)
    assert isinstance(one, Rejection)
    assert one.code is ErrorCode.SCHEMA_VIOLATION


def test_digits_are_kept_and_base64_is_read() -> None:
    number = b"1.00000000000000000000000000001"
    [plain] = found("application/json", b'[{"a":' + number + b"}]")
    assert plain == Incoming(b'{"a":' + number + b"}")
    head = json.dumps(CLOUD).encode()[:-1]
    [cloud] = found("application/cloudevents+json", head + b', "data": ' + number + b"}")
    encoded = base64.b64encode(number)
    [other] = found("application/cloudevents+json", head + b', "data_base64": "' + encoded + b'"}')
    assert documents([cloud, other]) == [number, number]


def test_binary_mode_has_its_attributes_in_headers() -> None:
    [one] = found(
        "application/json; charset=utf-8",
        b"{}",
        **{f"ce-{name}": value for name, value in CLOUD.items()},
        **{"ce-subject": "%C3%A9 x", "other": "y"},
    )
    assert isinstance(one, Incoming)
    assert dict(one.attributes) == {
        "ce_specversion": b"1.0", "ce_id": b"1", "ce_source": b"/s", "ce_type": b"t",
        "ce_subject": "é x".encode(), "content-type": b"application/json; charset=utf-8",
    }  # fmt: skip


def test_a_header_with_a_name_that_no_attribute_has_is_rejected() -> None:
    headers = {f"ce-{name}": value for name, value in CLOUD.items()} | {"ce-sub_ject": "x"}
    [one] = found("application/json", b"{}", **headers)
    assert isinstance(one, Rejection)


@given(st.binary(max_size=200), st.integers(0, 250))
def test_what_is_compressed_is_inflated_up_to_its_bound(body: bytes, most: int) -> None:
    packed = gzip.compress(body)
    if len(body) <= most:
        assert inflated(packed, most) == body
        return
    with pytest.raises(Problem) as raised:
        inflated(packed, most)
    assert raised.value.status == 413


@given(st.binary(max_size=100))
def test_what_is_no_gzip_is_a_problem(body: bytes) -> None:
    for given_ in (body, gzip.compress(body)[:-1], gzip.compress(body) + b"x"):
        with pytest.raises(Problem) as raised:
            inflated(given_, 1000)
        assert raised.value.status == 400


def key_of(*given: str) -> bytes | None:
    headers = [(b"idempotency-key", each.encode("latin-1")) for each in given]
    return Request({"method": "POST", "path": "/", "headers": headers}, None).idempotency_key()


def test_a_key_is_a_text_with_or_without_quotes() -> None:
    assert key_of() is None
    assert key_of("a-b") == key_of('"a-b"') != key_of("a-c")
    for bad in ("", '"', '""', "a b", "a" * 256, "\x00", "é"):
        with pytest.raises(Problem):
            key_of(bad)


def test_records_that_differ_have_other_fingerprints() -> None:
    records = [
        OutRecord("t", b"k", b"v", []),
        OutRecord("t", b"kv", b"", []),
        OutRecord("t", None, b"kv", []),
        OutRecord("t", b"k", b"v", [("a", b"b")]),
        OutRecord("t", b"k", b"v", [("ab", b"")]),
    ]
    fingerprints = [fingerprint_of([record]) for record in records]
    fingerprints += [
        fingerprint_of(records[:2]),
        fingerprint_of(records[1::-1]),
        fingerprint_of([]),
    ]
    assert len(set(fingerprints)) == len(fingerprints)


@pytest.mark.parametrize(
    ("reason", "pointer"),
    [
        ("id: should be a valid integer", "#/id"),
        ("items[2].price: has more than 2", "#/items/2/price"),
        ("prices[*].amount: should be", "#/prices"),
        ("a/b~c: is required", "#/a~1b~0c"),
        ("the record: holds a field that is not declared", "#"),
        ("nested too deeply", "#"),
        ("not JSON at character 3", "#"),
    ],
)
def test_a_pointer_leads_to_the_field(reason: str, pointer: str) -> None:
    assert pointer_of(reason) == pointer


def test_errors_are_bounded() -> None:
    rejection = Rejection(ErrorCode.SCHEMA_VIOLATION, "E", "a: x; b: y", ("a: x", "b: y"))
    problem = invalid_events([(index, rejection) for index in range(1000)], 2000)
    assert problem.document["invalid"] == 1000
    assert len(problem.document["errors"]) == 100
    assert problem.document["errors"][1] == {
        "index": 0, "code": "SCHEMA_VIOLATION", "detail": "b: y", "pointer": "#/b",
    }  # fmt: skip


def test_attributes_without_clear_text() -> None:
    intake = Intake(CLOUDS, Settings())
    attributes = [(f"ce_{name}", value.encode()) for name, value in CLOUD.items()]
    attributes += [("ce_subject", b"Ann Smith"), ("ce_source", b"mailto:ann@example.com")]
    event = Incoming(json.dumps(LOGIN | {"user_email": "a@b.de"}).encode(), attributes)
    [record] = intake.records([event])
    assert isinstance(record, OutRecord)
    headers = dict(record.headers)
    assert headers["ce_subject"] == Hasher().hash("Ann Smith").encode()
    assert b"@" not in (headers["ce_source"] or b"") + (record.value or b"")
    [plain] = intake.records([Incoming(json.dumps(LOGIN).encode())])
    assert isinstance(plain, Rejection)


@pytest.mark.parametrize("stream", [CLOUDS, USER_EVENTS])
def test_what_the_topic_does_not_take_is_rejected_with_its_attributes(stream: Stream) -> None:
    intake = Intake(stream, Settings())
    attributes = [(f"ce_{name}", value.encode()) for name, value in CLOUD.items()]
    attributes.append(("ce_subject", Hasher().hash("Ann Smith").encode()))
    event = Incoming(json.dumps(LOGIN).encode(), attributes)
    [record] = intake.records([event])
    assert isinstance(record, OutRecord)
    large = b"x" * stream.topics.max_record_bytes
    [rejected] = intake.records([event._replace(attributes=[*attributes, ("ce_more", large)])])
    assert isinstance(rejected, Rejection)
    assert rejected.message == "longer than the topic's largest record"


def test_every_reference_of_the_document_leads_somewhere() -> None:
    document = json.loads(openapi([USER_EVENTS, ORDERS, CLOUDS], has_token=True))
    assert list(document["paths"]) == [
        f"/v1/streams/{n}" for n in ("user-events", "orders", "clouds")
    ]
    references = set(re.findall(r'"\$ref": "#/(.+?)"', json.dumps(document)))
    assert "components/schemas/orders/$defs/Item" in references
    for reference in references:
        place = document
        for step in reference.split("/"):
            place = place[step]
    [clouds] = document["paths"]["/v1/streams/clouds"].values()
    assert "application/json" not in clouds["requestBody"]["content"]
    assert document["security"] == [{"token": []}]


def test_the_schema_says_that_private_texts_may_be_in_clear() -> None:
    schema = schema_of(USER_EVENTS)
    assert "pattern" not in schema["properties"]["user_email"]
    assert "pattern" in schema["properties"]["timestamp"]
