"""`Producer` and `AsyncProducer` against a real broker."""

import asyncio
import json
import os
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from secrets import token_hex
from typing import Any

import pandas as pd
import pytest
from confluent_kafka import KafkaError

from conftest import SettingsFactory
from faults import stalled, wait_until
from order_streams import FOREIGN
from pipeline import NOON, audit, delete_topics, event, produce, stored_values, topics_of, workers
from services import BrokerService
from streamflow import (
    AsyncProducer,
    CloudEvents,
    ConfigurationError,
    DeliveryFailed,
    InvalidEvent,
    Origin,
    Producer,
    Stream,
    Topics,
    Unavailable,
    UsageError,
)
from streamflow.kafka.topics import provision_topics
from streamflow.privacy import Hasher
from streamflow.producer.lines import LineReader
from streamflow.producer.outbox import Outbox, _failure
from streamflow.records import Rejection
from streamflow.settings import Settings
from streamflow.stream_topics import TopicSpec
from streamflow.streams.user_events import USER_EVENTS, UserEvent
from streaming_workers.producer.file import FileRun
from streaming_workers.producer.source import open_source

pytestmark = pytest.mark.integration


def login(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "id": number,
        "type": "USER_LOGIN",
        "user": f"user-{number % 7}",
        "user_email": f"{number}@example.com",
        "timestamp": NOON,
    } | changes


def stored(settings: Settings) -> list[dict[str, Any]]:
    found = [json.loads(value or b"") for value in stored_values(settings, "user-events")]
    return sorted(found, key=lambda one: int(one["id"]))


@pytest.fixture
def topics(settings: SettingsFactory) -> Iterator[Settings]:
    made = settings()
    with topics_of(made):
        yield made


def test_events_are_sent_hashed_and_found_where_the_delivery_says(topics: Settings) -> None:
    with Producer(USER_EVENTS, topics) as producer:
        first = producer.send(login(0))
        second = producer.send(UserEvent(id=1, type="USER_LOGIN", user="user-1", timestamp=NOON))
        many = producer.send_many(login(number) for number in range(2, 10))
        frame = pd.DataFrame([login(number) for number in range(10, 20)])
        rows = producer.send_frame(frame)
        places = [one.result(30) for one in (first, second, *many, *rows)]
    assert {type(place) for place in places} == {Origin}
    assert len(set(places)) == 20
    assert {place.topic for place in places} == {topics.prefix + "user-events"}
    found = stored(topics)
    assert [one["id"] for one in found] == list(range(20))
    expected = {
        "id": 0, "type": "USER_LOGIN", "user": "user-0", "timestamp": "2026-03-01T12:00:00.000Z",
        "user_email": Hasher().hash("0@example.com"),
    }  # fmt: skip
    assert found[0] == expected
    assert "user_email" not in found[1]


def test_a_key_has_the_partition_that_other_producers_give_it(topics: Settings) -> None:
    with Producer("user-events", topics) as producer:
        sent = [producer.send(login(0, user=f"key-{number}")) for number in range(20)]
        mine = [delivery.result(30).partition for delivery in sent]
    from streamflow.kafka.clients import producer as other

    client, theirs = other(topics), dict[int, int]()
    for number in range(20):
        client.produce(
            topics.prefix + "user-events",
            event(number),
            f"key-{number}",
            on_delivery=lambda _, message, at=number: theirs.update({at: message.partition()}),
        )
    assert client.flush(30) == 0
    assert mine == [theirs[number] for number in range(20)]
    assert len(set(mine)) == 3


def test_of_invalid_events_nothing_is_sent(topics: Settings) -> None:
    with Producer(USER_EVENTS, topics) as producer:
        with pytest.raises(InvalidEvent, match="event 0: UNKNOWN_TYPE: type"):
            producer.send(login(0, type="USER_FLEW"))
        with pytest.raises(InvalidEvent, match="event 2: SCHEMA_VIOLATION: id"):
            producer.send_many([login(0), login(1), login(-2), login(3)])
        producer.send(login(4))
    assert [one["id"] for one in stored(topics)] == [4]


def test_threads_share_a_producer(topics: Settings) -> None:
    with Producer(USER_EVENTS, topics) as producer:

        def send(first: int) -> None:
            for number in range(first, first + 300):
                producer.send(login(number))

        with ThreadPoolExecutor(4) as pool:
            for done in [pool.submit(send, first) for first in range(0, 1200, 300)]:
                done.result(60)
        producer.flush(30)
        assert [one["id"] for one in stored(topics)] == list(range(1200))


def test_a_closed_producer_takes_nothing_and_closes_once(topics: Settings) -> None:
    producer = Producer(USER_EVENTS, topics)
    before = threading.active_count()
    producer.send(login(0))
    producer.close()
    producer.close()
    assert threading.active_count() == before - 1
    with pytest.raises(UsageError, match="closed"):
        producer.send(login(1))
    assert len(stored(topics)) == 1


