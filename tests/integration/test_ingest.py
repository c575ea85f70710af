"""The ingest worker: a real process, a real broker, a real database, real HTTP."""

import base64
import contextlib
import gzip
import itertools
import json
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest
import requests

from conftest import SettingsFactory
from faults import assert_guarded, at_once, stalled, wait_until
from ingesting import URL, CloudLogin, IngestProcess, ingest_workers
from pipeline import audit, count, delete_topics, stored_records, stored_values, topics_of, workers
from services import BrokerService
from streamflow.kafka.topics import provision_topics
from streamflow.privacy import Hasher
from streamflow.registry import load_streams
from streamflow.settings import Settings
from streamflow.stream_topics import TopicSpec
from streaming_workers.ingest.problems import PROBLEM_TYPE

pytestmark = pytest.mark.integration


def login(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "id": number, "type": "USER_LOGIN", "user": f"user-{number % 7}",
        "user_email": f"{number}@example.com", "timestamp": "2026-03-01T12:00:00Z",
    } | changes  # fmt: skip


def stored(settings: Settings) -> list[dict[str, Any]]:
    found = [json.loads(value or b"") for value in stored_values(settings, "user-events")]
    return sorted(found, key=lambda one: int(one["id"]))


def stored_ids(settings: Settings) -> list[int]:
    return [one["id"] for one in stored(settings)]


@pytest.fixture
def worker(stack_settings: Settings, tmp_path: Path) -> Iterator[IngestProcess]:
    with ingest_workers(stack_settings, tmp_path) as [running]:
        yield running


def test_one_event_and_many_are_stored_before_the_answer(
    worker: IngestProcess, stack_settings: Settings
) -> None:
    one = worker.post(login(0))
    assert (one.status_code, one.headers["content-type"]) == (200, "application/json")
    many = worker.post([login(number) for number in range(1, 6)])
    lines = "\n".join(json.dumps(login(number)) for number in range(6, 9))
    ndjson = worker.post(data=lines + "\n\n", headers={"Content-Type": "application/x-ndjson"})
    answers = [answer.json() for answer in (one, many, ndjson)]
    assert [answer["accepted"] for answer in answers] == [1, 5, 3]
    places = [(at["partition"], at["offset"]) for answer in answers for at in answer["records"]]
    assert len(set(places)) == 9
    found = stored(stack_settings)
    assert [event["id"] for event in found] == list(range(9))
    assert found[0] == login(0) | {
        "user_email": Hasher().hash("0@example.com"),
        "timestamp": "2026-03-01T12:00:00.000Z",
    }


def test_a_request_with_a_key_is_stored_once_and_answered_the_same(
    worker: IngestProcess, stack_settings: Settings
) -> None:
    events = [login(number) for number in range(20)]
    first = worker.post(events, key="order-1")
    assert first.status_code == 200
    assert "idempotency-replayed" not in first.headers
    # Another spelling of the same events, and the key as the draft has it, in quotes.
    again = worker.post(
        data="\n".join(json.dumps(event, indent=None) for event in events),
        headers={"Content-Type": "application/x-ndjson", "Idempotency-Key": '"order-1"'},
    )
    assert (again.status_code, again.json()) == (200, first.json())
    assert again.headers["idempotency-replayed"] == "true"
    other = worker.post([login(99)], key="order-1")
    assert (other.status_code, other.headers["content-type"]) == (422, PROBLEM_TYPE)
    assert "use a new key" in other.json()["detail"]
    assert worker.post([login(20)], key="order-2").status_code == 200
    for bad in ("", "a b", '"', "k" * 256, "\u00e9"):
        headers: dict[str, Any] = {"Idempotency-Key": bad.encode()}
        assert worker.post(login(30), headers=headers).status_code == 400, bad
    assert stored_ids(stack_settings) == list(range(21))


