"""Measures the database: rows, latency of the newest ones, dead letters. Cheap however many rows there
are: each query reads a position table, kept counts, an index, or the end of the newest day."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple

import psycopg
from psycopg import sql

from streamflow.flow import Partition
from streamflow.lag.measure import Bounds, offsets_behind
from streamflow.postgres.connections import Connection, connect, faulty_statement, translate
from streamflow.postgres.sink.positions import Loaded, loaded
from streamflow.settings import Settings
from streamflow.stream import Stream

# Of every connection of the dashboard.
STATEMENT_TIMEOUT: Final = 5  # seconds
READ_ONLY: Final = "SET default_transaction_read_only = on"
_SAMPLE: Final = 5_000  # rows
_LOOK_BACK: Final = 3  # seconds of loading that the latency is taken of
_SELDOM: Final = 5.0  # seconds between two queries of what rarely changes


class Latency(NamedTuple):
    """p50 and p99 of the rows just loaded, in seconds.

    Attributes:
        event: from event time to load time.
        append: from append time to load time; None without append times.
    """

    event: tuple[float, float]
    append: tuple[float, float] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresSample:
    """The database at one moment.

    Attributes:
        loaded: how far the loader is, by partition.
        loaded_at: when the loader last moved.
        latency: of the stream's rows loaded just now, by stream; absent where none was.
        dead_letters: how many dead letters, by topic, code and status: by the topic of the stream that
            the record was of, or was made from.
        rejected_from: dead letters by the topic of the record that failed.
        duplicates: recognised duplicates by topic.
        size: of the database, in bytes.
        connections: open now.
        version: of the server.
    """

    loaded: Mapping[Partition, Loaded]
    loaded_at: datetime | None
    latency: Mapping[str, Latency]
    dead_letters: Mapping[tuple[str, str, str], int]
    rejected_from: Mapping[str, int]
    duplicates: Mapping[str, int]
    size: int
    connections: int
    version: str

    def codes(self, topic: str | None = None) -> Counter[str]:
        """Dead letters by code, of a stream by its topic or of all."""
        return self._dead_letters_by(1, topic)

    def statuses(self, topic: str | None = None) -> Counter[str]:
        """Dead letters by status, of a stream by its topic or of all."""
        return self._dead_letters_by(2, topic)

    def _dead_letters_by(self, place: int, topic: str | None) -> Counter[str]:
        counts: Counter[str] = Counter()
        for group, number in self.dead_letters.items():
            if topic in (None, group[0]):
                counts[group[place]] += number
        return counts

    def records(self, topic: str) -> int:
        """Records of a topic that the loader has read."""
        return sum(done.records for (name, _), done in self.loaded.items() if name == topic)

    def rejected(self, topic: str) -> int:
        """How many of them were not stored in its table."""
        return sum(done.rejected for (name, _), done in self.loaded.items() if name == topic)

    def waiting(self, topic: str, bounds: Bounds) -> int:
        """How many offsets of a topic the loader has still to read."""
        positions = {partition: done.next_offset for partition, done in self.loaded.items()}
        return sum(
            offsets_behind(positions.get(partition), ends)
            for partition, ends in bounds.items()
            if partition[0] == topic
        )

    def stored(self, topic: str) -> int:
        """How many of them were stored as rows."""
        return self.records(topic) - self.rejected(topic) - self.duplicates.get(topic, 0)


_LATENCY: Final = """
SELECT count(*), percentile_disc(ARRAY[0.5, 0.99]) WITHIN GROUP (ORDER BY event_lag),
       percentile_disc(ARRAY[0.5, 0.99]) WITHIN GROUP (ORDER BY append_lag)
  FROM (SELECT extract(epoch FROM loaded_at - {time})::float8 AS event_lag,
               extract(epoch FROM loaded_at - appended_at)::float8 AS append_lag
          FROM {table}
         WHERE loaded_at >= now() - {look_back} * interval '1 s'
           AND {time} >= now() - interval '1 day'
           AND {time} < now() + interval '1 hour'
         LIMIT {sample}) AS newest
