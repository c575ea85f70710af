"""What became of events on their way to a client, from what the client has noted."""

import struct

import pytest

from streamflow.errors import Unavailable
from streamflow_bench.delivery import judge
from streamflow_bench.latency import Pace
from streamflow_bench.listener import CONNECTED, NOTE_BYTES, Note, read_notes

# Sent as numbers 2, 3 and 4.
SENT = [10.0, 11.0, 12.0]


def test_all_that_came_in_time() -> None:
    notes = [Note(CONNECTED, 8.0), Note(1, 9.5), Note(2, 10.5), Note(4, 12.1), Note(3, 11.2)]
    found = judge(SENT, 2, notes, 1.0)
    assert (found.lost, found.doubled, found.reported_missed) == (0, 0, 0)
    assert found.latencies.events == 3
    assert found.latencies.p50_ms == pytest.approx(200)
    assert found.latencies.max_ms == pytest.approx(500)


def test_what_never_came_is_lost_and_what_came_twice_is_told() -> None:
    notes = [Note(2, 10.1), Note(2, 10.9), Note(-2, 12.0)]
    found = judge(SENT, 2, notes, 1.0)
    assert (found.lost, found.doubled, found.reported_missed) == (2, 1, 2)
    assert found.latencies.max_ms == pytest.approx(100)
    assert found.named()["lost"] == 2


def test_a_latency_of_nothing_is_an_error() -> None:
    with pytest.raises(Unavailable, match="delivered none of 3 events"):
        judge(SENT, 2, [Note(1, 9.5)], 1.0)


def test_a_note_that_is_not_whole_is_read_later() -> None:
    data = struct.pack("<qdqd", 7, 1.5, -3, 2.5)
    assert read_notes(data) == [(7, 1.5), (-3, 2.5)]
    assert read_notes(data[:-1]) == [(7, 1.5)]
    assert read_notes(data[: NOTE_BYTES - 1]) == []


def test_a_pace_is_of_one_event_at_least() -> None:
    assert Pace(5_000, 30).events == 150_000
    assert Pace(5_000, 0.00001).events == 1
