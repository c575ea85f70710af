"""Private values come in by `produce`, another producer, `dlq`, a Dagster job, the bridge and the dashboard's
search; then everything at rest is searched for them (G7)."""

import asyncio
import base64
import urllib.parse
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest
from confluent_kafka import TopicPartition

from dashboards import DashboardProcess
from faults import free_ports, wait_until
from listeners import Listener, bridge_process
from pipeline import count, environment, event, streamflow, topic_bounds, topics_of, workers
from services import BrokerService
from streamflow.kafka import clients
from streamflow.settings import Settings
from streamflow_dagster.defs.replay import replay_dead_letters

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

POSITIONS = "streamflow-positions"
TOPICS = ("user-events", "analytics", "notifications", "dead-letter-topic")
# What a user gives a job of Dagster's launchpad is stored by Dagster before StreamFlow sees it, and what
# another producer writes into Kafka is there until retention removes it. Nothing else stays.
BY_DESIGN = {"job": {"dagster"}, **{f"raw {topic}": {f"kafka {topic}"} for topic in TOPICS}}


class Planted:
    """Private values of all kinds; each says by which door it came."""

    def __init__(self) -> None:
        self.doors: dict[str, str] = {}

    def __call__(self, door: str, kind: str = "") -> str:
        """A text with a value of this kind; with one of each by default."""
        number = len(self.doors)
        made = {
            "address": f"zq{number}x@example.com",
            "phone": f"0170 55{number:05d}",
            "card": _card(number),
            "customer": f"KD-55{number:04d}",
        }
        wanted = {kind: made[kind]} if kind else made
        self.doors |= dict.fromkeys(wanted.values(), door)
        return ", ".join(wanted.values())

    def found_in(self, data: bytes) -> set[str]:
        """The doors of what is there, as text, hexadecimal or base64."""
        return {
            door
            for value, door in self.doors.items()
            if any(form in data for form in _forms(value.encode()))
        }


def _card(number: int) -> str:
    digits = f"400000{number:09d}"
    total = sum(
        sum(divmod(2 * int(digit), 10)) if place % 2 == 0 else int(digit)
        for place, digit in enumerate(digits)
    )
    return digits + str(-total % 10)