"""
# Behind the "@" is what tells a set-aside topic from its successor.
_DEAD_LETTERS: Final = """
SELECT CASE WHEN split_part(source_topic, '@', 1) = ANY(%s) THEN split_part(source_topic, '@', 1)
            ELSE split_part(origin_topic, '@', 1) END, error_code, status, sum(number)::bigint
  FROM dead_letter_counts GROUP BY 1, 2, 3 HAVING sum(number) > 0
"""
_COUNTS: Final = """
SELECT 'refused', source_topic, sum(number)::bigint FROM dead_letter_counts
 WHERE NOT is_foreign GROUP BY source_topic HAVING sum(number) > 0
UNION ALL SELECT 'duplicates', topic, sum(number)::bigint FROM duplicate_counts
 GROUP BY topic HAVING sum(number) > 0
"""
_SERVER: Final = """
SELECT pg_database_size(current_database()), count(*) FILTER (WHERE datname = current_database()),
       current_setting('server_version') FROM pg_stat_activity
"""


class PostgresSource:
    """Measures on one connection, which it keeps."""

    def __init__(self, settings: Settings, streams: Sequence[Stream]) -> None:
        self._settings = settings
        self._streams = tuple(streams)
        self._connection: Connection | None = None
        self._server: tuple[int, int, str] = (0, 0, "")
        self._ask_server_at = float("-inf")

    def __call__(self) -> PostgresSample:
        """Measures.

        Raises:
            Unavailable: the database does not answer.
            ConfigurationError: it refuses.
        """
        try:
            if self._connection is None:
                self._connection = connect(
                    self._settings, "dashboard", statement_timeout=STATEMENT_TIMEOUT
                )
                self._connection.execute(READ_ONLY)
            return self._measure(self._connection)
        except psycopg.Error as error:
            self.close()
            raise translate(error) from error

    def close(self) -> None:
        """Closes the connection; the next call opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
            self._ask_server_at = float("-inf")

    def _measure(self, connection: Connection) -> PostgresSample:
        group = self._settings.group("loader")
        [(loaded_at,)] = connection.execute(
            "SELECT max(updated_at) FROM loader_positions WHERE group_name = %s", [group]
        )
        topics = [stream.topic for stream in self._streams]
        dead_letters = {
            (topic, code, status): number
            for topic, code, status, number in connection.execute(_DEAD_LETTERS, [topics])
        }
        counts: dict[str, dict[str, int]] = {kind: {} for kind in ("refused", "duplicates")}
        for kind, name, number in connection.execute(_COUNTS):
            counts[kind][name] = number
        now = time.monotonic()
        if now >= self._ask_server_at:
            [self._server] = connection.execute(_SERVER)
            self._ask_server_at = now + _SELDOM
        size, connections, version = self._server
        return PostgresSample(
            loaded=loaded(connection, group),
            loaded_at=loaded_at,
            latency=self._latencies(connection),
            dead_letters=dead_letters,
            rejected_from=counts["refused"],
            duplicates=counts["duplicates"],
            size=size,
            connections=connections,
            version=version,
        )

    def _latencies(self, connection: Connection) -> dict[str, Latency]:
        latencies = {}
        for stream in self._streams:
            query = sql.SQL(_LATENCY).format(
                table=sql.Identifier(stream.event_table),
                time=sql.Identifier(stream.event_time),
                look_back=sql.Literal(_LOOK_BACK),
                sample=sql.Literal(_SAMPLE),
            )
            try:
                [(rows, event, append)] = connection.execute(query)
            except psycopg.Error as error:
                # A stream whose table is not as declared has no latency; the others have theirs.
                if faulty_statement(error) is None:
                    raise
                continue
            if rows:
                known = append is not None and append[0] is not None
                latencies[stream.name] = Latency(tuple(event), tuple(append) if known else None)
        return latencies
