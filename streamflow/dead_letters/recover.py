"""What killed replays left behind is decided here, from Kafka's log, before anything is sent anew."""

import time
from contextlib import suppress
from typing import Final

from streamflow.dead_letters import store as replay_store
from streamflow.dead_letters.store import Running
from streamflow.errors import StreamFlowError
from streamflow.kafka.reader import committed_among
from streamflow.kafka.transactions import Publisher
from streamflow.postgres.connections import Connection, session
from streamflow.settings import Settings

KILLED: Final = "its process ended before it did"
_RELEASE: Final = 5.0  # seconds until the database has noticed that a connection was closed
_POLL: Final = 0.05  # seconds


def recover(settings: Settings, connection: Connection) -> list[int]:
    """Ends each replay that is written down as running but whose process is gone.

    1. take its lock: while its connection lives, it lives;
    2. fence its producer, which commits or aborts what it left open in Kafka;
    3. see which of its records are in the topic;
    4. in one transaction: those are sent; the other letters are open again.

    Returns:
        Their ids.

    Raises:
        Unavailable: broker or database does not answer; nothing was decided that is not so.
    """
    ended = []
    for replay in replay_store.running(connection):
        if replay_store.try_lock(connection, replay.id):
            try:
                _end(settings, connection, replay, KILLED)
                ended.append(replay.id)
            finally:
                replay_store.unlock(connection, replay.id)
    return ended


def recover_before_plan(settings: Settings) -> list[int]:
    """Recovers killed replays on a connection of its own, so that a plan sees their dead letters as
    what they are. Changes nothing where no replay was killed.

    Returns:
        The ids of the replays that it has ended.

    Raises:
        Unavailable: broker or database does not answer.
    """
    with session(settings, "replay-recovery") as connection:
        ended = recover(settings, connection)
        replay_store.settle(connection)
    return ended


def _end(settings: Settings, connection: Connection, replay: Running, note: str) -> None:
    unconfirmed = replay_store.unconfirmed(connection, replay.id)
    positions = {each for each in unconfirmed if each is not None}
    if unconfirmed:
        Publisher(settings, replay.transactional_id).close()
    committed = committed_among(settings, positions) if positions else set()
    replay_store.resolve(connection, replay.id, committed, note)


def give_up(settings: Settings, replay: Running, why: str) -> None:
    """Ends a replay of this process that cannot go on, on a connection of its own; the old one must
    be closed. Where that fails as well, the next replay does it (`recover`)."""
    with suppress(StreamFlowError), session(settings, "replay-recovery") as connection:
        deadline = time.monotonic() + _RELEASE
        while not replay_store.try_lock(connection, replay.id):
            if time.monotonic() > deadline:
                return
            time.sleep(_POLL)
        _end(settings, connection, replay, why)
