"""Recovering killed replays: Kafka's log decides what was sent, before anything is sent again."""

import time
from contextlib import suppress
from typing import Final

from streamflow.dead_letters import store
from streamflow.dead_letters.store import RunningReplay
from streamflow.errors import StreamFlowError
from streamflow.kafka.reader import committed_among
from streamflow.kafka.transactions import Publisher
from streamflow.postgres.connections import Connection, session
from streamflow.settings import Settings

_RELEASE: Final = 5.0  # seconds until the database has noticed that a connection was closed
_POLL: Final = 0.05  # seconds


def recover(settings: Settings, connection: Connection) -> list[int]:
    """Ends each replay that is recorded as running but whose process is gone; returns their ids.

    1. take its lock, which its connection would hold if it were alive;
    2. fence its producer: Kafka commits or aborts its open transaction;
    3. look up which of its records are in the topic;
    4. in one transaction: those are sent; the other dead letters are open again.

    Raises:
        Unavailable: broker or database does not answer; nothing wrong was recorded.
    """
    ended = []
    for replay in store.running(connection):
        if store.try_lock(connection, replay.id):
            try:
                _end(settings, connection, replay, "its process ended before it did")
                ended.append(replay.id)
            finally:
                store.unlock(connection, replay.id)
    return ended


def _end(settings: Settings, connection: Connection, replay: RunningReplay, note: str) -> None:
    unconfirmed = store.unconfirmed(connection, replay.id)
    positions = {position for position in unconfirmed if position is not None}
    if unconfirmed:
        Publisher(settings, replay.transactional_id).close()
    committed = committed_among(settings, positions) if positions else set()
    store.resolve(connection, replay.id, committed, note)


def give_up(settings: Settings, replay: RunningReplay, why: str) -> None:
    """Ends a replay of this process that cannot go on, on a new connection; the old one must be closed.
    If that fails too, the next replay recovers it."""
    with suppress(StreamFlowError), session(settings, "replay-recovery") as connection:
        deadline = time.monotonic() + _RELEASE
        while not store.try_lock(connection, replay.id):
            if time.monotonic() > deadline:
                return
            time.sleep(_POLL)
        _end(settings, connection, replay, why)
