"""The sink of the loader: rows and positions in one PostgreSQL transaction (G1)."""

import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import compress
from threading import Lock
from typing import Final

import psycopg
import structlog
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from streamflow.calls import call
from streamflow.errors import Fenced
from streamflow.flow import Limit, Output, Partition, TableRows
from streamflow.monitoring import DUPLICATES, RECORDS_REJECTED
from streamflow.postgres import gaps, row_counts, state
from streamflow.postgres.connections import (
    Connection,
    connect,
    is_contention,
    is_refusal,
    translated,
)
from streamflow.postgres.partitions import DayPartitions
from streamflow.postgres.sink import claims, positions, replayed
from streamflow.postgres.sink.claims import Resolved
from streamflow.postgres.sink.copy import OtherTypes, Stored, copy_rows, merge_rows, other_types
from streamflow.postgres.sink.forgetting import Forgetting
from streamflow.postgres.tables import Table
from streamflow.records import OutRecord, Position, Record, Rejection, position_of
from streamflow.settings import Settings
from streamflow.stream import Stream

log = structlog.get_logger()

_SWITCH_INTERVAL: Final = 0.0005  # seconds
_ATTEMPTS: Final = 6  # of a transaction that lost against another
# Seconds. On the slow path a batch is thousands of statements, each with a limit of its own.
_BATCH_LIMIT: Final = 300.0

Store = Callable[[Connection, Mapping[str, Table], Output], Stored]

_retried: Final = Retrying(
    retry=retry_if_exception(is_contention),
    stop=stop_after_attempt(_ATTEMPTS),
    wait=wait_random_exponential(multiplier=0.05, max=2),
    reraise=True,
)


@dataclass(slots=True)
class LoadCounters:
    """What a sink has done since it was created."""

    batches: int = 0  # committed
    rows: int = 0  # stored
    duplicates: int = 0  # records recognised as duplicates
    refused: int = 0  # rows that the database refused, each a dead letter now
    slow: int = 0  # batches that took the slow path
    seconds: float = 0.0  # spent in the database


