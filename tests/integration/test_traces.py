"""Traces from producer to row, dead letter, notification and replay, and the spans of batches, with real
workers and a receiver of OTLP."""

import base64
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from conftest import SettingsFactory
from faults import wait_until
from loads import Load, execute, rows, value
from pipeline import INVALID, audit, event, events, produce, streamflow, topics_of, workers
from receivers import SpanReceiver, attributes
from streamflow.declarations import problems
from streamflow.errors import ErrorCode
from streamflow.kafka import clients
from streamflow.kafka.producing import produce_and_flush
from streamflow.postgres.schema import upgrade
from streamflow.records import Headers, OutRecord
from streamflow.registry import load_streams
from streamflow.settings import Settings
from traced_streams import STREAMS
from upserts import CUSTOMERS, delete, put

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
REJECTED = "00-5bf92f3577b34da6a3ce929d0e0e4736-10f067aa0ba902b7-01"
STATE = "rojo=00f067aa0ba902b7"


@pytest.fixture
def traced(settings: SettingsFactory, database_url: str) -> Iterator[Settings]:
    """A stream whose rows keep traces; its table was made before it did."""
    made = settings(DATABASE_URL=database_url, STREAMFLOW_STREAMS=STREAMS)
    upgrade(made, load_streams(made))
    with topics_of(made):
        yield made


def send(settings: Settings, value: bytes, trace: str | None) -> None:
    headers: Headers = []
    if trace is not None:
        headers = [("traceparent", trace.encode()), ("tracestate", STATE.encode())]
    topic = f"{settings.prefix}user-events"
    produce_and_flush(clients.producer(settings), [OutRecord(topic, b"key", value, headers)])


def trace_of(span: Span) -> str:
    # Sampled, and its identifier is random.
    return f"00-{span.trace_id.hex()}-{span.span_id.hex()}-03"


def kept_headers(settings: Settings) -> list[dict[str, Any]]:
    """The headers of the dead letters."""
    return [
        {name: base64.b64decode(content).decode() for name, content in headers}
        for (headers,) in rows(settings, "SELECT headers FROM dead_letters")
    ]


def notification_headers(settings: Settings, count: int) -> list[dict[str, str]]:
    consumer = clients.assigned_consumer(settings, f"{settings.prefix}test")
    topic = f"{settings.prefix}notifications"
    consumer.assign([TopicPartition(topic, number, 0) for number in range(3)])
    found: list[dict[str, str]] = []

    def read() -> bool:
        message = consumer.poll(0.2)
        if message is not None and message.error() is None:
            headers = message.headers() or []
            found.append({name: (content or b"").decode("latin-1") for name, content in headers})
        return len(found) == count

    wait_until(read, 30, "the notifications")
    consumer.close()
    return found


def test_from_the_producer_to_the_row_the_dead_letter_and_its_replay(
    traced: Settings, tmp_path: Path
) -> None:
    send(traced, event(1), TRACE)
    send(traced, event(2), None)
    send(traced, INVALID[ErrorCode.CLEAR_TEXT_PII], REJECTED)
    with workers(traced, tmp_path) as running:
        wait_until(lambda: value(traced, "SELECT count(*) FROM dead_letters") == 1, 60)
        wait_until(lambda: value(traced, "SELECT count(*) FROM notifications") == 2, 60)
        assert rows(traced, "SELECT id, traceparent FROM events ORDER BY id") == [
            (1, TRACE),
            (2, None),
        ]
        [letter] = kept_headers(traced)
        assert (letter["traceparent"], letter["tracestate"]) == (REJECTED, STATE)
        with_trace, without = sorted(notification_headers(traced, 2), key=len, reverse=True)
        assert (with_trace["traceparent"], with_trace["tracestate"]) == (TRACE, STATE)
        assert "traceparent" not in without

        done = streamflow(traced, "dlq", "replay", "--repair", "hash_address", "--apply")

        assert done.returncode == 0, done.stdout + done.stderr
        query = "SELECT traceparent FROM events WHERE user_email IS NOT NULL AND \"user\" = 'u'"
        assert wait_until(lambda: rows(traced, query), 60) == [(REJECTED,)]
        report = audit(traced)
        assert report.closed, report.problems
        # Nobody asked for spans.
        assert all(worker.stop() == 0 for worker in running.values())


def test_the_latest_row_of_a_key_has_the_trace_of_its_change(database: Settings) -> None:
    """Also where the table was there before, and on the slow path."""
    upgrade(database, [CUSTOMERS])
    before = Load(database, [CUSTOMERS])
    before.load([put(0, 7, "ann"), put(1, 8, "bob")])
    before.sink.close()
    stream = replace(CUSTOMERS, trace=True)
    assert problems(stream, []) == []
    upgrade(database, [stream])
    after = Load(database, [stream])
    changes = [put(2, 7, "anna"), delete(3, 8), put(4, 9, "cat"), put(5, 9, "cate")]
    for change, trace in zip(changes, (TRACE, REJECTED, TRACE, None), strict=True):
        change._headers = None if trace is None else [("traceparent", trace.encode())]
    after.load(changes)
    kept = "SELECT name, traceparent FROM customers_changes ORDER BY origin_offset"
    traces = rows(database, kept)
    assert traces == [
        ("ann", None), ("bob", None), ("anna", TRACE), (None, REJECTED), ("cat", TRACE), ("cate", None),
    ]  # fmt: skip
    latest = "SELECT id, traceparent FROM customers ORDER BY id"
    assert rows(database, latest) == [(7, TRACE), (9, None)]
    # A loader that has lost its position stores them again: nothing changes.
    execute(database, "DELETE FROM loader_positions")
    after.load(changes)
    assert after.sink.counters.slow == 1
    assert rows(database, kept) == traces
    after.sink.close()