def test_a_key_that_is_being_processed_is_asked_again(
    own_broker: BrokerService, settings: SettingsFactory, database_url: str, tmp_path: Path
) -> None:
    made = settings(KAFKA_BOOTSTRAP_SERVERS=own_broker.bootstrap, DATABASE_URL=database_url)
    with topics_of(made), ingest_workers(made, tmp_path, ("one", "two")) as [one, two]:
        assert one.post(login(0), key="warm").status_code == 200
        assert two.post(login(1), key="warm-2").status_code == 200
        with ThreadPoolExecutor(1) as pool:
            with stalled(own_broker.pid):
                first = pool.submit(one.post, login(2), key="k")
                query = "SELECT count(*) FROM ingest_batches WHERE NOT stored"
                wait_until(lambda: count(made, query) == 1, 20, "the claim")
                # At the worker that has it, and at another one, which asks the database.
                same, other = one.post(login(2), key="k"), two.post(login(2), key="k")
                assert [same.status_code, other.status_code] == [409, 409]
                assert same.headers["retry-after"] == other.headers["retry-after"] == "1"
                different = one.post(login(3), key="k"), two.post(login(3), key="k")
                assert [answer.status_code for answer in different] == [422, 422]
            assert first.result(60).status_code == 200
        for worker in (one, two):
            answer = worker.post(login(2), key="k")
            assert (answer.status_code, answer.json()) == (200, first.result().json())
        assert stored_ids(made) == [0, 1, 2]


def test_invalid_events_are_named_and_never_quoted(
    worker: IngestProcess, stack_settings: Settings
) -> None:
    events = [
        login(0),
        login(1, id="SECRET"),
        login(2) | {"SECRET": 1},
        login(3, user="SECRET@example.com"),
        login(4),
    ]
    answer = worker.post(events, key="k")
    assert (answer.status_code, answer.headers["content-type"]) == (422, PROBLEM_TYPE)
    problem = answer.json()
    assert (problem["title"], problem["status"], problem["invalid"]) == (
        "Unprocessable Entity", 422, 3,
    )  # fmt: skip
    assert [(one["index"], one["code"], one["pointer"]) for one in problem["errors"]] == [
        (1, "SCHEMA_VIOLATION", "#/id"),
        (2, "SCHEMA_VIOLATION", "#"),
        (3, "CLEAR_TEXT_PII", "#/user"),
    ]
    assert problem["errors"][0]["detail"] == "id: should be a valid integer"
    assert "SECRET" not in answer.text
    assert stored(stack_settings) == []
    # What was not accepted is not remembered.
    assert worker.post([login(0)], key="k").status_code == 200
    assert worker.metric("streamflow_records_rejected_total", code="CLEAR_TEXT_PII") == 1
    assert worker.metric("streamflow_ingest_requests_total", status="422") == 1


def test_requests_that_cannot_be_read_are_refused(stack_settings: Settings, tmp_path: Path) -> None:
    limits = {"STREAMFLOW_INGEST_MAX_BYTES": "2000", "STREAMFLOW_INGEST_MAX_EVENTS": "5"}
    with ingest_workers(stack_settings, tmp_path, **limits) as [worker]:
        json_type = {"Content-Type": "application/json"}
        gzipped = json_type | {"Content-Encoding": "gzip"}

        def refused(status: int, **options: Any) -> dict[str, Any]:
            answer = worker.post(**options)
            assert (answer.status_code, answer.headers["content-type"]) == (status, PROBLEM_TYPE)
            found: dict[str, Any] = answer.json()
            assert found["status"] == status
            return found

        assert refused(404, body=login(0), path="/v1/streams/other")["streams"] == ["user-events"]
        refused(404, body=login(0), path="/v2")
        refused(415, data="id=1", headers={"Content-Type": "application/x-www-form-urlencoded"})
        refused(415, data=json.dumps(login(0)))
        refused(415, data=b"x", headers=json_type | {"Content-Encoding": "br"})
        refused(400, data=b"", headers=json_type)
        refused(400, data=b"[", headers=json_type)
        refused(400, body=[])
        refused(400, data=b"no gzip", headers=gzipped)
        cut = gzip.compress(json.dumps(login(0)).encode())[:-4]
        refused(400, data=cut, headers=gzipped)
        refused(413, data=b"[" + b" " * 3000 + b"]", headers=json_type)
        refused(413, data=iter([b" " * 1500, b" " * 1500]), headers=json_type)
        refused(413, data=gzip.compress(b" " * 10_000_000), headers=gzipped)
        refused(413, body=[{}] * 6)
        assert requests.get(f"{worker.url}{URL}", timeout=10).headers["allow"] == "POST"
        assert requests.post(f"{worker.url}/docs", timeout=10).status_code == 405
        ok = worker.post(data=gzip.compress(json.dumps(login(0)).encode()), headers=gzipped)
        assert ok.status_code == 200
        chunked = worker.post(data=iter([json.dumps(login(1)).encode()]), headers=json_type)
        assert chunked.status_code == 200
        assert stored_ids(stack_settings) == [0, 1]


