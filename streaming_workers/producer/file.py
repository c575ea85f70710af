"""Sending events: a file exactly once, or simulated users for as long as one likes.

A file is sent in Kafka transactions. Each also commits how much of the file is sent, as the offset of a
consumer group that belongs to that file, so `resume` continues exactly behind what is in the topic,
however the run before ended.
"""

import hashlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Literal, NamedTuple

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from streamflow.contract import Event
from streamflow.errors import Unavailable, UsageError
from streamflow.kafka import clients, offsets
from streamflow.kafka.producing import produce
from streamflow.records import OutRecord, Rejection
from streamflow.settings import Settings
from streamflow.stream import Simulated, Stream
from streaming_workers.producer.lines import LineReader
from streaming_workers.producer.source import Source

OnInvalid = Literal["stop", "skip", "send"]
# Seconds to wait before an event is sent.
Pace = Callable[[Event], float]
_TRANSACTION_LINES = 50_000
_TIMEOUT = 60.0  # seconds
_DAY = 86_400.0  # seconds


@dataclass(kw_only=True)
class Sent:
    records: int = 0  # sent and acknowledged
    invalid: Counter[str] = field(default_factory=Counter)  # records sent though invalid, by code
    skipped: int = 0  # lines not sent
    line: int = 0  # lines that are done, those of earlier runs included
    finished: bool = False  # the whole input is done
    waiting: bool = False  # the last line has no newline: it may be half a line, and is not sent


class FileProgress(NamedTuple):
    """How far a file was sent: lines, bytes, and the SHA-256 of those bytes."""

    lines: int
    bytes: int
    digest: str


def simulate(
    settings: Settings,
    stream: Stream,
    source: Iterable[Simulated],
    stop: threading.Event,
    *,
    rate: float,
    count: int | None,
    on_record: Callable[[], None] = lambda: None,
) -> Sent:
    """Sends simulated events at a steady rate until `count` are sent or `stop` is set. Raises
    Unavailable if the broker did not take a record in time."""
    sent, client = Sent(), clients.producer(settings)
    failures: list[KafkaError] = []

    def delivered(error: KafkaError | None, _message: object) -> None:
        if error is not None:
            failures.append(error)

    def check() -> None:
        if failures:
            raise clients.translated(KafkaException(failures[-1]))

    began = time.monotonic()
    for record in source:
        if stop.is_set() or (count is not None and sent.records >= count):
            break
        produce(
            client,
            OutRecord(stream.topic, record.key, record.value, []),
            on_delivery=delivered,
        )
        sent.records += 1
        if record.code is not None:
            sent.invalid[record.code.value] += 1
        on_record()
        ahead = began + sent.records / rate - time.monotonic()
        if ahead > 0.01:  # noqa: PLR2004 (finer than the clock's own grain is no use)
            client.poll(0)
            check()
            stop.wait(ahead)
    left = client.flush(_TIMEOUT)
    check()
    if left:
        raise Unavailable(
            f"Kafka did not acknowledge {left} of {sent.records} records within {_TIMEOUT:g} s"
        )
    sent.line = sent.records
    sent.finished = True
    return sent


def group_of(settings: Settings, path: Path) -> str:
    """The group whose offset in partition 0 of the topic is the number of lines of a file that are sent."""
    name = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]
    return f"{settings.prefix}produce-{name}"


