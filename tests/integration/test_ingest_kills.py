"""Ingest workers that die between a request and its answer: a retry with its key stores it exactly once."""

import itertools
import json
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
import requests

from conftest import SettingsFactory
from faults import free_ports, wait_until
from ingesting import URL, IngestProcess, ingest_workers
from pipeline import (
    audit,
    count,
    environment,
    event,
    stored_records,
    stored_values,
    topics_of,
    workers,
)
from services import BrokerService
from streamflow.kafka.transactions import Publisher
from streamflow.postgres.connections import session
from streamflow.postgres.ingest_requests import IngestRequests, Keyed, places_of
from streamflow.records import Origin, OutRecord
from streamflow.settings import IngestSettings, Settings
from streaming_workers.ingest import keys
from streaming_workers.ingest.submissions import Submission

pytestmark = pytest.mark.integration

DIE = "lambda *_: os.kill(os.getpid(), signal.SIGKILL)"
REQUESTS = "from streamflow.postgres.ingest_requests import IngestRequests\nIngestRequests"
COMMITTER = "from streaming_workers.ingest.committer import Committer\nCommitter"
# What is replaced in the worker's process by a sudden end, and whether the events are stored by then.
MOMENTS = {
    "claimed, nothing sent": (
        f"from streamflow.kafka.transactions import Publisher\nPublisher.publish = {DIE}", False,
    ),
    "sent, positions not noted": (f"{REQUESTS}.prepare = {DIE}", False),
    "positions noted, not committed": (
        f"from streamflow.kafka import transactions\ntransactions.retry_while_retriable = {DIE}", False,
    ),
    "committed, not answered": (f"{COMMITTER}._finish = {DIE}", True),
    "answered, not confirmed": (f"{REQUESTS}.confirm = {DIE}", True),
}  # fmt: skip


def login(number: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(event(number))
    return found


def ids(settings: Settings) -> list[int]:
    found = [json.loads(value or b"")["id"] for value in stored_values(settings, "user-events")]
    return sorted(map(int, found))


# The first commit fails with an unknown outcome, after it or instead of it.
UNKNOWN = """
from confluent_kafka import KafkaError, KafkaException
from streamflow.kafka import transactions
retry, failed = transactions.retry_while_retriable, []
def fail_once(commit):
    if failed:
        return retry(commit)
    failed.append({committed} and commit())
    raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
transactions.retry_while_retriable = fail_once
"""


def faulty_worker(settings: Settings, fault: str, port: int) -> "subprocess.Popen[bytes]":
    code = (
        f"import os, signal\n{fault}\n"
        "from streamflow.settings import load_ingest_settings\n"
        "from streaming_workers.ingest.server import run_ingest\n"
        "run_ingest(load_ingest_settings(), instance='one', health_port=0)\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env=environment(settings, STREAMFLOW_INGEST_PORT=str(port)),
    )


@pytest.mark.parametrize("committed", [True, False])
@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "k"}])
def test_an_unknown_outcome_is_found_out_before_the_answer(
    committed: bool, headers: dict[str, str], stack_settings: Settings
) -> None:
    [port] = free_ports(1)
    process = faulty_worker(stack_settings, UNKNOWN.format(committed=committed), port)
    url = f"http://127.0.0.1:{port}"

    def is_ready() -> bool:
        with suppress(requests.ConnectionError):
            return requests.get(f"{url}/ready", timeout=30).ok
        return False

    try:
        wait_until(is_ready, 60, "the worker")
        events = [login(number) for number in range(50)]
        answer = requests.post(url + URL, json=events, headers=headers, timeout=60)
        assert (answer.status_code, answer.json()["accepted"]) == (200, 50)
        assert "streamflow_sessions_total 2.0" in requests.get(f"{url}/metrics", timeout=30).text
        if headers:
            again = requests.post(url + URL, json=events, headers=headers, timeout=60)
            assert (again.json(), again.headers["idempotency-replayed"]) == (answer.json(), "true")
    finally:
        process.kill()
        process.wait(10)
    assert ids(stack_settings) == list(range(50))
    places = {(at["partition"], at["offset"]) for at in answer.json()["records"]}
    records = stored_records(stack_settings, "user-events")
    assert places == {(record.partition(), record.offset()) for record in records}


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_at(moment: str, stack_settings: Settings, tmp_path: Path) -> None:
    fault, is_stored = MOMENTS[moment]
    [port] = free_ports(1)
    dying = faulty_worker(stack_settings, fault, port)
    events, headers = [login(number) for number in range(50)], {"Idempotency-Key": "k"}

    def sent() -> bool:
        try:
            answer = requests.post(
                f"http://127.0.0.1:{port}{URL}", json=events, headers=headers, timeout=30
            )
        except requests.ConnectionError:
            return dying.poll() is not None
        assert answer.status_code == 200
        return True

    wait_until(sent, 60, "the request to be sent")
    assert dying.wait(30) == -9
    with ingest_workers(stack_settings, tmp_path) as [worker]:
        assert ids(stack_settings) == (list(range(50)) if is_stored else [])
        answer = worker.post(events, key="k")
        assert answer.status_code == 200
        assert ("idempotency-replayed" in answer.headers) == is_stored
        assert worker.post(events, key="k").json() == answer.json()
    assert ids(stack_settings) == list(range(50))
    # The answer says where the events are, also if it was not given before the kill.
    places = {(at["partition"], at["offset"]) for at in answer.json()["records"]}
    records = stored_records(stack_settings, "user-events")
    assert places == {(record.partition(), record.offset()) for record in records}


