"""Sending events: a file exactly once, or simulated users for as long as one likes.

A file is sent in Kafka transactions. Each also commits how far it has got, as the offset of a
consumer group that belongs to that file, so that `resume` goes on exactly behind what is in the
topic, however the run before had ended.
"""

import hashlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Literal, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition

from streamflow.contract import Event
from streamflow.errors import UsageError
from streamflow.kafka import clients, offsets
from streamflow.kafka.producing import produce
from streamflow.records import OutRecord, Rejection
from streamflow.settings import Settings
from streamflow.stream import Simulated, Stream
from streaming_workers.producer.lines import LineReader

OnInvalid = Literal["stop", "skip", "send"]
# Seconds to wait before an event is sent.
Pace = Callable[[Event], float]
_TRANSACTION_LINES = 50_000
_TRANSACTION_SECONDS = 1.0
_TIMEOUT = 60.0  # seconds


@dataclass(kw_only=True)
class Sent:
    """What a run did.

    Attributes:
        records: sent and acknowledged.
        invalid: records sent that break the contract, by code.
        skipped: lines not sent.
        line: lines of the input that are done, those of earlier runs included.
        finished: whether the input came to its end.
    """

    records: int = 0
    invalid: dict[str, int] = field(default_factory=dict)
    skipped: int = 0
    line: int = 0
    finished: bool = False


class FileProgress(NamedTuple):
    """How far a file was sent: lines, bytes, and the SHA-256 of those bytes."""

    lines: int
    bytes: int
    digest: str


class CheckedProducer:
    """Produces, and keeps the error of what the broker did not take."""

    def __init__(self, client: Producer) -> None:
        self.client = client
        self._failure: KafkaError | None = None

    def send(self, topic: str, key: bytes | None, value: bytes) -> None:
        """Hands a record over.

        Raises:
            Unavailable: an earlier record was not delivered.
        """
        produce(self.client, OutRecord(topic, key, value, []), on_delivery=self._delivered)

    def check(self) -> None:
        """Raises what went wrong with an earlier record."""
        self.client.poll(0)
        if self._failure is not None:
            raise clients.translated(KafkaException(self._failure))

    def finish(self) -> None:
        """Returns when all are acknowledged."""
        self.client.flush(_TIMEOUT)
        self.check()

    def _delivered(self, error: KafkaError | None, _message: object) -> None:
        if error is not None:
            self._failure = error


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
    """Sends simulated events at a steady rate until `count` are sent or `stop` is set.

    Raises:
        Unavailable: the broker did not take a record in time.
    """
    sent = Sent()
    checked = CheckedProducer(clients.producer(settings))
    began = time.monotonic()
    for record in source:
        if stop.is_set() or (count is not None and sent.records >= count):
            break
        checked.send(stream.topic, record.key, record.value)
        sent.records += 1
        if record.code is not None:
            sent.invalid[record.code.value] = sent.invalid.get(record.code.value, 0) + 1
        on_record()
        ahead = began + sent.records / rate - time.monotonic()
        if ahead > 0.01:  # noqa: PLR2004 (finer than the clock's own grain is no use)
            checked.check()
            stop.wait(ahead)
    checked.finish()
    sent.line = sent.records
    sent.finished = True
    return sent


def group_of(settings: Settings, path: Path) -> str:
    """The consumer group whose offset in partition 0 of the topic is the number of lines of a file
    that were sent."""
    name = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]
    return f"{settings.prefix}produce-{name}"


class FileRun:
    """One run over an NDJSON file.

    Args:
        settings: where the broker is.
        stream: whose topic the lines go to.
        reader: turns lines into records.
        path: of the file; its absolute form is what `resume` finds it by.
        on_invalid: what becomes of a line that breaks the contract.
        report: takes line number and reason of each such line.
    """

    def __init__(
        self,
        settings: Settings,
        stream: Stream,
        reader: LineReader,
        path: Path,
        on_invalid: OnInvalid,
        report: Callable[[int, Rejection], None],
    ) -> None:
        self._settings = settings
        self.stream = stream
        self.reader = reader
        self._path = path
        self.on_invalid = on_invalid
        self.report = report
        self._group = group_of(settings, path)

    def earlier(self) -> FileProgress:
        partition = (self.stream.topic, 0)
        committed = offsets.committed(self._settings, self._group, [partition]).get(partition)
        if committed is None or committed.offset == 0:
            return FileProgress(0, 0, hashlib.sha256().hexdigest())
        size, _, digest = committed.metadata.partition(";")
        return FileProgress(committed.offset, int(size), digest)

    def run(
        self,
        stop: threading.Event,
        *,
        resume: bool,
        pace: Pace | None = None,
        on_bytes: Callable[[int], None] = lambda _size: None,
    ) -> Sent:
        """Sends the file, from its beginning or from where an earlier run had got.

        Raises:
            UsageError: the file's beginning has changed since, or a line is invalid and
                `on_invalid` says stop.
            Fenced: another run of the same file has begun.
            Unavailable: the broker does not answer.
        """
        client = clients.producer(
            self._settings,
            **{"transactional.id": self._group, "transaction.timeout.ms": 60_000},
        )
        with clients.kafka_errors():
            client.init_transactions(_TIMEOUT)
        start = self.earlier() if resume else FileProgress(0, 0, "")
        with self._path.open("rb") as file:
            digest = self._skip(file, start)
            group = clients.assigned_consumer(self._settings, self._group)
            with closing(group) as consumer, clients.kafka_errors():
                return _Transfer(self, client, consumer.consumer_group_metadata()).send(
                    file, start, digest, stop, pace, on_bytes
                )

    def _skip(self, file: IO[bytes], start: FileProgress) -> "hashlib._Hash":
        digest = hashlib.sha256()
        left = start.bytes
        while left:
            piece = file.read(min(left, 1 << 20))
            if not piece:
                break
            digest.update(piece)
            left -= len(piece)
        if start.bytes and digest.hexdigest() != start.digest:
            raise UsageError(
                f"{self._path} has changed before line {start.lines + 1} since it was sent: "
                "send it without --resume to send it all again"
            )
        return digest