class FileRun:
    """One run over an NDJSON file.

    Args:
        settings: where the broker is.
        stream: whose topic the lines go to.
        reader: turns lines into records.
        source: what is sent; `resume` finds a file by the absolute form of its path. It is closed at the end.
        on_invalid: what to do with a line that breaks the contract.
        report: is called with the number of each such line and what is wrong with it.
    """

    def __init__(
        self,
        settings: Settings,
        stream: Stream,
        reader: LineReader,
        source: Source,
        on_invalid: OnInvalid,
        report: Callable[[int, Rejection], None],
    ) -> None:
        self._settings = settings
        self._stream = stream
        self._reader = reader
        self._source = source
        self._path = source.path
        self._on_invalid = on_invalid
        self._report = report
        self._group = group_of(settings, source.path)
        self._client = clients.producer(
            settings, **{"transactional.id": self._group, "transaction.timeout.ms": 60_000}
        )
        self._sent = Sent()

    def run(
        self,
        stop: threading.Event,
        *,
        resume: bool,
        pace: Pace | None = None,
        on_bytes: Callable[[int], None] = lambda _size: None,
    ) -> Sent:
        """Sends the file from its beginning, or from where an earlier run stopped.

        Raises:
            UsageError: the file's beginning has changed since, or a line is invalid and
                `on_invalid` says stop.
            Fenced: another run of the same file has begun.
            Unavailable: the broker does not answer.
        """
        client, sent = self._client, self._sent
        with clients.kafka_errors():
            client.init_transactions(_TIMEOUT)
        start = self._earlier() if resume else FileProgress(0, 0, "")
        done, size = start.lines, start.bytes
        with closing(self._source) as source:
            digest = self._skip(source.file, start)
            group = clients.assigned_consumer(self._settings, self._group)
            with closing(group) as consumer, clients.kafka_errors():
                metadata = consumer.consumer_group_metadata()
                for lines in source.groups(stop, _TRANSACTION_LINES if pace is None else 1):
                    client.begin_transaction()
                    taken, refusal = self._produce(lines, done + 1, pace, stop)
                    # What comes before a line that stops the run is sent.
                    done, size = done + taken, size + sum(map(len, lines[:taken]))
                    digest.update(b"".join(lines[:taken]))
                    progress = f"{size};{digest.hexdigest()}"
                    position = TopicPartition(self._stream.topic, 0, done, metadata=progress)
                    client.send_offsets_to_transaction([position], metadata, _TIMEOUT)
                    client.commit_transaction(_TIMEOUT)
                    if refusal is not None:
                        raise refusal
                    on_bytes(sum(map(len, lines)))
        sent.line, sent.waiting = done, source.waiting
        sent.finished = not (stop.is_set() or source.waiting)
        return sent

    def _earlier(self) -> FileProgress:
        partition = (self._stream.topic, 0)
        committed = offsets.committed(self._settings, self._group, [partition]).get(partition)
        if committed is None or committed.offset == 0:
            return FileProgress(0, 0, hashlib.sha256().hexdigest())
        size, _, digest = committed.metadata.partition(";")
        return FileProgress(committed.offset, int(size), digest)

    def _skip(self, file: IO[bytes], start: FileProgress) -> "hashlib._Hash":
        digest = hashlib.sha256()
        left = start.bytes
        while left and (piece := file.read(min(left, 1 << 20))):
            digest.update(piece)
            left -= len(piece)
        if start.bytes and digest.hexdigest() != start.digest:
            raise UsageError(
                f"{self._path} has changed before line {start.lines + 1} since it was sent: "
                "send it without --resume to send it all again"
            )
        return digest

    def _produce(
        self, lines: list[bytes], first: int, pace: Pace | None, stop: threading.Event
    ) -> tuple[int, UsageError | None]:
        """Produces the records of lines; `first` is the number of the first one. Returns how many lines
        are done, and why not all.

        The loop is on the path of every event: nothing is looked up or called in it that could be
        outside. No delivery report is needed: the commit fails without it.
        """
        read, client, topic, sent = self._reader.read, self._client, self._stream.topic, self._sent
        queue = client.produce
        for number, line in enumerate(lines, first):
            text = line.strip(b"\r\n")
            if not text or text.isspace():
                continue
            accepted = read(text)
            if isinstance(accepted, Rejection):
                refusal = self._refuse(text, number, accepted)
                if refusal is not None:
                    return number - first, refusal
                continue
            if pace is not None:
                _wait(pace, accepted.event, stop)
            try:
                queue(topic, accepted.value, accepted.key)
            except BufferError:
                # Waits for room.
                produce(client, OutRecord(topic, accepted.key, accepted.value, []))
            sent.records += 1
        return len(lines), None

    def _refuse(self, text: bytes, number: int, rejection: Rejection) -> UsageError | None:
        """Reports an invalid line, and skips or sends it; returns an error if it ends the run."""
        self._report(number, rejection)
        if self._on_invalid == "stop":
            return UsageError(
                f"line {number} is invalid ({rejection.message}): nothing after it sent"
            )
        if self._on_invalid == "skip":
            self._sent.skipped += 1
        else:
            redacted = self._reader.redacted(text)
            produce(self._client, OutRecord(self._stream.topic, None, redacted, []))
            self._sent.records += 1
            self._sent.invalid[rejection.code.value] += 1
        return None


def _wait(pace: Pace, event: Event, stop: threading.Event) -> None:
    """Waits until an event is due, for centuries if need be: a thread cannot wait so long at once."""
    while (seconds := pace(event)) > 0 and not stop.wait(min(seconds, _DAY)):
        pass