def test_the_token_and_the_name_of_the_host_are_asked_for(
    stack_settings: Settings, tmp_path: Path
) -> None:
    with ingest_workers(stack_settings, tmp_path, STREAMFLOW_INGEST_TOKEN="t0ken-é") as [worker]:
        wrong: list[dict[str, Any]] = [
            {}, {"Authorization": "Bearer other"}, {"Authorization": "Basic t0ken-é".encode()},
        ]  # fmt: skip
        for headers in wrong:
            answer = worker.post(login(0), headers=headers)
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
            unknown = worker.post(login(0), headers=headers, path="/v1/streams/other")
            assert unknown.status_code == 401
            assert "user-events" not in unknown.text
            for page in ("/docs", "/openapi.json"):
                assert (
                    requests.get(worker.url + page, headers=headers, timeout=10).status_code == 401
                )
        bearer: dict[str, Any] = {"Authorization": "Bearer t0ken-é".encode()}
        assert worker.post(login(0), headers=bearer).status_code == 200
        assert worker.post(login(0), headers=bearer | {"Host": "evil.example"}).status_code == 403
        assert (
            worker.post(login(0), headers=bearer | {"Origin": "http://evil.example"}).status_code
            == 403
        )
        assert requests.get(f"{worker.url}/docs", headers=bearer, timeout=10).status_code == 200
        assert "t0ken" not in worker.log.read_text()
        assert stored_ids(stack_settings) == [0]


def test_pages_tell_of_each_stream(worker: IngestProcess) -> None:
    document = requests.get(f"{worker.url}/openapi.json", timeout=10).json()
    assert list(document["paths"]) == [URL]
    schema = document["components"]["schemas"]["user-events"]
    assert set(schema["properties"]) == set(login(0))
    assert "pattern" not in schema["properties"]["user_email"]
    assert "hashed" in schema["properties"]["user_email"]["description"]
    assert schema["properties"]["id"]["minimum"] == 0
    page = requests.get(f"{worker.url}/docs", timeout=10)
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "<h2>user-events</h2>" in page.text
    assert "<script" not in page.text
    assert "//" not in re.sub(r"<pre>.*?</pre>", "", page.text, flags=re.DOTALL)
    assert (
        "streamflow_ingest_requests_total" in requests.get(f"{worker.url}/metrics", timeout=10).text
    )
    assert_guarded(int(worker.url.rpartition(":")[2]), "/health")


def test_cloud_events_are_kept_with_their_attributes(
    settings: SettingsFactory, database_url: str, tmp_path: Path
) -> None:
    made = settings(
        DATABASE_URL=database_url,
        STREAMFLOW_STREAMS="quick_windows:USER_EVENTS,ingesting:CLOUDS,ingesting:TICKETS",
    )
    attributes = {
        "specversion": "1.0", "id": "e-1", "source": "/shop", "type": "login",
        "subject": "ann@example.com", "sequence": 7,
    }  # fmt: skip
    binary = {f"ce-{name}": str(value) for name, value in attributes.items()} | {
        "Content-Type": "application/json"
    }
    structured = {"Content-Type": "application/cloudevents+json"}
    batch = {"Content-Type": "application/cloudevents-batch+json"}
    with topics_of(made), ingest_workers(made, tmp_path) as [worker]:
        for number, path in enumerate((URL, "/v1/streams/clouds")):

            def post(payload: Any, headers: dict[str, str], path: str = path) -> requests.Response:
                return worker.post(data=json.dumps(payload), headers=headers, path=path)

            events = [login(10 * number + each) for each in range(5)]
            encoded = base64.b64encode(json.dumps(events[4]).encode()).decode()
            answers = [
                post(events[0], binary),
                post(attributes | {"data": events[1]}, structured),
                post([attributes | {"data": event} for event in events[2:4]], batch),
                post(attributes | {"data_base64": encoded}, structured),
            ]
            assert [answer.status_code for answer in answers] == [200] * 4, answers[-1].text
            bad = post([attributes | {"data": events[0]}, {"id": "1", "data": events[1]}], batch)
            assert bad.status_code == 422
            [error] = bad.json()["errors"]
            assert (error["index"], error["code"]) == (1, "SCHEMA_VIOLATION")
        plain = worker.post(login(99), path="/v1/streams/clouds")
        assert plain.status_code == 422
        ticket = {"user_email": "none given", "timestamp": "2026-03-01T12:00:00Z"}
        assert post(attributes | {"data": ticket}, structured, "/v1/streams/tickets").ok
        # That field is private in other streams only.
        [record] = stored_records(made, "tickets")
        assert json.loads(record.value() or b"") == ticket
        for topic in ("user-events", "clouds"):
            records = stored_records(made, topic)
            assert len(records) == 5
            for record in records:
                headers = dict(record.headers() or [])
                assert headers["ce_id"] == b"e-1"
                assert headers["ce_sequence"] == b"7"
                assert headers["ce_subject"] == Hasher().hash("ann@example.com").encode()
                assert b"@" not in (record.value() or b"")
        # What the stream's workers will read.
        [clouds] = [stream for stream in load_streams(made) if stream.name == "clouds"]
        read = [clouds.read(record) for record in stored_records(made, "clouds")]
        assert {type(event) for event in read} == {CloudLogin}
        assert {event.subject for event in read} == {Hasher().hash("ann@example.com")}  # type: ignore[union-attr]


