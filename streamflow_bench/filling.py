"""Fills tables as traffic would, without any: by statements of the database."""

import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from streamflow.postgres import row_counts
from streamflow.postgres.connections import Connection, session
from streamflow.postgres.partitions import DayPartitions
from streamflow.registry import load_streams
from streamflow.settings import Settings

PARTITIONS: Final = 3

_ROOM: Final = 1.1
_LEAST_ROOM: Final = 1_000  # offsets
_SPAN: Final = timedelta(minutes=10)

USER_EVENTS: Final = """
INSERT INTO events (id, type, "user", user_email, timestamp, origin_topic, origin_partition, origin_offset,
                    appended_at, loaded_at)
SELECT n, (ARRAY['USER_LOGIN', 'USER_LOGIN_FAILED', 'USER_LOGOUT', 'USER_SIGNUP'])[1 + n * 7 %% 4],
       'user-' || abs(hashint8(n)) %% 100000, md5(n::text) || md5(n::text), at, %(topic)s, n %% {partitions},
       n / {partitions}, at + interval '5 ms', at + interval '50 ms'
  FROM (SELECT n, %(since)s + n * %(step)s::interval AS at
          FROM generate_series(0::bigint, %(number)s - 1) AS n) AS made
"""


class Stage:
    """Fills the tables one after the other.

    Attributes:
        ends: where the logs of a topic end, the same in each of its partitions.
        stored: rows of each topic.
        others: records of each topic that became none.
    """

    def __init__(self, connection: Connection, span: timedelta, say: Callable[[str], None]) -> None:
        self._connection = connection
        self._say = say
        self._span = span
        now = datetime.now(UTC)
        self._since = now - span
        self._days = (now.date() - self._since.date()).days + 1
        self.ends: Counter[str] = Counter()
        self.stored: Counter[str] = Counter()
        self.others: Counter[str] = Counter()

    def prepare_days(self, table: str) -> None:
        days = [(self._since + timedelta(days=day)).date() for day in range(self._days)]
        DayPartitions(table).prepare(self._connection, days)

    def fill(self, query: str, topic: str, derived: str = "", number: int = 1, **names: str) -> int:
        """Runs a statement that inserts rows, spread over the span.

        Args:
            topic: of the events.
            derived: the topic of the records that the rows are of, if that is another one.
            number: how many rows, where the statement does not say.
        """
        began = time.monotonic()
        values = {
            "topic": topic,
            "derived": derived,
            "since": self._since,
            "step": self._span / number,
            "number": number,
            "from": self.ends[topic],
            "first": self.ends[derived],
        }
        statement = query.format(partitions=PARTITIONS, **names)
        rows = self._connection.execute(statement.encode(), values).rowcount
        into = statement.partition("INSERT INTO ")[2].split()[0]
        self._say(f"{rows:>10,} rows in {time.monotonic() - began:5.1f} s  {into}")
        return rows

    def moved(self, topic: str, rows: int, others: int = 0) -> None:
        """Notes rows of a topic's records, which are spread over the partitions almost evenly."""
        self.ends[topic] += int(_ROOM * (rows + others) / PARTITIONS) + _LEAST_ROOM
        self.stored[topic] += rows
        self.others[topic] += others


def fill_events(settings: Settings, rows: int, say: Callable[[str], None]) -> None:
    """Gives ``events`` so many rows of another topic, on the day that the bench's own are of: where new
    rows come to."""
    if not rows:
        return
    [stream] = load_streams(settings)
    with session(settings, "bench") as connection:
        connection.execute("SET synchronous_commit = off")
        stage = Stage(connection, _SPAN, say)
        stage.prepare_days(stream.event_table)
        stage.fill(USER_EVENTS, f"{stream.topic}.before", number=rows)
        connection.execute("TRUNCATE row_counts")
        row_counts.begin(connection, row_counts.counted_tables([stream]))
        connection.execute("VACUUM (ANALYZE) events")