def left_open(settings: Settings, numbers: range, *, commit: bool) -> None:
    """What a worker leaves that does not come back: a batch that is prepared, and committed or not."""
    requests_ = IngestRequests(settings, "gone")
    claim = requests_.claim([Keyed("user-events", bytes(32), bytes(32))], [])
    records = [
        OutRecord(f"{settings.prefix}user-events", b"key", event(number), []) for number in numbers
    ]

    class _NotCommittedError(Exception):
        pass

    def prepare(positions: list[Origin]) -> None:
        requests_.prepare(claim.batch, {0: places_of(positions)})
        if not commit:
            raise _NotCommittedError

    with (
        closing(Publisher(settings, f"{settings.prefix}ingest-gone")) as publisher,
        suppress(_NotCommittedError),
    ):
        publisher.publish(records, prepare)
    requests_.close()


@pytest.mark.parametrize("commit", [True, False])
def test_what_a_worker_left_that_is_gone_is_settled_by_another(
    commit: bool, stack_settings: Settings, tmp_path: Path
) -> None:
    left_open(stack_settings, range(3), commit=commit)
    with session(stack_settings, "test") as connection:
        connection.execute("UPDATE ingest_batches SET began_at = now() - interval '70 s'")
    with ingest_workers(stack_settings, tmp_path, ("two",)):
        query = "SELECT count(*) FROM ingest_batches WHERE NOT stored"
        wait_until(lambda: count(stack_settings, query) == 0, 60, "the batch to be settled")
    stored = count(stack_settings, "SELECT count(*) FROM ingest_requests")
    assert stored == int(commit)
    assert len(ids(stack_settings)) == 3 * int(commit)


def test_a_batch_that_another_has_settled_is_not_committed(stack_settings: Settings) -> None:
    from streamflow.errors import Fenced

    mine = IngestRequests(stack_settings, "slow")
    claim = mine.claim([Keyed("user-events", bytes(32), bytes(32))], [])
    other = IngestRequests(stack_settings, "other")
    other.settle("slow", lambda _stream, _place: False)
    with pytest.raises(Fenced, match="another worker has settled"):
        mine.prepare(claim.batch, {0: [(0, 0)]})
    assert other.claim([Keyed("user-events", bytes(32), bytes(32))], []).claimed == [0]
    mine.close()
    other.close()


def test_a_batch_that_is_sent_while_another_worker_settles_stays(
    stack_settings: Settings,
) -> None:
    """The worker was fenced and is back: what it has sent since is not taken for what it has left."""
    mine, other = IngestRequests(stack_settings, "back"), IngestRequests(stack_settings, "other")
    batches = [
        mine.claim([Keyed("user-events", bytes([n]) * 32, bytes(32))], []).batch for n in (1, 2)
    ]
    mine.prepare(batches[0], {0: [(0, 0)]})

    def committed(_stream: str, _place: tuple[int, int]) -> bool:
        # It is about to commit.
        mine.prepare(batches[1], {0: [(0, 1)]})
        return False

    other.settle("back", committed)
    mine.confirm([batches[1]])
    again = other.claim([Keyed("user-events", bytes([n]) * 32, bytes(32)) for n in (1, 2)], [])
    assert again.claimed == [0]
    assert again.earlier[1].places == [(0, 1)]
    mine.close()
    other.close()


def test_what_is_stored_is_confirmed_though_no_request_with_a_key_follows(
    stack_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "_KEEP_HOUSE_EVERY", 0.0)
    mine = keys.Keys(IngestSettings(**stack_settings.model_dump()), "one")
    claimed = mine.claim([Submission("user-events", [], bytes(32), bytes(32), lambda _: None)])
    assert claimed.batch is not None
    mine.prepare(claimed.batch, {0: [(0, 0)]})
    mine.stored(claimed.batch)
    mine.keep_house()
    assert count(stack_settings, "SELECT count(*) FROM ingest_batches WHERE stored") == 1
    mine.close()