def test_records_belong_to_the_trace_of_their_request(
    worker: IngestProcess, stack_settings: Settings
) -> None:
    parent, key = f"00-{'a' * 32}-{'b' * 16}-01", token_hex(8)
    assert worker.post(
        login(1), key=key, headers={"traceparent": parent, "tracestate": "shop=1"}
    ).ok
    again = worker.post(login(1), key=key, headers={"traceparent": parent.replace("b", "c")})
    assert again.headers["idempotency-replayed"] == "true"
    [record] = stored_records(stack_settings, "user-events")
    assert record.headers() == [("traceparent", parent.encode()), ("tracestate", b"shop=1")]
    for wrong in ({"traceparent": "00-ann"}, {"tracestate": "shop=1"}):
        assert worker.post(login(2), headers=wrong).ok
    assert [one.headers() for one in stored_records(stack_settings, "user-events")].count(None) == 2


def test_more_than_the_queue_holds_is_refused_until_there_is_room(
    own_broker: BrokerService, settings: SettingsFactory, database_url: str, tmp_path: Path
) -> None:
    made = settings(KAFKA_BOOTSTRAP_SERVERS=own_broker.bootstrap, DATABASE_URL=database_url)
    limits = {"STREAMFLOW_INGEST_MAX_BYTES": "1024", "STREAMFLOW_INGEST_QUEUE_BYTES": "1024"}
    with topics_of(made), ingest_workers(made, tmp_path, **limits) as [worker]:
        assert worker.post(login(0)).status_code == 200
        with ThreadPoolExecutor(12) as pool:
            with stalled(own_broker.pid):
                sent = [
                    pool.submit(worker.post, login(number), key=f"k-{number}")
                    for number in range(1, 13)
                ]
                done = wait_until(lambda: [one for one in sent if one.done()], 20, "an answer")
                wait_until(lambda: worker.metric("streamflow_ingest_waiting_bytes") > 800, 20)
                assert {one.result().status_code for one in done} == {429}
                assert done[0].result().headers["retry-after"] == "1"
            answers = {number: one.result(60) for number, one in enumerate(sent, 1)}
        accepted = {number for number, one in answers.items() if one.status_code == 200}
        assert {one.status_code for one in answers.values()} == {200, 429}
        for number in range(1, 13):
            assert worker.post(login(number), key=f"k-{number}").status_code == 200
        assert accepted
        assert stored_ids(made) == list(range(13))
        assert worker.metric("streamflow_ingest_waiting_bytes") == 0


def test_without_an_answer_of_kafka_the_outcome_is_said_to_be_unknown(
    own_broker: BrokerService, settings: SettingsFactory, database_url: str, tmp_path: Path
) -> None:
    made = settings(KAFKA_BOOTSTRAP_SERVERS=own_broker.bootstrap, DATABASE_URL=database_url)
    short = {"STREAMFLOW_INGEST_TIMEOUT": "2"}
    with topics_of(made), ingest_workers(made, tmp_path, **short) as [worker]:
        assert worker.post(login(0)).status_code == 200
        with stalled(own_broker.pid), ThreadPoolExecutor(2) as pool:
            first = pool.submit(worker.post, login(1), key="k")
            query = "SELECT count(*) FROM ingest_batches WHERE NOT stored"
            wait_until(lambda: count(made, query) == 1, 20, "the claim")
            waiting = pool.submit(worker.post, login(2))
            unknown, nothing = first.result(30), waiting.result(30)
            assert [unknown.status_code, nothing.status_code] == [503, 503]
            assert unknown.json()["outcome"] == "unknown"
            assert "this key finds it out" in unknown.json()["detail"]
            assert nothing.json()["outcome"] == "not stored"
            assert nothing.headers["retry-after"] == "5"

        def retried() -> requests.Response | None:
            answer = worker.post(login(1), key="k")
            return answer if answer.status_code == 200 else None

        wait_until(retried, 60, "the retry to be answered")
        assert stored_ids(made) == [0, 1]
        assert requests.get(f"{worker.url}/ready", timeout=10).status_code == 200


