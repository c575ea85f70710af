"""The loader: every record of every topic becomes a row of PostgreSQL, exactly once (G1).

Pure: batch in, `Output` out; `streamflow.postgres.loading.PostgresSink` keeps it. What the topic of
a record says is to be done with it is decided once.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import groupby
from operator import methodcaller
from typing import Final

from streamflow import dead_letters
from streamflow.contract import MINUTES, PYDANTIC_UTC, SECONDS
from streamflow.errors import ConfigurationError
from streamflow.flow import Batch, Count, Output, Partition, Replay
from streamflow.kafka.unreadable import rejection_of
from streamflow.postgres.derived import notification_line, window_count_line
from streamflow.postgres.letters import dead_letter_line
from streamflow.postgres.rows import TIME_AND_POSITION, DayTexts, EventRows, tail
from streamflow.postgres.tables import DEAD_LETTERS, NOTIFICATIONS, SHARED, WINDOW_COUNTS, Table
from streamflow.privacy import Hasher
from streamflow.records import (
    OutRecord,
    Record,
    Rejection,
    claimed_origin,
    position_of,
)
from streamflow.settings import Settings
from streamflow.stream import Stream
from streaming_workers.job import PlainJob
from streaming_workers.reporting import table_asset

STAGE: Final = "loader"

_TOPIC = methodcaller("topic")

# Takes the index of the first record and records of one topic; returns how many there were.
_Handler = Callable[[int, Iterator[Record], Output], int]


class Loader(PlainJob):
    """What the loader does to a batch.

    Args:
        settings: for the group's name.
        streams: whose topics are loaded.
        hasher: redacts dead letters.
    """

    name = "loader"

    def __init__(self, settings: Settings, streams: Sequence[Stream], hasher: Hasher) -> None:
        self.group = settings.group(self.name)
        self._hasher = hasher
        self._handlers: dict[str, _Handler] = {}
        self._dead_letter_topics: dict[str, str] = {}
        self.tables: dict[str, Table] = {table.name: table for table in SHARED}
        for stream in streams:
            self._add(stream)
        self.topics = list(self._handlers)
        self.assets = {table: table_asset(table) for table in self.tables}

    def process(self, batch: Batch) -> Output:
        """The rows of a batch, and the dead letters of what can be none."""
        output = Output(positions=batch.positions, batch=batch.records)
        start = 0
        for topic, run in groupby(batch.records, _TOPIC):
            start += self._handlers[topic](start, run, output)
        return output

    def refuse(self, record: Record, rejection: Rejection) -> OutRecord:
        """The dead letter of a record that cannot be loaded.

        Raises:
            ConfigurationError: the record is a dead letter itself: there would be no end to it.
        """
        topic = position_of(record).topic
        if self._dead_letter_topics[topic] == topic:
            raise ConfigurationError(
                f"the database refuses a dead letter ({rejection.message}): look for constraints and "
                "triggers on dead_letters that are not StreamFlow's"
            )
        return dead_letters.build(
            record,
            rejection,
            stage=STAGE,
            group=self.group,
            topic=self._dead_letter_topics[topic],
            hasher=self._hasher,
            now=datetime.now(UTC),
        )

    def _add(self, stream: Stream) -> None:
        events = _Events(stream)
        self.tables[events.table] = events.rows.table
        self._handlers[stream.topic] = events
        # Streams may share these; the first to declare one stands for it.
        for topic, handler in (
            (stream.analytics_topic, self._counted(stream)),
            (stream.notifications_topic, self._noted(stream)),
            (stream.dead_letter_topic, self._buried()),
        ):
            self._handlers.setdefault(topic, handler)
        for topic in stream.topic_names:
            self._dead_letter_topics.setdefault(topic, stream.dead_letter_topic)

    def _counted(self, stream: Stream) -> _Handler:
        topic = stream.topic
        return self._each(WINDOW_COUNTS, lambda record: window_count_line(record, topic))

    def _noted(self, _stream: Stream) -> _Handler:
        return self._each(NOTIFICATIONS, notification_line)

    def _buried(self) -> _Handler:
        hasher = self._hasher
        return self._each(DEAD_LETTERS, lambda record: dead_letter_line(record, hasher))

    def _each(
        self, table: Table, to_line: Callable[[Record], bytes | Replay | Rejection]
    ) -> _Handler:
        """Handles the records of a topic whose refused records nobody else dead-letters."""

        def handle(start: int, run: Iterator[Record], output: Output) -> int:
            rows = output.rows.setdefault(table.name, [])
            sources = output.sources.setdefault(table.name, [])
            counts: dict[Partition, list[int]] = {}
            index = start - 1
            for index, record in enumerate(run, start):
                position = position_of(record)
                count = counts.setdefault(position[:2], [0, 0])
                count[0] += 1
                line = to_line(record)
                if isinstance(line, Rejection):
                    line = rejection_of(record, line)
                    count[1] += 1
                    output.rejected.append((index, line.code))
                    output.records.append(self.refuse(record, line))
                elif isinstance(line, Replay):
                    output.claims.setdefault(table.name, []).append(line)
                else:
                    rows.append(line)
                    sources.append(record)
            _add_counts(output, counts)
            return index + 1 - start

        return handle


class _Events:
    """Handles the records of one stream's own topic.

    The loop is on the path of every event: nothing is looked up or called in it that could be
    outside.
    """

    def __init__(self, stream: Stream) -> None:
        self.rows = EventRows(stream)
        self.table = stream.table
        self._topic = stream.topic
        self._decode = stream.decoder.decode

    def __call__(self, start: int, run: Iterator[Record], output: Output) -> int:
        decode, plans, topic = self._decode, self.rows.plans, self._topic
        utc, utc_offset, minutes, seconds = PYDANTIC_UTC, UTC, MINUTES, SECONDS
        rows = output.rows.setdefault(self.table, [])
        sources = output.sources.setdefault(self.table, [])
        add_row, add_source = rows.append, sources.append
        days = DayTexts()
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
            value = record.value()
            event = decode(value)
            if isinstance(event, Rejection):
                # The validator dead-letters it.
                count[1] += 1
                output.rejected.append((index, rejection_of(record, event).code))
                continue
            plan = plans[type(event)]
            values = plan.get(event)
            text = plan.template % values
            if b"\\" in (value or b"") or "None" in text or plan.slow:
                text = plan.slowly(values)
            moment = event.timestamp
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
            try:
                headers = record.headers()
            except UnicodeDecodeError:
                headers = None
            if headers and (origin := claimed_origin(record)) is not None:
                line = self.rows.line(event, origin, record.timestamp())
                replay = Replay(line, text.encode(), origin, record)
                output.replays.setdefault(self.table, []).append(replay)
                continue
            add_row(text.encode())
            add_source(record)
        count[0] += index + 1 - since
        _add_counts(output, counts)
        output.days.setdefault(self.table, set()).update(days.days())
        return index + 1 - start


def _add_counts(output: Output, counts: dict[Partition, list[int]]) -> None:
    for partition, (records, rejected) in counts.items():
        known = output.counts.get(partition, Count(0, 0))
        output.counts[partition] = Count(known.records + records, known.rejected + rejected)
