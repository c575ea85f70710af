"""Producing while the client's queue is full: a real client, whose broker is away."""

import time

import pytest
from confluent_kafka import Producer

from streamflow.errors import Unavailable
from streamflow.kafka.producing import produce, produce_all, produce_and_flush
from streamflow.records import OutRecord

RECORD = OutRecord("nowhere", b"k", b"v", [("a", b"1"), ("b", None)])


def client(*, given_up_after: float) -> Producer:
    """A client whose queue holds one record."""
    return Producer(
        {
            "bootstrap.servers": "127.0.0.1:1",
            "queue.buffering.max.messages": 1,
            "message.timeout.ms": int(given_up_after * 1000),
            "log_level": 0,
        }
    )


def test_a_full_queue_is_waited_for() -> None:
    full = client(given_up_after=0.3)
    given_up = []

    produce(full, RECORD, on_delivery=lambda error, _: given_up.append(error))
    produce_all(full, [RECORD])

    assert len(given_up) == 1
    # Its length would count events of the client as well.
    with pytest.raises(BufferError):
        full.produce("nowhere", b"v")
    full.purge()


def test_the_wait_for_room_has_an_end() -> None:
    full = client(given_up_after=60)
    produce(full, RECORD)

    began = time.monotonic()
    with pytest.raises(Unavailable, match=r"took no record for 0\.3 s"):
        produce(full, RECORD, timeout=0.3)

    assert 0.3 < time.monotonic() - began < 3
    full.purge()


def test_a_record_that_is_not_delivered_is_an_error() -> None:
    with pytest.raises(Unavailable, match="did not take a record"):
        produce_and_flush(client(given_up_after=0.3), [RECORD])
