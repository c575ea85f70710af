"""The loader: every record of every topic becomes a row of PostgreSQL, exactly once (G1).

Pure: batch in, `Output` out; `streamflow.postgres.sink.sink.PostgresSink` stores it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import groupby
from operator import methodcaller
from typing import Final

from streamflow import dead_letter_records as dead_letters
from streamflow.contract import MINUTES, PYDANTIC_UTC, SECONDS, Event
from streamflow.errors import ConfigurationError, ErrorCode
from streamflow.flow import Batch, Count, Output, Partition, ReplayClaim, Replayed
from streamflow.formats.documents import Ignored
from streamflow.kafka.unreadable import rejection_of
from streamflow.pii_keys import PiiKeys
from streamflow.postgres.rows.dead_letters import claim_of, dead_letter_line
from streamflow.postgres.rows.derived import notification_line, window_count_line
from streamflow.postgres.rows.events import (
    TIME_AND_POSITION,
    DayTexts,
    EventRows,
    deletion_time,
    ignored_line,
    tail,
)
from streamflow.postgres.rows.windows import (
    WindowRows,
    day_of,
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
from streaming_workers.reporting import table_asset
from streaming_workers.runtime.job import PlainJob

STAGE: Final = "loader"

_FOREIGN: Final = Rejection(
    ErrorCode.FOREIGN_RECORD, "ValueError", "no worker of this installation has signed it"
)
_TOPIC = methodcaller("topic")

# Takes the index of the first record, and records of one topic; returns how many there were.
_Handler = Callable[[int, Iterator[Record], Output], int]
# The row of a derived record, given the event that it was derived from.
_ToLine = Callable[[Record, Origin | None], bytes | Rejection]
# The table of a derived record, and what makes its row.
_Route = Callable[[Record], tuple[Table, _ToLine]]


class Loader(PlainJob):
    """Turns records into rows. `hasher` redacts dead letters, and lifts hashes of older keys; `signer` is
    called for each batch, since the key may not be known yet."""

    name = "loader"
    # It holds the rows of one batch while it makes those of the next.
    prefetch_kb = 4_096

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
        output = Output(positions=batch.positions, batch=batch.records)
        start = 0
        for topic, run in groupby(batch.records, _TOPIC):
            start += self._handlers[topic](start, run, output)
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
        return dead_letters.build(
            record,
            rejection,
            stage=STAGE,
            group=self.group,
            topic=self._dead_letter_topics[topic],
            hasher=self._hasher,
            now=datetime.now(UTC),
            origin=None if is_event else _derived_from(record, rejection),
            topic_ids=(
                self._topic_ids.get(topic, ""),
                "" if is_event else _source_id(record, rejection),
            ),
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

        def handle(start: int, run: Iterator[Record], output: Output) -> int:
            signer, topic_ids = self.signer(), self._topic_ids
            counts: dict[Partition, list[int]] = {}
            index = start - 1
            for index, record in enumerate(run, start):
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
                    rows.days.add(day_of(line))
                if source is not None and source != origin:
                    rows.claims.append(_claim(to_line, record, source, line))
                else:
                    rows.add(line, record)
            _add_counts(output, counts)
            return index + 1 - start

        return handle

    def _dead_letters(self, _start: int, run: Iterator[Record], output: Output) -> int:
        """Handles the records of a dead-letter topic: each is a row."""
        rows = output.tables[DEAD_LETTERS.name]
        signer, hasher = self.signer(), self._hasher
        counts: dict[Partition, list[int]] = {}
        for record in run:
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
        return sum(records for records, _ in counts.values())


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


def _derived_from(record: Record, rejection: Rejection) -> Origin:
    """The event that a rejected derived record comes from, as far as that is certain."""
    # Under its topic's old name: the id goes with it.
    origin, source = _derivation(_believed(record, rejection), {})
    return source or origin or position_of(record)


def _source_id(record: Record, rejection: Rejection) -> str:
    """Id of the topic of that event, if the record says it."""
    topic_id = last_header(_believed(record, rejection), TOPIC_ID_HEADER) or b""
    return topic_id.decode("ascii", "replace")


def _believed(record: Record, rejection: Rejection) -> Headers:
    return [] if rejection.code is _FOREIGN.code else headers_of(record)


def _claim(
    to_line: _ToLine, record: Record, sent: Origin, otherwise: bytes | Rejection
) -> ReplayClaim:
    return ReplayClaim(record, sent, lambda identity: to_line(record, identity.origin), otherwise)


class _Events:
    """Handles the records of a stream's own topic. The loop is on the path of every event: nothing is
    looked up or called in it that could be outside."""

    def __init__(self, stream: Stream, keys: PiiKeys | None) -> None:
        self.rows = EventRows(stream, keys)
        self.table = stream.event_table
        self._topic = stream.topic
        self._read = stream.read
        self._time_of = stream.time_of

    def __call__(self, start: int, run: Iterator[Record], output: Output) -> int:
        read, time_of = self._read, self._time_of
        to_text, topic = self.rows.to_text, self._topic
        utc, utc_offset, minutes, seconds = PYDANTIC_UTC, UTC, MINUTES, SECONDS
        rows = output.tables[self.table]
        rows.holds_events = True
        add_line, add_source, days = rows.lines.append, rows.sources.append, DayTexts()
        counts: dict[Partition, list[int]] = {}
        count = [0, 0]
        partition: int | None = None
        appended: tuple[int, int] | None = None
        ending = ""
        since = start  # index of the first record not yet counted
        index = start - 1
        for index, record in enumerate(run, start):
            if record.partition() != partition or record.timestamp() != appended:
                count[0] += index - since
                since = index
                partition, appended = record.partition() or 0, record.timestamp()
                ending = tail(topic, partition, appended)
                count = counts.setdefault((topic, partition), [0, 0])
            event = read(record)
            if isinstance(event, (Rejection, Ignored)):
                count[1] += _leave_out(index, record, event, output)
                continue
            if isinstance(event, Deletion):
                days[deletion_time(record.timestamp()).toordinal()]
                line = self.rows.deletion_line(event, position_of(record), record.timestamp())
            else:
                text = to_text[type(event)](event, record.value())
                moment = time_of(event)
                if moment.tzinfo is not utc:
                    moment = moment.astimezone(utc_offset)
                text = TIME_AND_POSITION % (
                    text,
                    days[moment.toordinal()],
                    minutes[moment.hour * 60 + moment.minute],
                    seconds[moment.second],
                    moment.microsecond,
                    record.offset(),
                    ending,
                )
                line = text.encode()
            try:
                headers = record.headers()
            except UnicodeDecodeError:
                headers = None
            if headers and claimed_origin(record) is not None:
                replayed = partial(self._replayed_line, event, record)
                rows.claims.append(ReplayClaim(record, position_of(record), replayed, line))
                continue
            add_line(line)
            add_source(record)
        count[0] += index + 1 - since
        _add_counts(output, counts)
        rows.days |= days.days()
        return index + 1 - start

    def _replayed_line(self, event: Event | Deletion, record: Record, identity: Replayed) -> bytes:
        origin, appended = identity.origin, record.timestamp()
        if isinstance(event, Deletion):
            return self.rows.deletion_line(event, origin, appended)
        return self.rows.line(event, origin, appended, record.value())


def _leave_out(index: int, record: Record, found: Rejection | Ignored, output: Output) -> bool:
    """Notes a record that is no row of its stream; returns whether it was rejected."""
    if isinstance(found, Ignored):
        output.tables[IGNORED_RECORDS.name].add(ignored_line(record), record)
        return False
    # The validator dead-letters it.
    output.rejected.append((index, rejection_of(record, found).code))
    return True


def _add_counts(output: Output, counts: dict[Partition, list[int]]) -> None:
    for partition, (records, rejected) in counts.items():
        known = output.counts.get(partition, Count(0, 0))
        output.counts[partition] = Count(known.records + records, known.rejected + rejected)