class PostgresSink:
    """Keeps outputs in PostgreSQL, exactly once. Implements `flow.Sink`.

    The database works on one batch while the caller makes the next: psycopg lets Python run while
    PostgreSQL works. Use it from one thread.

    Args:
        group: whose positions these are.
        tables: that outputs have rows for, by name.
        deliver: produces dead letters and returns when the broker has confirmed each.
        refuse: the dead letter of a record that the database refuses.
        forgetting: empties the rows of forgotten subjects.
        limit: of refused records, by their contract or by the database; None for none.
        upserts: the streams whose state is kept beside their events.
    """

    def __init__(
        self,
        settings: Settings,
        group: str,
        tables: Mapping[str, Table],
        deliver: Callable[[list[OutRecord]], None],
        refuse: Callable[[Record, Rejection], OutRecord],
        forgetting: Forgetting,
        limit: Limit | None = None,
        upserts: Sequence[Stream] = (),
    ) -> None:
        self._settings = settings
        self._group = group
        self._tables = dict(tables)
        self._deliver = deliver
        self._refuse = refuse
        self._forgetting = forgetting
        self._limit = limit
        self._upserts = tuple(upserts)
        self._partitions: dict[str, DayPartitions] = {}
        self._connection: Connection | None = None
        self._left_at: dict[Partition, int] = {}
        # The background thread needs the interpreter for microseconds, many times a batch. With the
        # default of 5 ms it would wait longer for that than for the database.
        sys.setswitchinterval(min(sys.getswitchinterval(), _SWITCH_INTERVAL))
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="postgres-sink")
        self._running: Future[None] | None = None
        # Tables that take no binary rows, as their columns have other types than declared.
        self._as_text: set[str] = set()
        self._lock = Lock()
        self._durable: dict[Partition, Position] = {}
        self.counters = LoadCounters()

    def resume(self, partitions: Sequence[Partition]) -> dict[Partition, Position | None]:
        """Where to continue, according to the database.

        After an error nothing is committed for a partition until it was resumed: the batch before the one
        in the caller's hands may be lost.

        Raises:
            Unavailable: the database does not answer, or did not answer to the batch in progress.
            Fenced: as `commit`, of the batch in progress.
        """
        self.flush()
        with self._reset_on_error(), translated():
            kept = positions.read(self._connected(), self._group, partitions)
        for partition, position in kept.items():
            self._left_at[partition] = position.offset if position else 0
        return kept

    def commit(self, output: Output) -> None:
        """Passes a batch to the database, once the one before is kept.

        In one transaction:

        1. look up which of the records that claim to be replays are;
        2. lock the positions of its partitions, in order;
        3. compare them with where this process had left them: Fenced if another has moved them;
        4. store the rows, those of forgotten subjects emptied, bring the state of upsert streams up to
           date with them, and check that not too many are refused;
        5. produce the dead letters, and wait until the broker has them;
        6. move the positions, add the rows to the counts of their tables, and store the gaps that the
           positions pass;
        7. commit.

        The partitions for new days are created before, on their own. If rows are there already, or
        refused, the transaction is repeated on the slow path.

        Raises:
            Unavailable: the batch before this one was not kept, or it is not known whether it was; call
                `resume`.
            Fenced: of the batch before this one: another loader has its partitions.
            CircuitOpen: of the batch before this one: too many of its records were refused.
        """
        self.flush()
        self._running = self._thread.submit(self._keep, output)

    def flush(self) -> None:
        """Returns when everything passed on is durable. Raises as `commit`."""
        running, self._running = self._running, None
        if running is not None:
            with call("waiting for PostgreSQL to store a batch", _BATCH_LIMIT):
                running.result()

    def close(self) -> None:
        """Waits for the batch in progress, ignoring how it ends, and closes the connection."""
        with call("waiting for PostgreSQL to store a batch", _BATCH_LIMIT):
            self._thread.shutdown(wait=True, cancel_futures=True)
        self._running = None
        self._disconnect()

    @property
    def in_flight(self) -> int:
        return 0 if self._running is None or self._running.done() else 1

    def take_durable(self) -> list[Position]:
        """The positions that became durable since the last call, one for each partition, for Kafka's
        committed offsets to follow. May be called from any thread."""
        with self._lock:
            moved, self._durable = self._durable, {}
        return list(moved.values())

    # What follows runs in the background thread, or while it is idle.

    def _keep(self, output: Output) -> None:
        started = time.monotonic()
        with output.around(), self._reset_on_error(), translated():
            self._prepare_days(output)
            stored, resolved, slow = self._store(output)
        if self._limit is not None:
            self._limit.kept()
        with self._lock:
            for position in output.positions:
                partition = position.topic, position.partition
                self._left_at[partition] = position.offset
                self._durable[partition] = position
        DUPLICATES.inc(stored.duplicates)
        _report(resolved)
        counters = self.counters
        counters.batches += 1
        counters.rows += stored.rows
        counters.duplicates += stored.duplicates
        counters.refused += len(stored.refused)
        counters.slow += slow
        counters.seconds += time.monotonic() - started

    def _store(self, output: Output) -> tuple[Stored, Resolved, bool]:
        """Also returns whether that took the slow path."""
        for table in self._as_text & output.tables.keys():
            _ = output.tables[table].lines
        try:
            return *_retried(self._transact, output, copy_rows), False
        except OtherTypes:
            pass
        except psycopg.Error as error:
            if not is_refusal(error):
                raise
        if self._has_other_types(output):
            return self._store(output)
        return *_retried(self._transact, output, merge_rows), True

    def _has_other_types(self, output: Output) -> bool:
        """Whether tables have columns that take no binary rows; those are loaded as text from now on."""
        others = {
            name: columns
            for name, rows in output.tables.items()
            if rows.is_binary and (columns := other_types(self._connected(), self._tables[name]))
        }
        for name, columns in others.items():
            log.warning(
                "table is loaded as text",
                table=name,
                why=f"{', '.join(columns)} have other types than StreamFlow gives them, so it takes no "
                "binary rows; making text takes longer",
            )
        self._as_text.update(others)
        return bool(others)

    def _transact(self, output: Output, store: Store) -> tuple[Stored, Resolved]:
        connection = self._connected()
        expected = self._expected(output)
        claimed = claims.positions_of(output)
        with connection.transaction():
            sent = replayed.sent_by_replays(connection, claimed) if claimed else {}
            resolved = claims.resolve(output, sent)
            positions.lock(connection, self._group, expected, resolved.origins)
            resolved, erased = self._forgetting.before(connection, resolved)
            output = self._without_replayed(connection, resolved.output, expected)
            stored, counts = self._store_tables(connection, store, output, resolved)
            self._bring_states_up_to_date(connection, output, resolved, expected)
            if erased:
                self._forgetting.after(connection, erased)
            self._check(output, stored.refused)
            refused = [*resolved.rejected, *stored.refused]
            dead_letters = [self._refuse(record, reason) for record, reason in refused]
            if output.records or dead_letters:
                self._deliver([*output.records, *dead_letters])
            positions.move(connection, self._group, output.positions, output.counts, output.logs)
            if counts:
                row_counts.add(connection, min(expected), counts)
            gaps.keep(connection, self._group, output.gaps)
        return stored, resolved

    def _store_tables(
        self, connection: Connection, store: Store, output: Output, resolved: Resolved
    ) -> tuple[Stored, Counter[str]]:
        """Also returns how many rows were stored in each table."""
        stored, counts = Stored(0, 0, []), Counter[str]()
        for table, rows in output.tables.items():
            own = replace(output, tables=defaultdict(TableRows, {table: rows}))
            part = store(connection, self._tables, own)
            stored, counts[table] = stored.plus(part), part.rows
        for table, replays in resolved.replays.items():
            part = replayed.merge_replayed(connection, self._tables[table], replays)
            stored, counts[table] = stored.plus(part), counts[table] + part.rows
        return stored, +counts

    def _bring_states_up_to_date(
        self,
        connection: Connection,
        output: Output,
        resolved: Resolved,
        expected: Mapping[Partition, int],
    ) -> None:
        for stream in self._upserts:
            days = (
                output.tables[stream.event_table].days
                if stream.event_table in output.tables
                else ()
            )
            if days:
                state.bring_up_to_date(
                    connection,
                    stream,
                    [
                        {
                            "topic": topic,
                            "partition": partition,
                            "first": expected[topic, partition],
                            "end": end,
                        }
                        for topic, partition, end, *_ in output.positions
                        if topic == stream.topic
                    ],
                    days,
                    replays=stream.event_table in resolved.replays,
                )

    def _check(self, output: Output, refused: Sequence[tuple[Record, Rejection]]) -> None:
        if self._limit is None:
            return
        indexes = output.derived
        if refused:
            records = {id(record) for record, _ in refused}
            indexes = indexes.union(
                at for at, record in enumerate(output.batch) if id(record) in records
            )
        rejected = [index for index, _ in output.rejected if index not in output.derived]
        self._limit.check(output.batch, rejected, sorted(indexes), output.runs)

    def _expected(self, output: Output) -> dict[Partition, int]:
        expected = {}
        for position in output.positions:
            partition = position.topic, position.partition
            if partition not in self._left_at:
                topic, number = partition
                raise Fenced(f"{topic}/{number} was not taken over by this loader")
            expected[partition] = self._left_at[partition]
        return expected

    def _without_replayed(
        self, connection: Connection, output: Output, expected: Mapping[Partition, int]
    ) -> Output:
        """Leaves out first-hand events that are already stored from a replay. That happens when a record
        was dead-lettered under an older contract, replayed, and read here only now."""
        ranges = [
            (topic, partition, expected[topic, partition], end)
            for topic, partition, end, *_ in output.positions
        ]
        known = replayed.replayed_origins(connection, ranges) if ranges else set()
        if not known:
            return output
        tables = output.tables.copy()
        for table, rows in output.tables.items():
            if rows.holds_events:
                new = [position_of(record) not in known for record in rows.sources]
                tables[table] = replace(
                    rows, rows=[*compress(rows.rows, new)], sources=[*compress(rows.sources, new)]
                )
        return replace(output, tables=tables)

    def _prepare_days(self, output: Output) -> None:
        for table, rows in output.tables.items():
            if rows.holds_events or rows.days:
                partitions = self._partitions.setdefault(table, DayPartitions(table))
                partitions.prepare(self._connected(), rows.days)

    @contextmanager
    def _reset_on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._left_at.clear()
            self._disconnect()
            raise

    def _connected(self) -> Connection:
        if self._connection is None:
            self._connection = connect(self._settings, "loader")
        return self._connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _report(resolved: Resolved) -> None:
    """Counts what was rejected once the database had said what it is, and logs what is not ours."""
    for code, count in resolved.codes().items():
        RECORDS_REJECTED.labels(code.value).inc(count)
    foreign = resolved.foreign()
    if foreign:
        log.warning(
            "foreign records",
            topics=dict(foreign),
            advice="another producer writes there: see `streamflow dlq list --code FOREIGN_RECORD`; if "
            "they are StreamFlow's own, its workers have different signing keys",
        )