def test_a_span_for_each_batch_with_links_to_its_records(traced: Settings, tmp_path: Path) -> None:
    with SpanReceiver() as receiver:
        done = streamflow(
            traced, "produce", "--count", "3", "--seed", "1", "--rate", "100", **receiver.variables
        )
        assert done.returncode == 0, done.stderr
        send(traced, event(1), TRACE)
        send(traced, b"no event", REJECTED)
        topic = f"{traced.prefix}user-events"
        with workers(
            traced, tmp_path, ("validator", "analytics", "loader"), **receiver.variables
        ) as running:
            wait_until(lambda: value(traced, "SELECT count(*) FROM events") == 4, 60)
            wait_until(lambda: value(traced, "SELECT count(*) FROM dead_letters") == 1, 60)
            read = running["analytics"].metric
            wait_until(lambda: read("streamflow_records_in_total", topic=topic) == 5, 60)
            assert all(worker.stop() == 0 for worker in running.values())
        # What producers sent, whose trace is in the rows.
        sent = receiver.spans(f"send {topic}", "streamflow-producer")
        assert len(sent) == 3
        stored = {trace for (trace,) in rows(traced, "SELECT traceparent FROM events")}
        of_producer = {trace_of(span) for span in sent}
        assert stored == {TRACE, *of_producer}
        for name in ("validator", "analytics", "loader"):
            processed = receiver.spans(f"process {topic}", f"streamflow-{name}")
            # The loader may find notifications in the same batch, which have the same traces.
            processed += receiver.spans("process", f"streamflow-{name}")
            linked = {link.span_id.hex() for span in processed for link in span.links}
            expected = {trace.split("-")[2] for trace in {TRACE, REJECTED, *of_producer}}
            assert linked == expected, name
            count = sum(attributes(span)["messaging.batch.message_count"] for span in processed)
            assert count == 5 or (name == "loader" and count > 5)
            assert sum(attributes(span)["streamflow.rejected"] for span in processed) == 1
            for span in processed:
                found = attributes(span)
                assert span.kind == span.SPAN_KIND_CONSUMER
                assert found["messaging.system"] == "kafka"
                topics = {each.split("/")[0] for each in found["streamflow.partitions"]}
                assert (topics == {topic}) == (span.name == f"process {topic}")
                named = topic if topics == {topic} else None
                assert found.get("messaging.destination.name") == named
                assert found["messaging.consumer.group.name"] == traced.group(name)
                assert found["streamflow.outcome"] == "committed"
            commits = receiver.spans("commit", f"streamflow-{name}")
            parents = {span.parent_span_id for span in commits}
            assert {span.span_id for span in processed} <= parents


def test_the_records_of_a_file_belong_to_the_trace_of_their_transaction(
    traced: Settings, tmp_path: Path
) -> None:
    lines = tmp_path / "events.ndjson"
    lines.write_bytes(b"\n".join(event(number) for number in range(5)) + b"\n")
    with SpanReceiver() as receiver:
        done = streamflow(traced, "produce", "--from", str(lines), "--json", **receiver.variables)
        assert done.returncode == 0, done.stderr
        [span] = receiver.spans(f"send {traced.prefix}user-events")
    assert attributes(span)["messaging.batch.message_count"] == 5
    with workers(traced, tmp_path, ("loader",)):
        wait_until(lambda: value(traced, "SELECT count(*) FROM events") == 5, 60)
    assert rows(traced, "SELECT DISTINCT traceparent FROM events") == [(trace_of(span),)]


@pytest.mark.parametrize("fault", ["hangs", "gone"])
def test_a_receiver_that_does_not_answer_costs_a_line_of_the_log(
    traced: Settings, tmp_path: Path, fault: str
) -> None:
    values, codes = events(2_000, invalid=0.01)
    produce(traced, "user-events", values)
    with SpanReceiver(hangs=True) as receiver:
        changes = receiver.variables
        if fault == "gone":
            receiver._server.server_close()
            changes["OTEL_EXPORTER_OTLP_TIMEOUT"] = "1"
        with workers(traced, tmp_path, ("validator", "loader"), **changes) as running:
            good = len(values) - codes.total()
            wait_until(lambda: value(traced, "SELECT count(*) FROM events") == good, 60)
            wait_until(lambda: value(traced, "SELECT count(*) FROM notifications") == good, 60)
            if fault == "gone":
                loader = running["loader"]
                wait_until(lambda: loader.said("traces are not sent"), 30)
            else:
                assert receiver.asked.wait(30)
            assert all(worker.stop() == 0 for worker in running.values())
    for worker in running.values():
        assert worker.log.read_text().count("traces are not sent") <= 1
        assert "Traceback" not in worker.log.read_text()