def test_old_keys_are_forgotten(stack_settings: Settings) -> None:
    known = IngestRequests(stack_settings, "one")
    first = known.claim([Keyed("user-events", bytes([1]) * 32, b"f")], [])
    known.prepare(first.batch, {0: [(0, 0)]})
    second = known.claim([Keyed("user-events", bytes([2]) * 32, b"f")], [first.batch])
    known.prepare(second.batch, {0: [(0, 1)]})
    known.confirm([second.batch])
    with session(stack_settings, "test") as connection:
        backdate = "UPDATE ingest_batches SET began_at = now() - interval '25 h' WHERE batch = %s"
        connection.execute(backdate, [first.batch])
    assert not known.expire(24 * 3600)
    assert count(stack_settings, "SELECT count(*) FROM ingest_requests") == 1
    again = known.claim([Keyed("user-events", bytes([n]) * 32, b"f") for n in (1, 2)], [])
    assert again.claimed == [0]
    assert again.earlier[1].places == [(0, 1)]
    # Many are forgotten a few at a time.
    for number in range(3, 33):
        one = known.claim([Keyed("user-events", bytes([number]) * 32, b"f")], [])
        known.confirm([one.batch])
    known.confirm([again.batch])
    assert [known.expire(0) for _ in range(2)] == [True, False]
    assert count(stack_settings, "SELECT count(*) FROM ingest_requests") == 0
    known.close()


@pytest.mark.slow
def test_a_broker_that_is_killed_loses_and_doubles_nothing(
    own_broker: BrokerService, settings: SettingsFactory, database_url: str, tmp_path: Path
) -> None:
    made = settings(KAFKA_BOOTSTRAP_SERVERS=own_broker.bootstrap, DATABASE_URL=database_url)
    stop, stored = threading.Event(), [[] for _ in range(4)]  # type: list[list[int]]
    kinds: Counter[str] = Counter()
    with topics_of(made), ingest_workers(made, tmp_path) as running:

        def send(client: int) -> None:
            for number in itertools.count(client * 1_000_000, 5):
                if stop.is_set():
                    return
                some = [number + each for each in range(5)]
                while not _is_stored(running[0], some, kinds):
                    stop.wait(0.05)
                stored[client] += some

        with ThreadPoolExecutor(4) as pool:
            clients = [pool.submit(send, client) for client in range(4)]
            for _ in range(2):
                before = sum(map(len, stored))
                wait_until(lambda seen=before: sum(map(len, stored)) > seen + 100, 120, "progress")
                own_broker.restart()
            before = sum(map(len, stored))
            wait_until(lambda: sum(map(len, stored)) > before + 100, 120, "progress")
            stop.set()
            for client in clients:
                client.result(120)
        assert ids(made) == sorted(number for some in stored for number in some)


@pytest.mark.slow
def test_kills_lose_and_double_nothing(stack_settings: Settings, tmp_path: Path) -> None:
    """Two workers, clients that send each request until one of them says it is stored, and kills."""
    stop, chance = threading.Event(), random.Random(7)
    stored: list[list[int]] = [[] for _ in range(4)]
    kinds: Counter[str] = Counter()
    with ingest_workers(stack_settings, tmp_path, ("one", "two")) as running:

        def send(client: int) -> None:
            choice = random.Random(client)
            for number in itertools.count(client * 1_000_000, 10):
                if stop.is_set():
                    return
                some = [number + each for each in range(choice.randrange(1, 10))]
                while not _is_stored(choice.choice(running), some, kinds):
                    stop.wait(0.05)
                stored[client] += some

        with ThreadPoolExecutor(4) as pool:
            clients = [pool.submit(send, client) for client in range(4)]
            for round_ in range(8):
                before = sum(map(len, stored))
                wait_until(lambda seen=before: sum(map(len, stored)) > seen + 100, 60, "progress")
                time.sleep(chance.random() / 10)  # a moment that nobody has chosen
                running[round_ % 2].kill()
                running[round_ % 2] = _again(stack_settings, running[round_ % 2])
            stop.set()
            for client in clients:
                client.result(120)
        for worker in running:
            worker.kill()
    expected = sorted(number for some in stored for number in some)
    assert kinds["lost connection"] > 0
    assert ids(stack_settings) == expected
    with workers(stack_settings, tmp_path):
        report = audit(stack_settings)
    assert report.closed, report.problems[:5]
    assert count(stack_settings, "SELECT count(*) FROM events") == len(expected)


def _is_stored(worker: IngestProcess, numbers: list[int], kinds: Counter[str]) -> bool:
    try:
        answer = worker.post([login(number) for number in numbers], key=f"key-{numbers[0]}")
    except requests.ConnectionError:
        kinds["lost connection"] += 1
        return False
    kinds[str(answer.status_code)] += 1
    assert answer.status_code in (200, 409, 503), answer.text
    if answer.status_code == 200:
        assert answer.json()["accepted"] == len(numbers)
    return answer.status_code == 200


def _again(settings: Settings, killed: IngestProcess) -> IngestProcess:
    port = int(killed.url.rpartition(":")[2])
    again = IngestProcess(settings, killed.log, killed.log.stem.removeprefix("ingest-"), port)
    again.wait_ready()
    return again