def _forms(value: bytes) -> Iterator[bytes]:
    yield value
    yield value.hex().encode()
    for shift in range(3):
        coded = base64.b64encode(b"\x00" * shift + value)
        yield coded[(shift * 8 + 5) // 6 : len(coded) - 4]


@pytest.fixture
def stack(settings: Any, database_url: str) -> Iterator[Settings]:
    made = settings(DATABASE_URL=database_url, STREAMFLOW_STREAMS="private_streams:USER_EVENTS")
    with topics_of(made):
        yield made


def test_nothing_private_is_at_rest_in_clear(
    stack: Settings, broker: BrokerService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = Planted()
    logs = tmp_path / "logs"
    logs.mkdir()
    lines = tmp_path / "in.ndjson"
    with (
        workers(stack, logs),
        bridge_process(stack, logs / "bridge.log") as bridge,
        dg.DagsterInstance.local_temp(str(_folder(tmp_path, "dagster"))) as instance,
    ):
        write_lines(lines, planted)
        for choice in ("send", "skip"):
            done = streamflow(stack, "produce", "--from", str(lines), "--on-invalid", choice)
            (logs / f"{choice}.log").write_text(done.stdout + done.stderr)
        send_raw(stack, planted)
        # The valid line was sent twice, the invalid ones once.
        wait_until(lambda: count(stack, "SELECT count(*) FROM events") == 3, 90, "events")
        wait_until(lambda: count(stack, "SELECT count(*) FROM dead_letters") == 8, 90, "letters")
        ask(stack, planted, logs)
        run_job(stack, planted, instance, monkeypatch)
        asyncio.run(listen(bridge.url, planted))
        look(stack, planted, logs)

    stays: dict[str, set[str]] = defaultdict(set)
    for place, data in everything_at_rest(stack, broker, tmp_path):
        for door in planted.found_in(data):
            stays[door].add(place)
    assert stays == BY_DESIGN


def write_lines(path: Path, planted: Planted) -> None:
    """A valid line, its address in clear in the private field, and an invalid one of each kind."""
    plain = event(1).replace(b"a" * 64, planted("produce", "address").encode())
    invalid = [
        event(1, kind="USER_FLEW").replace(b"user-1", planted("produce", kind).encode())
        for kind in ("address", "phone", "card", "customer")
    ]
    path.write_bytes(b"\n".join([plain, *invalid, b""]))


def send_raw(settings: Settings, planted: Planted) -> None:
    """To each topic as another producer does: in key, value, names and values of headers."""
    client = clients.producer(settings)
    for topic in TOPICS:
        door = f"raw {topic}"
        values = [planted(door).encode()]
        if topic == "user-events":
            values.append(event(2))
        for value in values:
            headers = [(planted(door), planted(door).encode())]
            client.produce(settings.prefix + topic, value, planted(door), 0, headers=headers)  # type: ignore[arg-type]
    assert client.flush(60) == 0


def ask(settings: Settings, planted: Planted, logs: Path) -> None:
    for arguments in (
        ("list", "--text", planted("command")),
        ("replay", "--text", planted("command"), "--by", planted("command")),
        ("replay", "--repair", "hash_address", "--by", planted("command")),
    ):
        done = streamflow(settings, "dlq", *arguments)
        assert "Traceback" not in done.stderr
        (logs / f"dlq-{len(planted.doors)}.log").write_text(done.stderr)


def run_job(
    settings: Settings,
    planted: Planted,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, content in environment(settings).items():
        monkeypatch.setenv(name, content)
    config = {"text": planted("job"), "requested_by": planted("job")}
    job = dg.Definitions(jobs=[replay_dead_letters]).get_job_def("replay_dead_letters")
    done = job.execute_in_process(
        run_config={"ops": {"replay": {"config": config}}}, instance=instance, raise_on_error=False
    )
    assert done.success


async def listen(url: str, planted: Planted) -> None:
    wish = {"topics": ["dead-letter-topic"], "users": planted("bridge"), "last": 5}
    async with Listener(url, wish) as listener:
        await listener.call("subscribe", {"users": [planted("bridge")], "types": planted("bridge")})
    wish = {"topics": list(TOPICS), "last": 100}
    async with Listener(url, wish) as listener:
        await listener.until(lambda: len(listener.events) >= 10)
        shown = str(listener.events).encode()
    assert planted.found_in(shown) == set()


def look(settings: Settings, planted: Planted, logs: Path) -> None:
    [port] = free_ports(1)
    dashboard = DashboardProcess(settings, port, logs / "dashboard.log")
    try:
        dashboard.wait_ready()
        query = urllib.parse.urlencode({"mode": "Search", "text": planted("dashboard")})
        with urllib.request.urlopen(f"{dashboard.url}/inspector?{query}", timeout=10) as answer:
            assert answer.status == 200
    finally:
        dashboard.stop()


def everything_at_rest(
    settings: Settings, broker: BrokerService, directory: Path
) -> Iterator[tuple[str, bytes]]:
    for topic in (*TOPICS, POSITIONS):
        for record in records(settings, topic):
            yield f"kafka {topic}", record
        # What is not compressed, and what a plain consumer is not shown. Indexes hold offsets only.
        data = broker.broker.node.data
        segments = list(data.glob(f"{settings.prefix}{topic}-*/*.log"))
        assert segments
        for segment in segments:
            yield f"kafka {topic}", segment.read_bytes()
    with psycopg.connect(settings.database) as connection:
        tables = connection.execute(
            "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables"
            " WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
        ).fetchall()
        assert len(tables) > 10
        for (table,) in tables:
            with connection.cursor().copy(f"COPY (SELECT * FROM {table}) TO STDOUT") as copy:  # type: ignore[arg-type]
                yield f"postgres {table}", b"".join(map(bytes, copy))
    for file in directory.rglob("*"):
        if file.is_file() and file.name != "in.ndjson":
            place = file.relative_to(directory)
            yield "dagster" if place.parts[0] == "dagster" else str(place), file.read_bytes()


def records(settings: Settings, topic: str) -> Iterator[bytes]:
    """All of a record's bytes, for each."""
    reader = clients.assigned_consumer(settings, settings.prefix + "search")
    for partition, (first, end) in topic_bounds(settings, topic).items():
        reader.assign([TopicPartition(*partition, first)])
        position = first
        while position < end:
            message = reader.poll(30)
            assert message is not None, f"{partition} ends at {end}, read up to {position}"
            if message.error() is not None:
                break
            position = (message.offset() or 0) + 1
            headers: Any = message.headers() or []
            yield b"\n".join(
                part or b""
                for part in (
                    message.key(),
                    message.value(),
                    *(part for name, content in headers for part in (name.encode(), content)),
                )
            )
    reader.close()


def _folder(parent: Path, name: str) -> Path:
    made = parent / name
    made.mkdir()
    return made
