"""The bridge with real clients: what they get, ask for, miss, and are refused."""

import asyncio
import itertools
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
import psutil
import pytest
import requests
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

import window_parts
from faults import assert_on_loopback_only, stalled, wait_until
from listeners import (
    BridgeProcess,
    Listener,
    Poller,
    bridge_process,
    listening,
    next_event,
    raw_client,
    refusal,
)
from pipeline import INVALID, event, produce, topics_of
from services import BrokerService
from streamflow.contract import format_time
from streamflow.errors import ErrorCode
from streamflow.kafka.clients import producer
from streamflow.kafka.topics import provision_topics
from streamflow.lag.measure import group_lags
from streamflow.origins import SECURITY_HEADERS
from streamflow.registry import load_streams
from streamflow.settings import Settings

pytestmark = pytest.mark.integration

TOPICS = ["analytics", "dead-letter-topic", "notifications", "user-events"]
TOKEN = "a token of the tests"
NUMBERS = itertools.count(1)


def _settings(broker: BrokerService, prefix: str, directory: Path) -> Iterator[Settings]:
    made = Settings(
        KAFKA_BOOTSTRAP_SERVERS=broker.bootstrap,
        # The bridge needs no database.
        DATABASE_URL="postgresql://nobody@127.0.0.1:1/none",
        STREAMFLOW_PREFIX=prefix,
        STREAMFLOW_STATE_DIR=directory,
    )
    with topics_of(made):
        yield made