def test_nothing_is_taken_once_a_producer_is_being_closed(
    topics: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came between the flush and the end had a delivery that was never done."""
    flush = Outbox.flush
    producer = Producer(USER_EVENTS, topics)

    def flush_and_send(outbox: Outbox, timeout: float | None = None) -> None:
        flush(outbox, timeout)
        with pytest.raises(UsageError, match="closed"):
            producer.send(login(1))

    monkeypatch.setattr(Outbox, "flush", flush_and_send)
    sent = producer.send(login(0))
    producer.close()
    assert sent.done()
    assert len(stored(topics)) == 1


def test_a_record_that_the_broker_refuses_is_a_failed_delivery(settings: SettingsFactory) -> None:
    made = settings()
    topic = TopicSpec(made.prefix + "user-events", 1, {"max.message.bytes": "300"})
    provision_topics(made, [topic])
    try:
        # Its declaration says more than the topic takes.
        producer = Producer(USER_EVENTS, made)
        lost = producer.send(login(0, user=token_hex(128)))
        with pytest.raises(DeliveryFailed, match="it is not in the topic"):
            lost.result(30)
        producer.send(login(1, user="u")).result(30)
        with pytest.raises(DeliveryFailed, match="has not stored 1 event: ") as raised:
            producer.close()
        assert not raised.value.may_be_stored
    finally:
        delete_topics(made)


@pytest.fixture
def narrow(settings: SettingsFactory) -> Iterator[tuple[Stream, Settings]]:
    """A stream whose topic takes 5,000 bytes: many records, and no large batch."""
    made = settings()
    stream = replace(USER_EVENTS, topics=Topics(partitions=1, max_record_bytes=5_000))
    limit = {"max.message.bytes": "5000"}
    provision_topics(made, [TopicSpec(made.prefix + "user-events", 1, limit)])
    yield stream, made
    delete_topics(made)


def test_batches_are_no_larger_than_the_topic_takes(narrow: tuple[Stream, Settings]) -> None:
    stream, made = narrow
    with Producer(stream, made) as producer:
        producer.send_many(login(number, user=token_hex(64)) for number in range(1_000))
    assert len(stored(made)) == 1_000


def test_a_file_is_sent_in_such_batches(narrow: tuple[Stream, Settings], tmp_path: Path) -> None:
    stream, made = narrow
    stream = stream.prefixed(made.prefix)
    path = tmp_path / "events"
    os.mkfifo(path)
    source = open_source(str(path), stream)
    long = [event(1_001)[:-1] + b',"more":"' + token_hex(5_000).encode() + b'"}']
    lines = [
        json.dumps(json.loads(event(number)) | {"user": token_hex(64)}).encode()
        for number in range(1_000)
    ] + long
    writer = threading.Thread(target=path.write_bytes, args=[b"\n".join(lines)])
    writer.start()
    faults: dict[int, Rejection] = {}
    reader = LineReader(stream, Hasher(private_fields=stream.decoder.private_fields))
    sent = FileRun(made, stream, reader, source, "send", faults.__setitem__).run(
        threading.Event(), resume=False
    )
    writer.join()
    assert (sent.records, sent.skipped, [*faults]) == (1_000, 1, [1_001])
    assert faults[1_001].message == "longer than the topic's largest record"
    assert len(stored(made)) == 1_000


def test_only_what_the_broker_refuses_is_known_to_be_lost() -> None:
    codes = (KafkaError._FATAL, KafkaError._TRANSPORT, KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER)
    assert all(_failure(KafkaError(code)).may_be_stored for code in codes)
    assert not _failure(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)).may_be_stored


def test_what_is_not_acknowledged_in_time_may_be_stored(
    own_broker: BrokerService, settings: SettingsFactory
) -> None:
    made = settings(KAFKA_BOOTSTRAP_SERVERS=own_broker.bootstrap)
    with topics_of(made):
        producer = Producer(USER_EVENTS, made, timeout=2, queue=10)
        producer.send(login(0)).result(30)
        with stalled(own_broker.pid):
            deliveries = [producer.send(login(number)) for number in range(1, 11)]
            with pytest.raises(Unavailable, match=r"10 events within 0\.2 s: flush again"):
                producer.flush(0.2)
            with pytest.raises(DeliveryFailed, match="it may be in the topic") as raised:
                deliveries[0].result(30)
            assert raised.value.may_be_stored
            with pytest.raises(DeliveryFailed, match="has not stored 10 events"):
                producer.flush()
            producer.flush()
        producer.close()
        found = {one["id"] for one in stored(made)}
        assert 0 in found
        assert found <= set(range(11))


def test_whoever_sends_too_fast_waits_and_is_told_in_the_end(
    own_broker: BrokerService, settings: SettingsFactory
) -> None:
    made = settings(KAFKA_BOOTSTRAP_SERVERS=own_broker.bootstrap)
    with topics_of(made):
        producer = Producer(USER_EVENTS, made, timeout=20, queue=5)
        producer.send(login(0)).result(30)
        with ThreadPoolExecutor(1) as pool:
            with stalled(own_broker.pid):
                # Linger keeps none of them out of the queue.
                sent = [producer.send(login(number)) for number in range(1, 6)]
                waiting = pool.submit(producer.send, login(6))
                assert not any(one.done() for one in (*sent, waiting))
            # There is room again: nothing is lost.
            waiting.result(30).result(30)
        producer.close()
        assert {one["id"] for one in stored(made)} == set(range(7))
        producer = Producer(USER_EVENTS, made, timeout=4, queue=5)
        with stalled(own_broker.pid):
            sent = [producer.send(login(number)) for number in range(5)]
            with pytest.raises(Unavailable, match=r"took no record for 0\.2 s"):
                producer.send(login(5), timeout=0.2)
            assert not any(one.done() for one in sent)
        producer.close()
        assert len(stored(made)) == 7 + 5


def test_without_broker_or_topic_no_producer_is_made(settings: SettingsFactory) -> None:
    with pytest.raises(Unavailable, match=r"does not exist: run `streamflow init`"):
        Producer(USER_EVENTS, settings())
    with pytest.raises(Unavailable):
        Producer(USER_EVENTS, settings(KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1"))


def test_a_stream_that_cannot_be_sent_to_is_refused(settings: SettingsFactory) -> None:
    made = settings()
    with pytest.raises(
        UsageError, match=r"no stream is called user-event: did you mean user-events"
    ):
        Producer("user-event", made)
    with pytest.raises(UsageError, match=r"another owner.*not_ours=True"):
        Producer(FOREIGN, made)
    cloud = Stream(
        name="clouds", contract=UserEvent, table="clouds", key="user", decode=CloudEvents()
    )
    with pytest.raises(UsageError, match="another format"):
        Producer(cloud, made)
    with pytest.raises(ConfigurationError, match=r"stream clouds: .*key"):
        Producer(Stream(name="clouds", contract=UserEvent, table="clouds", key="usr"), made)


def test_asyncio_sends_the_same(topics: Settings) -> None:
    async def run() -> list[Origin]:
        async with AsyncProducer(USER_EVENTS, topics) as producer:
            first = await producer.send(login(0))
            await first
            many = await producer.send_many([login(number) for number in range(1, 5)])
            rows = await producer.send_frame(
                pd.DataFrame([login(number) for number in range(5, 9)])
            )
            with pytest.raises(InvalidEvent):
                await producer.send(login(-1))
            with pytest.raises(InvalidEvent):
                await producer.send_many([login(9), login(-1)])
            await producer.flush(30)
            return await asyncio.gather(first, *many, *rows)

    places = asyncio.run(run())
    assert len(set(places)) == 9
    assert [one["id"] for one in stored(topics)] == list(range(9))


def test_the_event_loop_goes_on_while_a_full_queue_waits(
    own_broker: BrokerService, settings: SettingsFactory
) -> None:
    made = settings(KAFKA_BOOTSTRAP_SERVERS=own_broker.bootstrap)

    async def run() -> None:
        async with AsyncProducer(USER_EVENTS, made, timeout=20, queue=5) as producer:
            await (await producer.send(login(0)))
            with stalled(own_broker.pid):
                sent = [await producer.send(login(number)) for number in range(1, 6)]
                waiting = asyncio.create_task(producer.send(login(6)))
                began = time.monotonic()
                for _ in range(50):
                    await asyncio.sleep(0.005)
                # The longest turn of a thread that waits for room is 0.1 s.
                assert time.monotonic() - began < 5
                assert not waiting.done()
                assert not any(one.done() for one in sent)
            await asyncio.gather(*sent, await waiting)

    with topics_of(made):
        asyncio.run(run())
        assert {one["id"] for one in stored(made)} == set(range(7))


def test_an_async_producer_must_be_entered(settings: SettingsFactory) -> None:
    async def run() -> None:
        producer = AsyncProducer(USER_EVENTS, settings())
        await producer.close()
        with pytest.raises(UsageError, match="async with"):
            await producer.send(login(0))
        with pytest.raises(Unavailable, match="does not exist"):
            async with producer:
                pass

    asyncio.run(run())


def test_the_audit_closes_over_what_was_sent(stack_settings: Settings, tmp_path: Path) -> None:
    produce(stack_settings, "user-events", [event(1_000_000)])
    with workers(stack_settings, tmp_path), Producer(USER_EVENTS, stack_settings) as producer:
        producer.send_many(login(number) for number in range(500))
        producer.flush(30)
        found = wait_until(
            lambda: report if (report := audit(stack_settings)).verdict == "closed" else None, 90
        )
    assert found.verdict == "closed"


def test_the_page_does_what_it_says(
    topics: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", topics.bootstrap)
    monkeypatch.setenv("STREAMFLOW_PREFIX", topics.prefix)
    page = (Path(__file__).parents[2] / "docs/producing.md").read_text()
    names: dict[str, Any] = {"__name__": "page"}
    for block in re.findall(r"```python\n(.+?)```", page, re.DOTALL):
        exec(block, names)  # noqa: S102
    said = capsys.readouterr().out
    assert "SCHEMA_VIOLATION ('id: should be a valid integer',)" in said
    ids = [one["id"] for one in stored(topics)]
    assert ids == sorted([1, 2, *range(100), 10, 11, 2, 10, 11])