def test_without_a_database_only_requests_with_a_key_wait(
    settings: SettingsFactory, tmp_path: Path
) -> None:
    made = settings(DATABASE_URL="postgresql://nobody@127.0.0.1:1/none")
    with topics_of(made), ingest_workers(made, tmp_path) as [worker]:
        answer = worker.post(login(0), key="k")
        assert (answer.status_code, answer.json()["outcome"]) == (503, "not stored")
        assert "nothing is stored: the database does not answer" in answer.json()["detail"]
        assert worker.post(login(1)).status_code == 200
        assert stored_ids(made) == [1]


def test_a_record_that_kafka_refuses_costs_no_other_request(
    settings: SettingsFactory, database_url: str, tmp_path: Path
) -> None:
    made = settings(DATABASE_URL=database_url)
    provision_topics(
        made, [TopicSpec(f"{made.prefix}user-events", 1, {"max.message.bytes": "2000"})]
    )
    try:
        with ingest_workers(made, tmp_path) as [worker]:

            def post(number: int) -> requests.Response:
                # Together more than the topic takes, and one of them by itself.
                user = token_hex(128)
                many = 20 if number == 3 else 1
                return worker.post(
                    [login(100 * number + each, user=user) for each in range(many)], key=str(number)
                )

            answers = at_once(8, post)
            assert [answer.status_code for answer in answers] == [
                503 if n == 3 else 200 for n in range(8)
            ]
            assert answers[3].json()["outcome"] == "not stored"
            assert stored_ids(made) == [100 * number for number in range(8) if number != 3]
            assert count(made, "SELECT count(*) FROM ingest_requests") == 7
    finally:
        delete_topics(made)


def test_sigterm_answers_what_is_in_hand(stack_settings: Settings, tmp_path: Path) -> None:
    with ingest_workers(stack_settings, tmp_path) as [worker], ThreadPoolExecutor(4) as pool:
        stop = threading.Event()

        def send(first: int) -> list[int]:
            accepted = []
            for number in itertools.count(first):
                with contextlib.suppress(requests.ConnectionError):
                    if worker.post(login(number)).status_code == 200:
                        accepted.append(number)
                if stop.is_set():
                    return accepted
            return accepted

        senders = [pool.submit(send, 100_000 * number) for number in range(4)]
        wait_until(lambda: len(stored_ids(stack_settings)) > 20, 30)
        began = time.monotonic()
        assert worker.stop() == 0
        assert time.monotonic() - began < 10
        stop.set()
        accepted = sorted(number for sender in senders for number in sender.result(30))
    assert stored_ids(stack_settings) == accepted


def test_the_audit_closes_over_what_came_by_http(stack_settings: Settings, tmp_path: Path) -> None:
    with ingest_workers(stack_settings, tmp_path) as [worker], workers(stack_settings, tmp_path):
        for first in range(0, 500, 50):
            events = [login(number) for number in range(first, first + 50)]
            assert worker.post(events, key=f"k-{first}").status_code == 200
            assert worker.post(events, key=f"k-{first}").status_code == 200
        report = audit(stack_settings)
    assert report.closed, report.problems[:5]
    assert count(stack_settings, "SELECT count(*) FROM events") == 500


def test_the_page_sends_what_it_shows(worker: IngestProcess, stack_settings: Settings) -> None:
    page = (Path(__file__).parents[2] / "docs/ingest.md").read_text()
    [one] = re.findall(r"-d '(\{.+?\})'", page)
    json_type = {"Content-Type": "application/json"}
    assert worker.post(data=one, headers=json_type).json()["accepted"] == 1
    [many] = re.findall(r"-d '(\[.+?\])'", page)
    answer = worker.post(data=many, headers=json_type)
    [shown] = re.findall(r'^\{"title".+?…\]\}', page, re.DOTALL | re.MULTILINE)
    problem = json.loads(shown.replace(", …", ""))
    found = answer.json()
    problem["errors"] += found["errors"][1:]
    assert (answer.status_code, found) == (422, problem)
    assert stored_ids(stack_settings) == [1]