class _Transfer:
    """The loop of one run: lines into transactions, progress with each."""

    def __init__(self, run: FileRun, client: Producer, metadata: object) -> None:
        self._run = run
        self._client = client
        self._metadata = metadata

    def send(
        self,
        file: IO[bytes],
        start: FileProgress,
        digest: "hashlib._Hash",
        stop: threading.Event,
        pace: Pace | None,
        on_bytes: Callable[[int], None],
    ) -> Sent:
        done, size, sent = start.lines, start.bytes, Sent()
        for lines in _groups(file, stop, _TRANSACTION_LINES if pace is None else 1):
            self._client.begin_transaction()
            taken, refusal = self._hand_over(lines, done + 1, sent, pace, stop)
            # What comes before a line that stops the run is sent.
            done, size = done + taken, size + sum(map(len, lines[:taken]))
            digest.update(b"".join(lines[:taken]))
            self._commit(done, size, digest.hexdigest())
            if refusal is not None:
                raise refusal
            on_bytes(sum(map(len, lines)))
        sent.line, sent.finished = done, not stop.is_set()
        return sent

    def _hand_over(
        self,
        lines: list[bytes],
        first: int,
        sent: Sent,
        pace: Pace | None,
        stop: threading.Event,
    ) -> tuple[int, UsageError | None]:
        """Produces the records of lines, of which `first` is the first one's number.

        The loop is on the path of every event: nothing is looked up or called in it that could be
        outside. No delivery report is needed: the commit fails without it.

        Returns:
            How many lines are done, and why not all.
        """
        read, client, topic = self._run.reader.read, self._client, self._run.stream.topic
        queue = client.produce
        for number, line in enumerate(lines, first):
            text = line.strip(b"\r\n")
            if not text or text.isspace():
                continue
            accepted = read(text)
            if isinstance(accepted, Rejection):
                refusal = self._refuse(text, number, accepted, sent)
                if refusal is not None:
                    return number - first, refusal
                continue
            if pace is not None:
                stop.wait(pace(accepted.event))
            try:
                queue(topic, accepted.value, accepted.key)
            except BufferError:
                # Another attempt, with patience.
                produce(client, OutRecord(topic, accepted.key, accepted.value, []))
            sent.records += 1
        return len(lines), None

    def _refuse(
        self, text: bytes, number: int, rejection: Rejection, sent: Sent
    ) -> UsageError | None:
        """What becomes of an invalid line; an error where it ends the run."""
        run = self._run
        run.report(number, rejection)
        if run.on_invalid == "stop":
            return UsageError(
                f"line {number} is invalid ({rejection.message}): nothing after it sent"
            )
        if run.on_invalid == "skip":
            sent.skipped += 1
        else:
            redacted = run.reader.redacted(text)
            produce(self._client, OutRecord(run.stream.topic, None, redacted, []))
            sent.records += 1
            sent.invalid[rejection.code.value] = sent.invalid.get(rejection.code.value, 0) + 1
        return None

    def _commit(self, lines: int, size: int, digest: str) -> None:
        """The records and how far they go, in one transaction."""
        run = self._run
        self._client.send_offsets_to_transaction(
            [TopicPartition(run.stream.topic, 0, lines, metadata=f"{size};{digest}")],
            self._metadata,
            _TIMEOUT,
        )
        self._client.commit_transaction(_TIMEOUT)


def _groups(file: IO[bytes], stop: threading.Event, most: int) -> Iterator[list[bytes]]:
    lines: list[bytes] = []
    began = time.monotonic()
    for line in file:
        lines.append(line)
        if len(lines) >= most or time.monotonic() - began > _TRANSACTION_SECONDS:
            yield lines
            lines, began = [], time.monotonic()
        if stop.is_set():
            break
    if lines:
        yield lines
