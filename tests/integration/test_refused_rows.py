"""Events that their contract accepts and their table refuses: dead letters that were counted."""

import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated
from urllib.error import HTTPError

import pytest
from pydantic import AfterValidator, create_model

from faults import wait_until
from loads import FakeRecord, Load, batch, execute, rows, value
from loads import event as an_event
from pipeline import (
    WorkerProcess,
    audit,
    event,
    events,
    produce,
    stored_values,
    streamflow,
    workers,
)
from streamflow.contract import Event, Timestamp
from streamflow.errors import CircuitOpen
from streamflow.postgres import schema
from streamflow.records import last_header
from streamflow.registry import load_streams
from streamflow.settings import Settings
from streamflow.stream import Stream
from streamflow.streams.user_events import USER_EVENTS
from streaming_workers.drain import drain
from streaming_workers.runtime.breaker import Breaker

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

COUNTED = "SELECT coalesce(sum(count), 0)::int FROM window_counts"


def test_the_ledger_closes_over_them_and_over_their_replays(
    stack_settings: Settings, tmp_path: Path
) -> None:
    execute(
        stack_settings, "ALTER TABLE events ADD CONSTRAINT odd CHECK (id NOT IN (13, 77, 9001))"
    )
    # One is far ahead of the broker's clock: it was counted before its window closed.
    ahead = event(9_001, at=datetime.now(UTC) + timedelta(days=1))
    produce(stack_settings, "user-events", [*events(300)[0], ahead])
    with workers(stack_settings, tmp_path):

        def is_counted(number: int) -> None:
            wait_until(lambda: value(stack_settings, COUNTED) == number, 60, f"{number} counted")
            report = audit(stack_settings)
            assert report.closed, report.problems

        is_counted(301)
        assert value(stack_settings, "SELECT count(*) FROM events") == 298
        assert (
            value(stack_settings, "SELECT count(*) FROM dead_letters WHERE stage = 'loader'") == 3
        )

        execute(stack_settings, "ALTER TABLE events DROP CONSTRAINT odd")
        execute(stack_settings, "ALTER TABLE events ADD CONSTRAINT odd CHECK (id <> 77)")
        done = streamflow(stack_settings, "dlq", "replay", "--apply", "--canary", "0")
        assert done.returncode == 1, done.stdout + done.stderr
        # What is replayed is counted where the replay lies, as its window had counted it before.
        is_counted(304)
        assert value(stack_settings, "SELECT count(*) FROM events") == 300

        execute(stack_settings, "ALTER TABLE events DROP CONSTRAINT odd")
        done = streamflow(stack_settings, "dlq", "replay", "--apply", "--canary", "0")
        assert done.returncode == 0, done.stdout + done.stderr
        is_counted(305)
        assert value(stack_settings, "SELECT count(*) FROM events") == 301


@pytest.fixture
def closed_table(stack_settings: Settings) -> Settings:
    """A table that takes no event at all."""
    execute(stack_settings, "ALTER TABLE events ADD CONSTRAINT none_at_all CHECK (id < 0)")
    return stack_settings


def test_a_table_that_refuses_everything_stops_the_loader(
    closed_table: Settings, tmp_path: Path
) -> None:
    settings = closed_table
    produce(settings, "user-events", events(3_000)[0])
    limits = {"STREAMFLOW_BREAKER_CONSECUTIVE": "500"}
    with workers(settings, tmp_path, ("validator", "analytics")) as running:
        running["validator"].wait_assigned()
        # Events and what was made of them come mixed: the limit is for each topic on its own.
        wait_until(lambda: running["validator"].metric("streamflow_records_in_total") == 3_000, 60)
        loader = WorkerProcess(settings, "loader", tmp_path / "loader.log", **limits)
        try:
            wait_until(lambda: loader.said("circuit open"), 60, "the loader to stop")
            assert loader.process.poll() is None
            with pytest.raises(HTTPError, match="503"):
                loader.get("/ready")
            assert stored_values(settings, "dead-letter-topic") == []
            assert value(settings, "SELECT count(*) FROM refused_events") == 0
        finally:
            assert loader.stop() == 0
        execute(settings, "ALTER TABLE events DROP CONSTRAINT none_at_all")
        mended = WorkerProcess(settings, "loader", tmp_path / "mended.log", **limits)
        try:
            report = audit(settings)
            assert report.closed, report.problems
            assert value(settings, "SELECT count(*) FROM events") == 3_000
        finally:
            mended.kill()


def test_a_drain_stops_as_well(closed_table: Settings) -> None:
    produce(closed_table, "user-events", events(600)[0])
    settings = closed_table.model_copy(update={"breaker_consecutive": 500})
    streams = load_streams(settings)
    # As many as the first batches happened to hold.
    with pytest.raises(CircuitOpen, match=r"[56]\d\d records in a row were refused"):
        drain(settings, streams, [streams[0].topic])
    assert stored_values(settings, "dead-letter-topic") == []


def test_rejected_records_between_refused_rows_do_not_break_their_row(
    closed_table: Settings,
) -> None:
    """The database refuses whatever the contract accepts, however much of the batch that is."""
    load = Load(closed_table, breaker=Breaker(10_000, 0.9, 200))
    valid_and_not = [
        FakeRecord(offset, an_event(offset) if offset % 2 else b"{}") for offset in range(400)
    ]
    with closing(load.sink):
        with pytest.raises(CircuitOpen, match="200 records in a row were refused"):
            load.load(valid_and_not)
        assert load.delivered == []
        load.load(valid_and_not[:399])
        assert len(load.delivered) == 199


