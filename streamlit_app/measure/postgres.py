"""Measures the database: rows, latency of the newest ones, dead letters. Cheap however many rows there
are: each query reads a position table, an index, or the end of the newest day."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple

import psycopg
from psycopg import sql

from streamflow.flow import Partition
from streamflow.postgres.connections import Connection, connect, translate
from streamflow.postgres.sink.positions import Loaded, loaded
from streamflow.settings import Settings
from streamflow.stream import Stream

_TIMEOUT: Final = 5  # seconds; of a statement
_SAMPLE: Final = 5_000  # rows
_LOOK_BACK: Final = 3  # seconds of loading that the latency is taken of
_SELDOM: Final = 5.0  # seconds between two queries of what rarely changes
_SHARE: Final = 20  # a query that took so long is asked again after that many times as long


class Latency(NamedTuple):
    """Latencies of the rows just loaded, in seconds.

    Attributes:
        rows: how many rows were sampled.
        event: p50 and p99 from event time to load time.
        append: p50 and p99 from the broker's time to load time; None without broker times.
        newest: the newest event time among them.
    """

    rows: int
    event: tuple[float, float]
    append: tuple[float, float] | None
    newest: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresSample:
    """The database at one moment.

    Attributes:
        loaded: how far the loader is, by partition.
        loaded_at: when the loader last moved.
        latency: of the stream's rows loaded just now, by stream; absent where none was.
        dead_letters: dead letters by code.
        statuses: dead letters by status.
        rejected_from: dead letters by the topic of the record that failed.
        duplicates: recognised duplicates by topic.
        size: of the database, in bytes.
        connections: open now.
        version: of the server.
    """

    loaded: Mapping[Partition, Loaded]
    loaded_at: datetime | None
    latency: Mapping[str, Latency]
    dead_letters: Mapping[str, int]
    statuses: Mapping[str, int]
    rejected_from: Mapping[str, int]
    duplicates: Mapping[str, int]
    size: int
    connections: int
    version: str

    def position(self, partition: Partition) -> int | None:
        """The loader's position; None where it has read nothing yet."""
        loaded = self.loaded.get(partition)
        return None if loaded is None else loaded.next_offset

    def records(self, topic: str) -> int:
        """Records of a topic that the loader has read."""
        return sum(each.records for (name, _), each in self.loaded.items() if name == topic)

    def rejected(self, topic: str) -> int:
        """Those of them that were not stored in its table."""
        return sum(each.rejected for (name, _), each in self.loaded.items() if name == topic)

    def stored(self, topic: str) -> int:
        """Rows that were stored of a topic's records."""
        return self.records(topic) - self.rejected(topic) - self.duplicates.get(topic, 0)


_LATENCY: Final = """
SELECT count(*), percentile_disc(ARRAY[0.5, 0.99]) WITHIN GROUP (ORDER BY event_lag),
       percentile_disc(ARRAY[0.5, 0.99]) WITHIN GROUP (ORDER BY append_lag), max(moment)
  FROM (SELECT "timestamp" AS moment,
               extract(epoch FROM loaded_at - "timestamp")::float8 AS event_lag,
               extract(epoch FROM loaded_at - appended_at)::float8 AS append_lag
          FROM {table}
         WHERE loaded_at >= now() - {look_back} * interval '1 s'
           AND "timestamp" >= now() - interval '1 day'
           AND "timestamp" < now() + interval '1 hour'
         LIMIT {sample}) AS newest
"""
_COUNTS: Final = """
SELECT 'letters', error_code, count(*) FROM dead_letters GROUP BY error_code
UNION ALL SELECT 'statuses', status, count(*) FROM dead_letters GROUP BY status
UNION ALL SELECT 'refused', source_topic, count(*) FROM dead_letters
  WHERE (record_topic, record_partition, record_offset)
     IS DISTINCT FROM (source_topic, source_partition, source_offset) GROUP BY source_topic
UNION ALL SELECT 'duplicates', topic, count(*) FROM duplicates GROUP BY topic
"""
_SERVER: Final = """
SELECT pg_database_size(current_database()), count(*) FILTER (WHERE datname = current_database()),
       current_setting('server_version') FROM pg_stat_activity
"""


class PostgresSource:
    """Asks the database, on one connection that it keeps.

    Args:
        settings: where it is.
        streams: whose tables are measured.
    """

    name = "PostgreSQL"

    def __init__(self, settings: Settings, streams: Sequence[Stream]) -> None:
        self._settings = settings
        self._streams = tuple(streams)
        self._connection: Connection | None = None
        self._counts: dict[str, dict[str, int]] = {}
        self._server: tuple[int, int, str] = (0, 0, "")
        self._ask_counts_at = self._ask_server_at = float("-inf")

    def __call__(self) -> PostgresSample:
        """Measures.

        Raises:
            Unavailable: the database does not answer.
            ConfigurationError: it refuses.
        """
        try:
            if self._connection is None:
                self._connection = open_reader(self._settings, "dashboard")
            return self._measure(self._connection)
        except psycopg.Error as error:
            self.close()
            raise translate(error) from error

    def close(self) -> None:
        """Closes the connection; the next call opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
            self._ask_counts_at = self._ask_server_at = float("-inf")

    def _measure(self, connection: Connection) -> PostgresSample:
        group = self._settings.group("loader")
        row = connection.execute(
            "SELECT max(updated_at) FROM loader_positions WHERE group_name = %s", [group]
        ).fetchone()
        now = time.monotonic()
        if now >= self._ask_counts_at:
            self._counts = _nested(connection.execute(_COUNTS).fetchall())
            took = time.monotonic() - now
            # Few dead letters are counted with every sample; many of them rarely.
            self._ask_counts_at = now + took * _SHARE
        if now >= self._ask_server_at:
            self._server = connection.execute(_SERVER).fetchone() or self._server
            self._ask_server_at = now + _SELDOM
        size, connections, version = self._server
        return PostgresSample(
            loaded=loaded(connection, group),
            loaded_at=row[0] if row else None,
            latency=self._latencies(connection),
            dead_letters=self._counts.get("letters", {}),
            statuses=self._counts.get("statuses", {}),
            rejected_from=self._counts.get("refused", {}),
            duplicates=self._counts.get("duplicates", {}),
            size=size,
            connections=connections,
            version=version,
        )

    def _latencies(self, connection: Connection) -> dict[str, Latency]:
        found = {}
        for stream in self._streams:
            query = sql.SQL(_LATENCY).format(
                table=sql.Identifier(stream.table),
                look_back=sql.Literal(_LOOK_BACK),
                sample=sql.Literal(_SAMPLE),
            )
            row = connection.execute(query).fetchone()
            if row and row[0]:
                rows, event, append, newest = row
                both = None if append is None or append[0] is None else (append[0], append[1])
                found[stream.name] = Latency(rows, (event[0], event[1]), both, newest)
        return found


def open_reader(settings: Settings, name: str) -> Connection:
    """A read-only connection whose statements time out soon.

    Raises:
        Unavailable: the database does not answer.
        ConfigurationError: it refuses.
    """
    connection = connect(settings, name, statement_timeout=_TIMEOUT)
    connection.execute("SET default_transaction_read_only = on")
    return connection


def _nested(rows: Sequence[tuple[Any, ...]]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for kind, name, number in rows:
        found.setdefault(kind, {})[name] = number
    return found