@pytest.fixture(scope="module")
def shared(broker: BrokerService, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    yield from _settings(broker, "bridge-shared.", tmp_path_factory.mktemp("bridge"))


@pytest.fixture(scope="module")
def bridge(shared: Settings) -> Iterator[BridgeProcess]:
    """The module's bridge. Tests tell their events apart by their user."""
    shared.state_dir.mkdir(exist_ok=True)
    with bridge_process(shared, shared.state_dir / "bridge.log") as running:
        yield running


@pytest.fixture
def own(broker: BrokerService, prefix: str, tmp_path: Path) -> Iterator[Settings]:
    """Topics of this test's own."""
    yield from _settings(broker, prefix, tmp_path / "state")


@pytest.fixture
def user() -> str:
    return f"user of test {next(NUMBERS)}"


def of(user: str, number: int = 1, kind: str = "USER_LOGIN") -> bytes:
    return orjson.dumps({**orjson.loads(event(number, kind=kind)), "user": user})


def test_every_record_of_the_four_topics_comes(
    shared: Settings, bridge: BridgeProcess, user: str
) -> None:
    notification = {"message": f"User {user} logged in", "user": user}
    # JSON knows no largest integer.
    count = {"event_type": "USER_LOGIN", "count": 12345678901234567890123, "user": user}
    broken = b'{"id": 1, "user_email": "ann@example.com"'

    async def scenario() -> list[dict[str, Any]]:
        async with Listener(bridge.url) as listener:
            produce(shared, "user-events", [of(user), INVALID[ErrorCode.CLEAR_TEXT_PII]])
            produce(shared, "notifications", [orjson.dumps(notification)])
            produce(shared, "analytics", [json.dumps(count).encode()])
            produce(shared, "dead-letter-topic", [broken, None, b"\xff\xfe"])
            return await listener.receives(7)

    found = asyncio.run(scenario())
    assert all(set(each) == {"topic", "payload", "timestamp"} for each in found)
    by_topic = {topic: [e["payload"] for e in found if e["topic"] == topic] for topic in TOPICS}
    assert orjson.loads(of(user)) in by_topic["user-events"]
    assert by_topic["notifications"] == [notification]
    assert by_topic["analytics"] == [count]
    assert len(by_topic["dead-letter-topic"]) == 3
    assert "\ufffd\ufffd" in by_topic["dead-letter-topic"]
    assert None in by_topic["dead-letter-topic"]
    assert "ann@example.com" not in json.dumps(found)
    for each in found:
        assert format_time(datetime.fromisoformat(each["timestamp"])) == each["timestamp"]
        assert abs(datetime.fromisoformat(each["timestamp"]).timestamp() - time.time()) < 60


def test_topics_types_and_users_can_be_chosen(
    shared: Settings, bridge: BridgeProcess, user: str
) -> None:
    async def scenario() -> None:
        async with (
            Listener(bridge.url, {"topics": ["notifications"], "users": [user]}) as one,
            Listener(bridge.url, {"users": user, "types": ["USER_LOGOUT"]}) as two,
            Listener(bridge.url, {"topics": []}) as nothing,
            Listener(bridge.url, {"users": user}) as all_,
        ):
            kinds = ("USER_LOGIN", "USER_LOGOUT", "USER_SIGNUP")
            produce(shared, "user-events", [of(user, n, kind) for n, kind in enumerate(kinds)])
            await all_.receives(3)
            produce(shared, "notifications", [orjson.dumps({"user": user, "message": "m"})])
            await one.receives(1)
            await all_.receives(4)
            await two.receives(1)
            assert {each["topic"] for each in one.events} == {"notifications"}
            assert [each["type"] for each in two.payloads] == ["USER_LOGOUT"]
            assert nothing.events == []

            # A subscription replaces the one before.
            answer = await one.call("subscribe", {"topics": "user-events", "type": "USER_SIGNUP"})
            assert answer == {
                "ok": True,
                "topics": ["user-events"],
                "types": ["USER_SIGNUP"],
                "users": None,
                "windows": None,
            }
            produce(shared, "user-events", [of(user, 9, kind) for kind in kinds])
            await one.receives(2)
            assert one.payloads[1]["type"] == "USER_SIGNUP"
            assert (await nothing.call("subscribe"))["topics"] == TOPICS

    asyncio.run(scenario())


def test_windows_with_aggregates_can_be_chosen(
    broker: BrokerService, prefix: str, tmp_path: Path
) -> None:
    made = Settings(
        KAFKA_BOOTSTRAP_SERVERS=broker.bootstrap,
        DATABASE_URL="postgresql://nobody@127.0.0.1:1/none",
        STREAMFLOW_PREFIX=prefix,
        STREAMFLOW_STATE_DIR=tmp_path / "state",
        STREAMFLOW_STREAMS="streamflow.streams.user_events:USER_EVENTS,window_parts:ORDERS",
    )
    placed = window_parts.orders(60)
    parts = [
        orjson.dumps(part)
        for name in (window_parts.TUMBLING, window_parts.HOPPING)
        for part in window_parts.parts_of(placed, name)
    ]
    count = {"event_type": "USER_LOGIN", "count": 3}

    async def scenario(running: BridgeProcess) -> None:
        async with (
            Listener(running.url, {"windows": ["orders_10s"]}) as tumbling,
            Listener(running.url, {"window": "window_counts"}) as counts,
            Listener(running.url, {"windows": "orders_10s", "types": ["DE", "(null)"]}) as german,
            Listener(running.url) as all_,
        ):
            produce(made, "o-analytics", parts)
            produce(made, "analytics", [orjson.dumps(count)])
            produce(made, "orders", [orjson.dumps({"window": "orders_10s"})])
            await all_.receives(len(parts) + 2)
            wanted = [one for one in map(orjson.loads, parts) if one["window"] == "orders_10s"]
            by_text = sorted(wanted, key=orjson.dumps)
            await tumbling.receives(len(wanted))
            # All of it, hashes of sketches with all their digits.
            assert sorted(tumbling.payloads, key=orjson.dumps) == by_text
            await counts.receives(1)
            assert counts.payloads == [count]
            of_group = [one for one in by_text if one["by"]["country"] in ("DE", None)]
            await german.receives(len(of_group))
            assert 0 < len(of_group) < len(wanted)
            assert sorted(german.payloads, key=orjson.dumps) == of_group

            answer = await tumbling.call("subscribe", {"windows": ["orders_5min_by_1min"]})
            assert (answer["ok"], answer["windows"]) == (True, ["orders_5min_by_1min"])
            answer = await tumbling.call("subscribe", {"windows": "order_10s"})
            assert answer["ok"] is False
            assert "no windows 'order_10s' (did you mean orders_10s?)" in answer["error"]
            produce(made, "o-analytics", parts)
            await tumbling.receives(len(parts))
            assert tumbling.payloads[-1]["window"] == "orders_5min_by_1min"
        assert "did you mean" in await refusal(running.url, {"windows": "orders_11s"})

    with (
        topics_of(made),
        bridge_process(
            made, tmp_path / "bridge.log", STREAMFLOW_STREAMS=",".join(made.streams)
        ) as running,
    ):
        asyncio.run(scenario(running))


def test_a_wrong_wish_is_told_and_changes_nothing(
    shared: Settings, bridge: BridgeProcess, user: str
) -> None:
    async def scenario() -> None:
        async with Listener(bridge.url, {"users": user}) as listener:
            answer = await listener.call("subscribe", {"topics": ["user_events"]})
            assert answer["ok"] is False
            assert answer["error"].startswith(
                "there is no topic 'user_events': topics are analytics"
            )
            await listener.client.emit("last", "many")
            await listener.until(lambda: len(listener.errors) == 2)
            assert listener.errors[0] == answer["error"]
            assert "last takes a number" in listener.errors[1]
            produce(shared, "user-events", [of(user)])
            await listener.receives(1)
        assert "there is no topic 'nothing'" in await refusal(bridge.url, {"topics": "nothing"})
        assert "last takes a number" in await refusal(bridge.url, {"last": -1})

    asyncio.run(scenario())


def test_the_last_records_come_first_without_gap_or_double(
    shared: Settings, bridge: BridgeProcess, user: str
) -> None:
    async def scenario() -> None:
        wish = {"topics": "user-events", "users": user}
        async with Listener(bridge.url, wish) as first:
            produce(shared, "user-events", [of(user, n) for n in range(20)])
            await first.receives(20)
            stop = threading.Event()
            sent: list[int] = []

            def go_on() -> None:
                for number in itertools.count(20):
                    if stop.is_set():
                        return
                    produce(shared, "user-events", [of(user, number)])
                    sent.append(number)

            thread = threading.Thread(target=go_on)
            thread.start()
            try:
                async with Listener(bridge.url, {**wish, "last": 1_000}) as late:
                    await late.receives(30)
                    stop.set()
                    await asyncio.to_thread(thread.join)
                    await late.receives(20 + len(sent))
                    numbers = [each["id"] for each in late.payloads]
                    assert sorted(numbers) == list(range(20 + len(sent)))
                    # Asked for again, by event and by query.
                    assert (await late.call("last", 5))["count"] == 5
                    await late.receives(20 + len(sent) + 5)
            finally:
                stop.set()
                thread.join()
            times = [each["timestamp"] for each in late.events[-5:]]
            assert times == sorted(times)
        async with Listener(f"{bridge.url}?last=7", wish) as third:
            await third.receives(7)

    asyncio.run(scenario())


def test_everything_comes_in_order(shared: Settings, bridge: BridgeProcess, user: str) -> None:
    async def scenario() -> list[int]:
        async with Listener(bridge.url, {"users": user}) as listener:
            produce(shared, "user-events", [of(user, n) for n in range(2_000)])
            await listener.receives(2_000)
            assert listener.client.transport() == "websocket"
            return [each["id"] for each in listener.payloads]

    numbers = asyncio.run(scenario())
    assert sorted(numbers) == list(range(2_000))
    # Of one key, so of one partition: in order.
    assert [number for number in numbers if number % 997 == 1] == [1, 998, 1_995]


def test_polling_gets_everything_in_answers_that_every_client_accepts(
    shared: Settings, bridge: BridgeProcess, user: str
) -> None:
    client = Poller(bridge.url, {"users": user})
    assert client.poll()[0].startswith("40")
    produce(shared, "user-events", [of(user, n) for n in range(500)])
    numbers: list[int] = []
    while len(numbers) < 500:
        packets = client.poll()
        # python-socketio's limit.
        assert len(packets) <= 16
        events = [json.loads(each[2:])[1] for each in packets if each.startswith("42")]
        numbers += [each["payload"]["id"] for each in events]
    client.close()
    assert sorted(numbers) == list(range(500))


def test_health_and_metrics(bridge: BridgeProcess) -> None:
    assert bridge.ask("/health")[0] == 200
    assert "Kafka: ready" in bridge.ask("/health")[1]
    assert bridge.ask("/ready") == (200, "ready\n")
    assert bridge.ask("/nothing")[0] == 404
    status, text = bridge.ask("/metrics")
    assert status == 200
    for name in ("streamflow_bridge_clients", "streamflow_end_to_end_seconds_count"):
        assert name in text


def test_a_name_rebound_to_this_machine_reads_nothing(bridge: BridgeProcess) -> None:
    evil = f"evil.example:{bridge.port}"
    for path in ("/health", "/ready", "/metrics", "/socket.io/?EIO=4&transport=polling"):
        answer = requests.get(bridge.url + path, headers={"Host": evil}, timeout=10)
        assert answer.status_code == 403
        assert "STREAMFLOW_BRIDGE_HOSTS" in answer.text
        for host in ("10.1.2.3:3001", "bridge:3001", f"localhost:{bridge.port}"):
            assert requests.get(bridge.url + path, headers={"Host": host}, timeout=10).ok


def test_its_lag_is_shown(shared: Settings, bridge: BridgeProcess, user: str) -> None:
    produce(shared, "user-events", [of(user)] * 50)
    wait_until(
        lambda: group_lags(shared, load_streams(shared))["websocket-bridge"] == 0, 20, "no lag"
    )
    assert bridge.metric("streamflow_records_in_total") >= 50


def test_two_bridges_both_see_everything(
    shared: Settings, bridge: BridgeProcess, user: str, tmp_path: Path
) -> None:
    async def scenario(second: BridgeProcess) -> None:
        async with Listener(bridge.url, {"users": user}) as one, Listener(second.url) as two:
            two_before = len(two.events)
            produce(shared, "user-events", [of(user, n) for n in range(300)])
            await one.receives(300)
            await two.receives(two_before + 300)

    with bridge_process(shared, tmp_path / "second.log") as second:
        asyncio.run(scenario(second))


def test_one_stalled_client_of_ten_costs_the_others_nothing(own: Settings, tmp_path: Path) -> None:
    # More than the buffers of both ends of a connection hold.
    total = 4_000
    values = [orjson.dumps({"number": n, "message": "m" * 5_000}) for n in range(total)]

    async def scenario(running: BridgeProcess) -> list[Listener]:
        async with (
            Listener(running.url) as a,
            Listener(running.url) as b,
            Listener(running.url) as c,
            Listener(running.url) as d,
            Listener(running.url) as e,
            Listener(running.url) as f,
            Listener(running.url) as g,
            Listener(running.url) as h,
            Listener(running.url) as i,
        ):
            quick = [a, b, c, d, e, f, g, h, i]
            for start in range(0, total, 400):
                produce(own, "notifications", values[start : start + 400])
                for each in quick:
                    await each.receives(start + 400)
            return quick

    with (
        bridge_process(own, tmp_path / "bridge.log", STREAMFLOW_BRIDGE_QUEUE="500") as running,
        raw_client(running.port) as slow,
    ):
        slow.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        quick = asyncio.run(scenario(running))
        assert all(len(each.events) == total and not each.missed for each in quick)
        told = running.metric("streamflow_bridge_missed_total")
        # It reads again: what is left comes, with one word for each gap.
        received = missed = 0
        while received + missed < total:
            name, body = next_event(slow)
            received += name == "kafka-event"
            if name == "kafka-event-dropped":
                missed += body["missed"]
                assert body["total"] == missed
        assert received + missed == total
        assert told <= missed
        assert missed > 500
        assert running.metric("streamflow_bridge_missed_total") == missed
        assert running.metric("process_resident_memory_bytes") < 300e6


def test_a_client_that_reads_keeps_up_with_any_backlog(own: Settings, tmp_path: Path) -> None:
    total = 20_000
    log = tmp_path / "bridge.log"
    with (
        bridge_process(own, log, STREAMFLOW_BRIDGE_QUEUE="2000") as running,
        raw_client(running.port) as client,
    ):
        with stalled(running.pid):
            produce(own, "user-events", [event(number) for number in range(total)])
        for number in range(total):
            assert next_event(client)[0] == "kafka-event", f"behind {number} events"


@pytest.mark.parametrize(
    ("rate", "seconds"),
    # The speed that is promised needs a machine of its own: it is a bar of `streamflow bench` too.
    [(3_000, 10), pytest.param(12_000, 30, marks=pytest.mark.chaos)],
)
def test_every_record_reaches_one_client_in_order(
    rate: int, seconds: int, own: Settings, tmp_path: Path
) -> None:
    total = rate * seconds

    def send() -> None:
        client = producer(own)
        began = time.monotonic()
        for number in range(total):
            client.produce(f"{own.prefix}user-events", event(number), partition=number % 3)
            if number % 120 == 0:
                # Waits for the pace, and takes what was acknowledged meanwhile.
                while (ahead := began + number / rate - time.monotonic()) > 0:
                    client.poll(ahead)
        assert client.flush(60) == 0

    async def scenario(running: BridgeProcess) -> Listener:
        async with Listener(running.url) as listener:
            sending = asyncio.get_running_loop().run_in_executor(None, send)
            await listener.until(
                lambda: len(listener.events) >= total or listener.missed, patience=3 * seconds
            )
            await sending
            return listener

    with bridge_process(own, tmp_path / "bridge.log") as running:
        listener = asyncio.run(scenario(running))
    assert listener.missed == []
    numbers = [each["id"] for each in listener.payloads]
    for partition in range(3):
        mine = [number for number in numbers if number % 3 == partition]
        assert mine == list(range(partition, total, 3))


def test_a_token_is_asked_for(own: Settings, tmp_path: Path) -> None:
    async def scenario(url: str) -> None:
        for auth in (None, {}, {"token": "wrong"}, {"token": 7}, {"token": TOKEN + "x"}):
            assert "token is missing or wrong" in await refusal(url, auth)
        # A query is written into the logs of proxies.
        assert "token is missing or wrong" in await refusal(f"{url}?token={TOKEN}")
        async with Listener(url, {"token": TOKEN}):
            pass
        async with Listener(url, headers={"Authorization": f"Bearer {TOKEN}"}):
            pass

    log = tmp_path / "bridge.log"
    with bridge_process(own, log, STREAMFLOW_BRIDGE_TOKEN=TOKEN) as running:
        asyncio.run(scenario(running.url))
        assert running.ask("/ready")[0] == 200
        assert running.stop() == 0
    assert TOKEN not in log.read_text()


def test_pages_of_foreign_origins_are_refused(
    own: Settings, bridge: BridgeProcess, tmp_path: Path
) -> None:
    async def accepted(url: str, origin: str) -> bool:
        return await refusal(url, headers={"Origin": origin}) == ""

    async def by_default() -> None:
        assert await accepted(bridge.url, bridge.url)
        assert await accepted(bridge.url, f"http://localhost:{bridge.port}")
        assert not await accepted(bridge.url, "http://evil.example")
        assert not await accepted(bridge.url, "null")

    async def as_set(running: BridgeProcess) -> None:
        assert await accepted(running.url, "http://dashboard.example")
        assert await accepted(running.url, "http://127.0.0.1:8501")
        assert not await accepted(running.url, running.url)

    asyncio.run(by_default())
    origins = "http://dashboard.example, http://127.0.0.1:8501"
    with bridge_process(own, tmp_path / "b.log", STREAMFLOW_BRIDGE_ORIGINS=origins) as running:
        asyncio.run(as_set(running))
    with bridge_process(own, tmp_path / "b.log", STREAMFLOW_BRIDGE_ORIGINS="*") as running:
        assert asyncio.run(accepted(running.url, "http://anybody.example"))


def test_clients_come_back_after_a_crash_and_can_ask_for_what_they_missed(
    own: Settings, tmp_path: Path
) -> None:
    log = tmp_path / "bridge.log"

    async def scenario(first: BridgeProcess) -> None:
        async with Listener(first.url, {"last": 100}) as listener:
            produce(own, "user-events", [event(1), event(2)])
            await listener.receives(2)
            first.kill()
            produce(own, "user-events", [event(3)])
            with bridge_process(own, log, first.port):
                await listener.until(lambda: listener.connects == 2)
                await listener.until(lambda: 3 in [each["id"] for each in listener.payloads])
                produce(own, "user-events", [event(4)])
                await listener.until(lambda: 4 in [each["id"] for each in listener.payloads])

    with bridge_process(own, log) as first:
        asyncio.run(scenario(first))


def test_a_new_bridge_starts_at_the_end_and_knows_the_last(own: Settings, tmp_path: Path) -> None:
    produce(own, "user-events", [event(number) for number in range(5_000)])

    async def scenario(running: BridgeProcess) -> None:
        async with Listener(running.url) as live, Listener(running.url, {"last": 10}) as late:
            produce(own, "user-events", [event(5_000)])
            await live.receives(1)
            await late.receives(11)
            assert [each["id"] for each in live.payloads] == [5_000]

    with bridge_process(own, tmp_path / "b.log", STREAMFLOW_BRIDGE_HISTORY="10") as running:
        asyncio.run(scenario(running))


def test_an_outage_of_the_broker_is_told_and_nothing_is_missed(
    own: Settings, broker: BrokerService, tmp_path: Path
) -> None:
    with (
        bridge_process(own, tmp_path / "bridge.log") as running,
        listening(running.url) as listener,
    ):
        produce(own, "user-events", [event(1)])
        wait_until(lambda: len(listener.events) == 1, 30, "the first event")
        with stalled(broker.pid):
            wait_until(lambda: running.ask("/ready")[0] == 503, 30, "not ready")
        broker.kill()
        try:
            wait_until(lambda: running.ask("/ready")[0] == 503, 30, "not ready")
            status, text = running.ask("/health")
            assert status == 200
            assert "Kafka: " in text
            assert "Kafka: ready" not in text
        finally:
            broker.start()
        produce(own, "user-events", [event(2), event(3)])
        wait_until(lambda: len(listener.events) == 3, 60, "all three events")
        running.wait_ready()
        # It stayed connected all the time.
        assert listener.connects == 1
        assert running.stop() == 0


def test_it_stops_in_time_while_the_broker_is_gone_and_a_client_stalled(
    own: Settings, broker: BrokerService, tmp_path: Path
) -> None:
    with (
        bridge_process(own, tmp_path / "bridge.log") as running,
        raw_client(running.port),
        stalled(broker.pid),
    ):
        began = time.monotonic()
        assert running.stop() == 0
        assert time.monotonic() - began < 12


def test_missing_topics_are_waited_for(broker: BrokerService, prefix: str, tmp_path: Path) -> None:
    made = Settings(
        KAFKA_BOOTSTRAP_SERVERS=broker.bootstrap,
        DATABASE_URL="postgresql://nobody@127.0.0.1:1/none",
        STREAMFLOW_PREFIX=prefix,
        STREAMFLOW_STATE_DIR=tmp_path,
    )
    running = BridgeProcess(made, tmp_path / "bridge.log")
    try:
        wait_until(lambda: running.ask("/ready")[0] == 503, 30, "an answer")
        wait_until(
            lambda: "does not exist: run `streamflow init`" in running.ask("/ready")[1],
            30,
            "the reason",
        )
        # One is enough: a stream whose topics are missing stops no other.
        events, *derived = load_streams(made)[0].topic_specs()
        provision_topics(made, [events])
        running.wait_ready()
        assert running.said('"topics not read"')
        with raw_client(running.port) as client:
            provision_topics(made, derived)
            note = json.dumps({"message": "m", "time": "t", "event_id": 1, "user": "u"})
            produce(made, "notifications", [note.encode()])
            received = (str(client.recv(timeout=30)) for _ in itertools.count())
            assert any('"topic":"notifications"' in text for text in received)
    finally:
        running.kill()


def test_a_taken_port_is_named(own: Settings, bridge: BridgeProcess, tmp_path: Path) -> None:
    second = BridgeProcess(own, tmp_path / "bridge.log", bridge.port)
    assert second.process.wait(30) == 1
    assert second.said(f"port {bridge.port} (bridge) cannot be used on 127.0.0.1")
    assert second.said("STREAMFLOW_BRIDGE_PORT")


def test_it_listens_on_loopback_only(bridge: BridgeProcess) -> None:
    assert_on_loopback_only(bridge.port)


def test_half_sent_requests_are_bounded_and_end_soon(bridge: BridgeProcess) -> None:
    before = psutil.Process(bridge.pid).num_fds()
    with ExitStack() as stack:
        address = ("127.0.0.1", bridge.port)
        halves = [stack.enter_context(socket.create_connection(address, 10)) for _ in range(500)]
        for half in halves:
            half.sendall(b"POST /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: 127")
        with raw_client(bridge.port):
            assert bridge.ask("/ready")[0] == 200
        wait_until(
            lambda: psutil.Process(bridge.pid).num_fds() <= before + 10, 12, "the ends of all"
        )


def texts_until_closed(connection: ClientConnection) -> list[str]:
    texts = []
    try:
        while True:
            texts.append(str(connection.recv(timeout=15)))
    except ConnectionClosed:
        return texts


def test_a_client_has_little_time_to_connect_and_not_many_requests(bridge: BridgeProcess) -> None:
    engine = f"ws://127.0.0.1:{bridge.port}/socket.io/?EIO=4&transport=websocket"
    polling = f"{bridge.url}/socket.io/?EIO=4&transport=polling"
    upgrade = f"{engine}&sid={json.loads(requests.get(polling, timeout=10).text[1:])['sid']}"
    with (
        connect(engine) as silent,
        connect(engine) as wrong,
        connect(upgrade) as unfinished,
        raw_client(bridge.port) as client,
    ):
        with pytest.raises(InvalidStatus), connect(upgrade):
            pass
        wrong.send("40/other,{}")
        for connection in (silent, wrong, unfinished):
            texts_until_closed(connection)
        # That one has connected, and may stay; but it asks too much.
        for number in range(60):
            client.send(f'42{number}["last",0]')
        answers = texts_until_closed(client)
        assert '430[{"ok":true,"count":0}]' in answers
        assert any("too many requests: send at most 10 per second" in answer for answer in answers)
    with raw_client(bridge.port) as client:
        client.send("4" + "x" * 300_000)
        texts_until_closed(client)


def test_clients_are_counted_in_total_and_by_address(own: Settings, tmp_path: Path) -> None:
    limits = {"STREAMFLOW_BRIDGE_CLIENTS": "5", "STREAMFLOW_BRIDGE_CLIENTS_PER_ADDRESS": "3"}
    with bridge_process(own, tmp_path / "b.log", **limits) as running, ExitStack() as stack:

        def opens(address: str) -> bool:
            url = f"ws://127.0.0.1:{running.port}/socket.io/?EIO=4&transport=websocket"
            # Of a proxy on this machine it is believed.
            headers = {"X-Forwarded-For": address}
            try:
                client = stack.enter_context(connect(url, additional_headers=headers))
            except InvalidStatus:
                return False
            client.send("40")
            return True

        first = [opens("192.0.2.1") for _ in range(4)]
        assert first == [True, True, True, False]
        assert [opens("192.0.2.2") for _ in range(3)] == [True, True, False]
        stack.close()
        wait_until(lambda: opens("192.0.2.1"), 10, "room again")
        assert running.said("STREAMFLOW_BRIDGE_CLIENTS_PER_ADDRESS")


def test_security_headers_on_every_answer(bridge: BridgeProcess) -> None:
    for path in ("/health", "/nothing", "/socket.io/?EIO=4&transport=polling"):
        answer = requests.get(bridge.url + path, timeout=10)
        assert set(SECURITY_HEADERS) <= set(answer.headers.lower_items())


def test_requests_that_are_no_socket_io_do_no_harm(bridge: BridgeProcess) -> None:
    with socket.create_connection(("127.0.0.1", bridge.port), 10) as raw:
        raw.sendall(b"\x00\xff not HTTP\r\n\r\n")
        raw.recv(1_000)
    with raw_client(bridge.port) as client:
        client.send("4nonsense")
        client.send('42["no such event",{}]')
        client.send('42["subscribe"')
    assert bridge.ask("/ready")[0] == 200