def test_thousands_of_refused_rows_take_no_minute(closed_table: Settings) -> None:
    load = Load(closed_table)
    began = time.monotonic()
    with closing(load.sink):
        load.load([FakeRecord(offset, an_event(offset)) for offset in range(5_000)])
    assert time.monotonic() - began < 40  # one by one, it took 83 s
    assert load.sink.counters.refused == 5_000
    assert value(closed_table, "SELECT count(*) FROM refused_events") == 5_000


def test_a_row_that_copy_cannot_read_is_refused_alone(stack_settings: Settings) -> None:
    """Whatever made it: the loader must not stop for it, for it has the rows of all streams."""
    load = Load(stack_settings)
    breaks = {
        2: (b"user2", b"us\x00r2"),
        5: (b"user5", b"us\tr5"),
        6: (b"user6", b"us\nr6"),
        8: (b"USER_LOGIN", b"USER\x00LOGIN"),  # what the windows count by
        9: (b"user9", b"us\xffr9"),
        11: (b"11\t", b"eleven\t"),
    }
    with closing(load.sink):
        output = load.loader.process(
            batch([FakeRecord(each, an_event(each)) for each in range(12)])
        )
        lines = output.tables["events"].lines
        for number, change in breaks.items():
            lines[number] = lines[number].replace(*change, 1)
        load.resume()
        load.sink.commit(output)
        load.sink.flush()

    codes = {
        int(last_header(each.headers, "__connect.errors.offset") or b""): last_header(
            each.headers, "__connect.errors.exception.message"
        )
        for each in load.delivered
    }
    states = {2: 22021, 5: "22P04", 6: "22P04", 8: 22021, 9: 22021, 11: "22P02"}
    assert codes == {
        number: f"the database refuses it: SQLSTATE {state}".encode()
        for number, state in states.items()
    }
    assert rows(stack_settings, "SELECT id FROM events ORDER BY id") == [
        (each,) for each in range(12) if each not in breaks
    ]
    noted = 'SELECT "offset", event_type, event_time IS NOT NULL FROM refused_events ORDER BY 1'
    assert rows(stack_settings, noted) == [
        (each, None if each in (5, 8) else "USER_LOGIN", True) for each in breaks
    ]


def made_stream() -> Stream:
    model = create_model(
        "Made",
        __base__=Event,
        timestamp=(Timestamp, ...),
        x=(Annotated[str, AfterValidator(lambda text: text.replace("~", "\x00"))], ...),
        path=(str, "C:\\temp\\new"),
        text=(str, "a\tb\n"),
        null=(str, "\\N"),
    )
    return Stream(name="made", contract=model, table="made", key="x")


def test_what_validators_and_defaults_make_stops_no_other_stream(stack_settings: Settings) -> None:
    made = made_stream()
    schema.upgrade(stack_settings, [USER_EVENTS, made])
    load = Load(stack_settings, [USER_EVENTS, made])
    at = '"timestamp": "2026-07-01T12:00:00Z"'
    with closing(load.sink):
        load.load([
            FakeRecord(0, an_event(0)),
            FakeRecord(0, f'{{{at}, "x": "a~b"}}'.encode(), topic="made"),
            FakeRecord(1, f'{{{at}, "x": "ab"}}'.encode(), topic="made"),
            FakeRecord(1, an_event(1)),
        ])  # fmt: skip
    # The validator's dead letter is not the loader's.
    assert load.delivered == []
    assert value(stack_settings, "SELECT count(*) FROM events") == 2
    assert rows(stack_settings, 'SELECT x, path, text, "null" FROM made') == [
        ("ab", "C:\\temp\\new", "a\tb\n", "\\N")
    ]


def test_each_refused_row_is_found_whatever_refuses_it(stack_settings: Settings) -> None:
    for statement in (
        "ALTER TABLE events ADD CONSTRAINT odd CHECK (id <> 3)",
        'ALTER TABLE events ALTER COLUMN "user" TYPE varchar(5)',
        """CREATE FUNCTION no_five() RETURNS trigger LANGUAGE plpgsql AS $$
           BEGIN IF new.id = 5 THEN RAISE 'no five'; END IF; RETURN new; END $$""",
        "CREATE TRIGGER five BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION no_five()",
    ):
        execute(stack_settings, statement)
    load = Load(stack_settings)
    with closing(load.sink):
        load.load([FakeRecord(each, an_event(each)) for each in range(12)])
    refused = {
        int(last_header(each.headers, "__connect.errors.offset") or b""): last_header(
            each.headers, "__connect.errors.exception.message"
        )
        for each in load.delivered
    }
    assert refused == {
        3: b"the database refuses it: SQLSTATE 23514, constraint odd",
        5: b"the database refuses it: SQLSTATE P0001",
        10: b"the database refuses it: SQLSTATE 22001",
        11: b"the database refuses it: SQLSTATE 22001",
    }
    assert value(stack_settings, "SELECT count(*) FROM events") == 8
