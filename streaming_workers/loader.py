"""The loader: every record of every topic becomes a row of PostgreSQL, exactly once (G1).

Pure: batch in, `Output` out; `streamflow.postgres.sink.sink.PostgresSink` stores it.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import compress, groupby
from operator import attrgetter
from typing import Any, Final

from streamflow import dead_letter_records as dead_letters
from streamflow.contract import Event
from streamflow.errors import ConfigurationError, ErrorCode
from streamflow.flow import (
    Batch,
    Count,
    Output,
    Partition,
    PartitionRun,
    ReplayClaim,
    Replayed,
    TableRows,
)
from streamflow.formats.documents import Ignored
from streamflow.kafka.unreadable import rejection_of
from streamflow.pii_keys import PiiKeys
from streamflow.postgres.rows import windows
from streamflow.postgres.rows.binary import UNPACKABLE, day_of
from streamflow.postgres.rows.dead_letters import claim_of, dead_letter_line
from streamflow.postgres.rows.derived import notification_line, window_count_line
from streamflow.postgres.rows.events import EventRows, deletion_time, ignored_line
from streamflow.postgres.rows.windows import (
    WindowRows,
    rows_of,
    unfit_window,
    window_of,
)
from streamflow.postgres.sink.forgetting import Forgetting
from streamflow.postgres.tables import (
    DEAD_LETTERS,
    IGNORED_RECORDS,
    NOTIFICATIONS,
    SHARED,
    WINDOW_COUNTS,
    Table,
)
from streamflow.postgres.windows.tables import window_tables
from streamflow.privacy import Hasher
from streamflow.records import (
    ORIGIN_HEADER,
    SOURCE_HEADER,
    TOPIC_ID_HEADER,
    Headers,
    Origin,
    OutRecord,
    Record,
    Rejection,
    any_headers,
    claimed_origin,
    headers_of,
    in_its_topic,
    last_header,
    position_of,
)
from streamflow.settings import Settings
from streamflow.signing import Signer
from streamflow.stream import Stream
from streamflow.tombstones import Deletion
from streamflow.trace_context import traceparent_of
from streamflow.utc_texts import micros_of
from streaming_workers.reporting import table_asset
from streaming_workers.runtime.job import PlainJob

STAGE: Final = "loader"

_FOREIGN: Final = Rejection(
    ErrorCode.FOREIGN_RECORD, "ValueError", "no worker of this installation has signed it"
)
# Of records whose events are objects at the same time, which take several times as much memory.
_MOST_AT_ONCE: Final = 5_000
_BYTES_AT_ONCE: Final = 1_048_576
_EVERY: Final = 64  # records; so many large ones may follow small ones, as in `consume_batch`

# Takes runs of one topic, and adds what their records become.
_Handler = Callable[[Sequence[PartitionRun], Output], None]
# The row of a derived record, given the event that it was derived from.
_ToLine = Callable[[Record, Origin | None], bytes | Rejection]
# The table of a derived record, and what makes its row.
_Route = Callable[[Record], tuple[Table, _ToLine]]


class Loader(PlainJob):
    """Turns records into rows. `hasher` redacts dead letters, and lifts hashes of older keys; `signer` is
    called for each batch, since the key may not be known yet."""

    name = "loader"
    # A transaction costs the database, and both sides' waits, as much for few rows as for many.
    batch_size = 20_000

    def __init__(
        self,
        settings: Settings,
        streams: Sequence[Stream],
        hasher: Hasher,
        signer: Callable[[], Signer],
    ) -> None:
        self.group = settings.group(self.name)
        self.signer = signer
        self._hasher = hasher
        self.forgetting = Forgetting(streams, hasher)
        self.upserts = [stream for stream in streams if stream.mode == "upsert"]
        self._event_topics = {stream.topic for stream in streams}
        self.sources: Sequence[str] = sorted(self._event_topics)
        # Of the last batch. Within a session they do not change.
        self._topic_ids: Mapping[str, str] = {}
        self._handlers: dict[str, _Handler] = {}
        self._dead_letter_topics: dict[str, str] = {}
        self.tables: dict[str, Table] = {table.name: table for table in (*SHARED, IGNORED_RECORDS)}
        keys = hasher.keys if hasher.rotates else None
        self._windows = {
            table.name: WindowRows(table, keys)
            for stream in streams
            for table in window_tables(stream)
        }
        self.tables |= {name: rows.table for name, rows in self._windows.items()}
        # Tables that take no rows of what is declared, and why: their records are dead letters (G14).
        self.unfit_windows: Mapping[str, str] = {}
        for stream in streams:
            self._add(stream)
        self.topics = list(self._handlers)
        self.assets = {
            table: table_asset(table) for table in self.tables if table != IGNORED_RECORDS.name
        }

    def process(self, batch: Batch) -> Output:
        """The rows of a batch, and the dead letters of what cannot be a row. Raises Unavailable if the
        signing key is not known yet, and its database does not answer."""
        self._topic_ids = batch.topic_ids
        output = Output(positions=batch.positions, batch=batch.records, runs=batch.runs)
        for topic, runs in groupby(batch.runs, attrgetter("topic")):
            self._handlers[topic]([*runs], output)
        return output

    def refuse(self, record: Record, rejection: Rejection) -> OutRecord:
        """The dead letter of a record that cannot be loaded. Raises ConfigurationError for a dead
        letter: there would be no end to it."""
        topic = position_of(record).topic
        if self._dead_letter_topics[topic] == topic:
            raise ConfigurationError(
                f"the database refuses a dead letter ({rejection.message}): look for constraints and "
                "triggers on dead_letters that are not StreamFlow's"
            )
        is_event = topic in self._event_topics
        believed: Headers = []
        if not is_event and rejection.code is not _FOREIGN.code:
            believed = self.signer().signed_headers(record) or headers_of(record)
        return dead_letters.build(
            record,
            rejection,
            stage=STAGE,
            group=self.group,
            topic=self._dead_letter_topics[topic],
            hasher=self._hasher,
            now=datetime.now(UTC),
            origin=None if is_event else _derived_from(position_of(record), believed),
            topic_ids=(self._topic_ids.get(topic, ""), "" if is_event else _source_id(believed)),
        )

    def _add(self, stream: Stream) -> None:
        events = _Events(stream, self._hasher.keys if self._hasher.rotates else None)
        self.tables[events.table] = events.rows.table
        self._handlers[stream.topic] = events
        # Streams may share these topics; the first one's handler serves all.
        for topic, handler in (
            (stream.analytics_topic, self._derived(self._route_of_windows(stream))),
            (
                stream.notifications_topic,
                self._derived(lambda _: (NOTIFICATIONS, notification_line)),
            ),
            (stream.dead_letter_topic, self._dead_letters),
        ):
            self._handlers.setdefault(topic, handler)
        for topic in stream.topic_names:
            self._dead_letter_topics.setdefault(topic, stream.dead_letter_topic)

    def _route_of_windows(self, stream: Stream) -> _Route:
        """Counts of events go into one table, parts of windows into that of their windows."""
        topic = stream.analytics_topic

        # Streams may share the topic, so the origin says whose events these are.
        def of(origin: Origin | None) -> str | None:
            return None if origin is None or origin.topic == topic else origin.topic

        def count_line(record: Record, origin: Origin | None) -> bytes | Rejection:
            return window_count_line(record, of(origin) or stream.topic)

        def route(record: Record) -> tuple[Table, _ToLine]:
            name = window_of(record.value())
            if name is None:
                return WINDOW_COUNTS, count_line
            rows = rows_of(name, self._windows)
            if isinstance(rows, Rejection):
                return WINDOW_COUNTS, lambda _record, _origin: rows
            if name in self.unfit_windows:
                unfit = unfit_window(name, self.unfit_windows[name])
                return WINDOW_COUNTS, lambda _record, _origin: unfit
            return rows.table, lambda record, origin: rows.line(record, of(origin))

        return route

    def _derived(self, route: _Route) -> _Handler:
        """Handles the records of a topic that only workers write to. What cannot be a row is
        dead-lettered; what has no signature becomes a row only if a replay has sent it."""

        def handle(runs: Sequence[PartitionRun], output: Output) -> None:
            signer, topic_ids = self.signer(), self._topic_ids
            counts: dict[Partition, list[int]] = {}
            for index in range(runs[0].start, runs[-1].end):
                record = output.batch[index]
                position = position_of(record)
                table, to_line = route(record)
                rows = output.tables[table.name]
                count = counts.setdefault(position[:2], [0, 0])
                count[0] += 1
                headers = signer.signed_headers(record)
                if headers is None and signer.is_older(record):
                    headers = headers_of(record)
                if headers is None:
                    rows.claims.append(_claim(to_line, record, position, _FOREIGN))
                    continue
                origin, source = _derivation(headers, topic_ids)
                line = to_line(record, source or origin)
                if isinstance(line, Rejection):
                    line = rejection_of(record, line)
                    count[1] += 1
                    output.rejected.append((index, line.code))
                    output.derived.add(index)
                    output.records.append(self.refuse(record, line))
                    continue
                if table.by_day:
                    rows.days.add(windows.day_of(line))
                if source is not None and source != origin:
                    rows.claims.append(_claim(to_line, record, source, line))
                else:
                    rows.add(line, record)
            _add_counts(output, counts)

        return handle

    def _dead_letters(self, runs: Sequence[PartitionRun], output: Output) -> None:
        """Handles the records of a dead-letter topic: each is a row."""
        rows = output.tables[DEAD_LETTERS.name]
        signer, hasher = self.signer(), self._hasher
        counts: dict[Partition, list[int]] = {}
        for record in output.batch[runs[0].start : runs[-1].end]:
            position = position_of(record)
            counts.setdefault(position[:2], [0, 0])[0] += 1
            headers = signer.signed_headers(record)
            signed = headers is not None
            if headers is None:
                headers = headers_of(record)
            claim = None
            if signed or signer.is_older(record):
                claim = claim_of(headers, self._topic_ids, signed=signed)
            if claim is None:
                output.foreign[position.topic] += 1
                rows.add(dead_letter_line(record, headers, hasher), record)
                continue
            to_line = partial(dead_letter_line, record, headers, hasher, claim.source)
            line = to_line(claim.otherwise)
            if claim.identity == claim.otherwise:
                rows.add(line, record)
            else:
                rows.claims.append(ReplayClaim(record, claim.source, to_line, line))
        _add_counts(output, counts)


def _derivation(
    headers: Headers, topic_ids: Mapping[str, str]
) -> tuple[Origin | None, Origin | None]:
    """The event that a derived record comes from, and the record of it if that claims to be a replay;
    with the names of the topics that they were in."""
    # The last header of a name counts.
    last = dict(headers)
    origin, topic_id = Origin.parse(last.get(ORIGIN_HEADER)), last.get(TOPIC_ID_HEADER)
    if origin is not None:
        origin = in_its_topic(origin, topic_id, topic_ids)
    if SOURCE_HEADER not in last:
        return origin, None
    source = Origin.parse(last[SOURCE_HEADER])
    return origin, None if source is None else in_its_topic(source, topic_id, topic_ids)


def _derived_from(position: Origin, believed: Headers) -> Origin:
    """The event that a rejected derived record comes from, as far as that is certain."""
    # Under its topic's old name: the id goes with it.
    origin, source = _derivation(believed, {})
    return source or origin or position


def _source_id(believed: Headers) -> str:
    """Id of the topic of that event, if the record says it."""
    topic_id = last_header(believed, TOPIC_ID_HEADER) or b""
    return topic_id.decode("ascii", "replace")


def _claim(
    to_line: _ToLine, record: Record, sent: Origin, otherwise: bytes | Rejection
) -> ReplayClaim:
    return ReplayClaim(record, sent, lambda identity: to_line(record, identity.origin), otherwise)


class _Events:
    """Handles the records of a stream's own topic. This is on the path of every event: what can be asked of
    many records at once is."""

    def __init__(self, stream: Stream, keys: PiiKeys | None) -> None:
        self.rows = EventRows(stream, keys)
        self.table = stream.event_table
        self._read = stream.read
        self._read_all = stream.read_all

    def __call__(self, runs: Sequence[PartitionRun], output: Output) -> None:
        rows, counts = output.tables[self.table], dict[Partition, list[int]]()
        rows.holds_events = True
        for topic, partition, first, end in runs:
            count = counts.setdefault((topic, partition), [0, 0])
            largest = max(len(each.value() or b"") for each in output.batch[first:end:_EVERY])
            most = max(1, min(_MOST_AT_ONCE, _BYTES_AT_ONCE // (largest + 1)))
            for start in range(first, end, most):
                records = output.batch[start : min(start + most, end)]
                rejected = len(output.rejected)
                self._add(start, partition, records, rows, output)
                count[0] += len(records)
                count[1] += len(output.rejected) - rejected
        _add_counts(output, counts)

    def _add(
        self, start: int, partition: int, records: Sequence[Record], rows: TableRows, output: Output
    ) -> None:
        """Adds the rows of some records of a partition; `start` is the index of the first."""
        found, times = self._read_all(records)
        if others := self._others(found, all_of_them=any_headers(records)):
            kept = self._apart(others, start, records, found, times, rows, output)
            records, found, times = ([*compress(each, kept)] for each in (records, found, times))
        if not found:
            return
        first_day, last_day = day_of(min(times)), day_of(max(times))
        rows.days |= {first_day} if first_day == last_day else {*map(day_of, times)}
        tails = self.rows.tails(partition, [record.timestamp() for record in records])
        if self.rows.trace:
            tails = self.rows.traced(tails, map(_trace_of, records))
        offsets = [record.offset() or 0 for record in records]
        try:
            packed = self.rows.pack(found, times, offsets, tails)
        except UNPACKABLE:
            for record, event in zip(records, found, strict=True):
                line = self._line(self._whole(event, record), record, position_of(record))
                rows.add(line, record)
        else:
            rows.add_binary(packed, records, self.rows.to_line)

    def _others(self, found: Sequence[Any], *, all_of_them: bool) -> Sequence[int]:
        """The indexes of what may be no row: of all that may claim to be replays, else what is no event."""
        if all_of_them:
            return range(len(found))
        events = self.rows.packers.keys() - {Deletion}
        if {*map(type, found)} <= events:
            return ()
        return [index for index, each in enumerate(found) if type(each) not in events]

    def _apart(
        self,
        others: Sequence[int],
        start: int,
        records: Sequence[Record],
        found: Sequence[Any],
        times: list[int],
        rows: TableRows,
        output: Output,
    ) -> list[bool]:
        """Notes what is no row, or perhaps none: rejections, ignored records, and what claims to be a
        replay. Returns which of all are rows. Sets the times of tombstones."""
        kept = [True] * len(found)
        for index in others:
            record, event = records[index], found[index]
            if isinstance(event, Rejection | Ignored):
                _leave_out(start + index, record, event, output)
                kept[index] = False
                continue
            if isinstance(event, Deletion):
                times[index] = micros_of(deletion_time(record.timestamp()))
            if headers_of(record) and claimed_origin(record) is not None:
                kept[index] = False
                rows.days.add(day_of(times[index]))
                rows.claims.append(self._claim(self._whole(event, record), record))
        return kept

    def _claim(self, event: Event | Deletion, record: Record) -> ReplayClaim:
        def line(identity: Replayed) -> bytes:
            return self._line(event, record, identity.origin)

        position = position_of(record)
        return ReplayClaim(record, position, line, self._line(event, record, position))

    def _whole(self, event: Any, record: Record) -> Any:
        """The event itself, where its fields alone were read."""
        return event if isinstance(event, Event | Deletion) else self._read(record)

    def _line(self, event: Event | Deletion, record: Record, identity: Origin) -> bytes:
        appended = record.timestamp()
        trace = _trace_of(record) if self.rows.trace else None
        if isinstance(event, Deletion):
            return self.rows.deletion_line(event, identity, appended, trace)
        return self.rows.line(event, identity, appended, trace)


def _trace_of(record: Record) -> bytes | None:
    return traceparent_of(headers_of(record))


def _leave_out(index: int, record: Record, found: Rejection | Ignored, output: Output) -> None:
    """Notes a record that is no row of its stream."""
    if isinstance(found, Ignored):
        output.tables[IGNORED_RECORDS.name].add(ignored_line(record), record)
    else:
        # The validator dead-letters it.
        output.rejected.append((index, rejection_of(record, found).code))


def _add_counts(output: Output, counts: dict[Partition, list[int]]) -> None:
    for partition, (records, rejected) in counts.items():
        known = output.counts.get(partition, Count(0, 0))
        output.counts[partition] = Count(known.records + records, known.rejected + rejected)
