"""`streamflow produce`, as a user runs it: real files, bad lines, interruptions, resumption."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
import psycopg
import pytest

from faults import kill, stalled, wait_until
from pipeline import audit, environment, event, stored_values, streamflow, topic_bounds, workers
from services import BrokerService
from streamflow.errors import Unavailable
from streamflow.kafka.clients import admin
from streamflow.privacy import Hasher
from streamflow.records import Rejection
from streamflow.settings import Settings
from streamflow.streams.user_events import USER_EVENTS
from streaming_workers.producer.progress import group_of

pytestmark = pytest.mark.acceptance

SSH_LOGINS = Path(__file__).parents[3] / "shared" / "data" / "ssh-logins.ndjson"
BAD = b'{"id": "one"}'


def write(path: Path, lines: list[bytes]) -> Path:
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


@pytest.mark.skipif(not SSH_LOGINS.exists(), reason="the sample lies beside the project, not in it")
def test_real_logins_are_rows_and_windows_once(stack_settings: Settings, tmp_path: Path) -> None:
    sent = streamflow(stack_settings, "produce", "--from", str(SSH_LOGINS))
    assert sent.returncode == 0, sent.stderr
    assert "sent 519 events" in sent.stdout

    again = streamflow(stack_settings, "produce", "--from", str(SSH_LOGINS), "--resume")
    assert again.returncode == 0, again.stderr
    assert "all 519 lines were sent before" in again.stdout

    with workers(stack_settings, tmp_path):
        report = audit(stack_settings)
        assert report.closed, report.problems
        with psycopg.connect(stack_settings.database, autocommit=True) as connection:
            by_type = connection.execute("SELECT type, count(*) FROM events GROUP BY 1").fetchall()
            assert dict(by_type) == {"USER_LOGIN_FAILED": 518, "USER_LOGIN": 1}
            from_events = (
                "SELECT date_bin('10 s', timestamp, 'epoch'), type, count(*) FROM events"
                " GROUP BY 1, 2 ORDER BY 1, 2"
            )
            from_windows = (
                "SELECT window_start, event_type, sum(count)::bigint FROM window_counts"
                " GROUP BY 1, 2 ORDER BY 1, 2"
            )
            cells = connection.execute(from_events).fetchall()
            assert (len(cells), max(count for *_, count in cells)) == (176, 7)
            # Idle partitions close their last windows after ten seconds.
            wait_until(lambda: connection.execute(from_windows).fetchall() == cells, 40)


def test_simulated_users_make_the_mistakes_they_are_told_to(stack_settings: Settings) -> None:
    done = streamflow(
        stack_settings,
        *("produce", "--count", "2000", "--rate", "100000", "--invalid-ratio", "0.3"),
        *("--seed", "7", "--json"),
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    values = stored_values(stack_settings, "user-events")
    found = [USER_EVENTS.decoder.decode(value) for value in values]
    codes = Counter(each.code.value for each in found if isinstance(each, Rejection))
    assert len(values) == told["sent"] == 2_000
    assert told["invalid"] == dict(codes)
    assert len(codes) == 7
    assert told["valid"] == 2_000 - codes.total()


def test_addresses_leave_hashed_with_the_key(stack_settings: Settings, tmp_path: Path) -> None:
    lines = [
        event(1).replace(b"a" * 64, b"ann@example.com"),
        event(2).replace(b"a" * 64, Hasher(b"pepper").hash("bob@example.com").encode()),
    ]
    path = write(tmp_path / "logins.ndjson", lines)
    done = streamflow(stack_settings, "produce", "--from", str(path), STREAMFLOW_PII_KEY="pepper")
    assert done.returncode == 0, done.stderr
    assert "STREAMFLOW_PII_KEY" not in done.stderr
    found = {
        document["id"]: document["user_email"]
        for document in map(
            orjson.loads, filter(None, stored_values(stack_settings, "user-events"))
        )
    }
    hasher = Hasher(b"pepper")
    assert found == {1: hasher.hash("ann@example.com"), 2: hasher.hash("bob@example.com")}


def test_without_a_key_it_says_once_that_a_hash_can_be_guessed(stack_settings: Settings) -> None:
    done = streamflow(stack_settings, "produce", "--count", "5", "--rate", "1000")
    assert done.stderr.count("STREAMFLOW_PII_KEY") == 1


@pytest.mark.parametrize(
    ("choice", "code", "sent"), [("skip", 1, 3), ("send", 0, 6), ("stop", 2, 1)]
)
def test_lines_that_break_the_contract(
    choice: str, code: int, sent: int, stack_settings: Settings, tmp_path: Path
) -> None:
    address = b'{"id": 4, "type": "USER_LOGIN", "user": "ann@example.com", "timestamp": "now"}'
    mended = event(6).replace(b"user-6", b"ann@example.com")
    path = write(tmp_path / "in.ndjson", [event(1), BAD, event(3), b"", address, event(5), mended])
    done = streamflow(stack_settings, "produce", "--from", str(path), "--on-invalid", choice)
    assert done.returncode == code, done.stderr
    assert "line 2: SCHEMA_VIOLATION: " in done.stderr
    values = stored_values(stack_settings, "user-events")
    assert len(values) == sent
    assert not [value for value in values if b"ann@" in (value or b"")]
    if choice == "skip":
        assert "line 5: " in done.stderr
        assert "skipped 3 invalid lines" in done.stderr
    if choice == "send":
        assert (
            "line 7: CLEAR_TEXT_PII: user: holds a clear-text address: it is sent hashed"
            in done.stderr
        )
        assert "2 of them invalid: SCHEMA_VIOLATION" in done.stdout
        assert "1 of them valid since" in done.stdout
    if choice == "stop":
        assert "line 2 is invalid" in done.stderr
        # Mended, it goes on behind what was sent.
        write(path, [event(1), event(2), event(3)])
        again = streamflow(stack_settings, "produce", "--from", str(path), "--resume")
        assert again.returncode == 0, again.stderr
        assert len(stored_values(stack_settings, "user-events")) == 3


@pytest.mark.parametrize("choice", ["skip", "send"])
def test_a_later_run_does_not_take_skipped_lines_for_sent(
    choice: str, stack_settings: Settings, tmp_path: Path
) -> None:
    path = write(tmp_path / "in.ndjson", [event(1), BAD, event(3)])
    resume = ("produce", "--from", str(path), "--resume", "--on-invalid", choice)
    assert streamflow(stack_settings, *resume[:3]).returncode == 1
    again = streamflow(stack_settings, *resume)
    assert again.returncode == 1, again.stderr
    assert "of 3 lines read before, 2 were sent and 1 skipped as invalid" in again.stdout
    assert "earlier runs skipped 1 invalid line: --resume does not go back to it" in again.stderr
    write(path, [event(1), BAD, event(3), event(4)])
    longer = streamflow(stack_settings, *resume, "--json")
    assert longer.returncode == 1, longer.stderr
    told = json.loads(longer.stdout)
    assert (told["sent"], told["skipped"], told["skipped_before"]) == (1, 0, 1)
    assert len(stored_values(stack_settings, "user-events")) == 3


def test_half_a_last_line_waits_and_is_sent_by_a_later_run(
    stack_settings: Settings, tmp_path: Path
) -> None:
    path = tmp_path / "in.ndjson"
    path.write_bytes(event(1) + b"\n" + event(2)[:30])
    first = streamflow(stack_settings, "produce", "--from", str(path))
    assert first.returncode == 1, first.stderr
    assert "line 2 has no newline yet and waits: --resume sends it" in first.stderr
    path.write_bytes(event(1) + b"\n" + event(2))
    again = streamflow(stack_settings, "produce", "--from", str(path), "--resume", "--complete")
    assert again.returncode == 0, again.stderr
    values = filter(None, stored_values(stack_settings, "user-events"))
    assert sorted(values) == [event(1), event(2)]


def test_a_named_pipe(stack_settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with running(stack_settings, "--from", str(path), "--json") as process:
        with path.open("wb") as pipe:
            pipe.write(event(1) + b"\n" + event(2))
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert json.loads(output)["sent"] == 2
    assert len(stored_values(stack_settings, "user-events")) == 2


def test_standard_input(stack_settings: Settings) -> None:
    done = streamflow(
        stack_settings, "produce", "--from", "-", "--json", text=event(1) + b"\n" + event(2)
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["sent"] == 2
    assert sorted(filter(None, stored_values(stack_settings, "user-events"))) == [
        event(1),
        event(2),
    ]
    # Nothing can be resumed, so nothing is kept.
    assert stored_values(stack_settings, "streamflow-positions") == []


@pytest.mark.parametrize("answers", ["refuses", "is silent"])
def test_a_broker_that_does_not_answer_is_one_line(answers: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        if answers == "refuses":
            server.close()
        settings = Settings(KAFKA_BOOTSTRAP_SERVERS=address, DATABASE_URL="postgresql://none")
        done = streamflow(settings, "produce", "--count", "1", seconds=45, STREAMFLOW_PII_KEY="key")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: the broker at {address} does not answer: start it ")
    assert done.stderr.count("\n") == 1


def test_a_broker_that_goes_away_later_is_waited_for(
    stack_settings: Settings, broker: BrokerService
) -> None:
    def stored() -> int:
        try:
            return len(stored_values(stack_settings, "user-events"))
        except Unavailable:
            # After its pause the broker elects leaders first.
            return 0

    with running(stack_settings, "--rate", "20", "--count", "100") as process:
        wait_until(lambda: stored() > 10, 60)
        with stalled(broker.pid), pytest.raises(subprocess.TimeoutExpired):
            process.wait(12)
        assert process.wait(60) == 0
    wait_until(lambda: stored() == 100, 60)


@contextmanager
def running(settings: Settings, *arguments: str) -> "Iterator[subprocess.Popen[str]]":
    """A run in the background; killed if the test leaves it."""
    with subprocess.Popen(
        [sys.executable, "-m", "streamflow_cli.app", "produce", *arguments],
        env=environment(settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_an_interrupted_run_says_how_far_it_got_and_resumes(
    stack_settings: Settings, tmp_path: Path
) -> None:
    lines = [event(number) for number in range(1_000)]
    path = write(tmp_path / "in.ndjson", lines)
    # One event a second by the events' own times, a hundred times as fast.
    spaced = [
        line.replace(b"12:00:00.000Z", b"%02d:%02d:%02d.000Z" % (12, number // 60, number % 60))
        for number, line in enumerate(lines)
    ]
    write(path, spaced)
    pace = ("--pace", "event-time", "--speed", "100")
    with running(stack_settings, "--from", str(path), *pace) as process:
        wait_until(lambda: len(stored_values(stack_settings, "user-events")) > 50, 60)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    got = len(stored_values(stack_settings, "user-events"))
    assert 50 < got < 1_000
    assert f"stopped after line {got:,}: --resume goes on from there" in errors

    again = streamflow(stack_settings, "produce", "--from", str(path), "--resume", "--json")
    assert json.loads(again.stdout)["sent"] == 1_000 - got
    assert sorted(filter(None, stored_values(stack_settings, "user-events"))) == sorted(spaced)


def test_a_killed_run_resumes_without_doubling(stack_settings: Settings, tmp_path: Path) -> None:
    count = 200_000
    path = write(tmp_path / "in.ndjson", [event(number) for number in range(count)])
    with running(stack_settings, "--from", str(path)) as process:
        wait_until(
            lambda: any(end for _, end in topic_bounds(stack_settings, "user-events").values())
        )
        kill(process.pid)
        process.communicate()
    got = len(stored_values(stack_settings, "user-events"))
    assert 0 < got < count

    again = streamflow(stack_settings, "produce", "--from", str(path), "--resume", "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["finished"]
    values = stored_values(stack_settings, "user-events")
    assert (len(values), len(set(values))) == (count, count)


def test_a_file_that_has_changed_is_not_resumed(stack_settings: Settings, tmp_path: Path) -> None:
    path = write(tmp_path / "in.ndjson", [event(1), event(2)])
    assert streamflow(stack_settings, "produce", "--from", str(path)).returncode == 0
    write(path, [event(7), event(2), event(3)])
    done = streamflow(stack_settings, "produce", "--from", str(path), "--resume")
    assert done.returncode == 2
    assert "has changed before line 3" in done.stderr
    assert len(stored_values(stack_settings, "user-events")) == 2


def test_progress_outlives_the_offsets_in_kafka(stack_settings: Settings, tmp_path: Path) -> None:
    path = write(tmp_path / "in.ndjson", [event(1), event(2)])
    arguments = ("produce", "--from", str(path), "--resume")
    unknown = streamflow(stack_settings, *arguments)
    assert unknown.returncode == 2
    assert "it is not known whether" in unknown.stderr
    assert streamflow(stack_settings, *arguments[:3]).returncode == 0
    group = group_of(stack_settings, path)
    client = admin(stack_settings)
    client.delete_consumer_groups([group])[group].result(20)
    write(path, [event(1), event(2), event(3)])
    again = streamflow(stack_settings, *arguments)
    assert (again.returncode, again.stdout.split(" in ")[0]) == (0, "sent 1 event")
    assert len(stored_values(stack_settings, "user-events")) == 3


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--from", "missing.ndjson"), "missing.ndjson cannot be read: No such file"),
        (("--from", "."), "is a folder"),
        (("--resume",), "--resume needs a file"),
        (("--from", "-", "--resume"), "--resume needs a file"),
        (("--invalid-ratio", "2"), "invalid-ratio"),
        (("--rate", "0"), "rate"),
    ],
)
def test_wrong_usage_is_told(
    arguments: tuple[str, ...], says: str, settings_without_topics: Settings
) -> None:
    done = streamflow(settings_without_topics, "produce", *arguments)
    assert done.returncode == 2
    assert says in done.stderr


def test_a_missing_topic_is_told(settings_without_topics: Settings) -> None:
    done = streamflow(settings_without_topics, "produce", "--count", "1")
    assert done.returncode == 1
    assert "run `streamflow init`" in done.stderr
    assert len(done.stderr.splitlines()) == 2  # with what it says of the missing key


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read anything")
def test_an_unreadable_file_is_told(settings_without_topics: Settings, tmp_path: Path) -> None:
    path = write(tmp_path / "in.ndjson", [event(1)])
    path.chmod(0)
    done = streamflow(settings_without_topics, "produce", "--from", str(path))
    assert done.returncode == 2
    assert "Permission denied" in done.stderr


def test_doctor_compares_the_broker_s_clock_also_behind_a_transaction(
    stack_settings: Settings, tmp_path: Path
) -> None:
    assert "broker's clock   unknown" in streamflow(stack_settings, "doctor").stdout
    lines = write(tmp_path / "one.ndjson", [event(1)])
    # A file is sent in transactions: the last offset is a marker's, and no record's.
    assert streamflow(stack_settings, "produce", "--from", str(lines)).returncode == 0
    found = streamflow(stack_settings, "doctor").stdout
    assert "broker's clock   not ahead of ours; last append" in found
