"""Sending events: a file exactly once, or simulated ones for as long as one likes.

A file is sent in Kafka transactions. Each also commits how much of the file is sent, as the offset of a
consumer group that belongs to that file, and keeps it where it does not expire, so `resume` continues
exactly behind what is in the topic, however the run before ended.
"""

import hashlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle, islice, repeat
from typing import Literal

from confluent_kafka import KafkaError, KafkaException, Producer

from streamflow.calls import SLACK, call
from streamflow.contract import Event
from streamflow.errors import Unavailable, UsageError
from streamflow.kafka import clients
from streamflow.kafka.producing import produce
from streamflow.producer.lines import Accepted, LineReader, too_long
from streamflow.records import Headers, OutRecord, Rejection
from streamflow.settings import Settings
from streamflow.stream import Simulated, Stream
from streamflow.stream_topics import MAX_RECORD_BYTES
from streamflow.units import counted
from streaming_workers.producer.progress import FileProgress, FileTransactions
from streaming_workers.producer.source import Source
from streaming_workers.tracing import NoTraces, Traces

OnInvalid = Literal["stop", "skip", "send"]
# Seconds to wait before an event is sent.
Pace = Callable[[Event], float]
_TRANSACTION_LINES = 50_000
_LINES_AT_ONCE = 1_000  # what is made of them stays in the processor's cache
_TIMEOUT = 60.0  # seconds
_DAY = 86_400.0  # seconds
_HASHED = "it is sent hashed, and is valid so"


@dataclass(kw_only=True)
class Sent:
    records: int = 0  # sent and acknowledged
    invalid: Counter[str] = field(default_factory=Counter)  # records sent though invalid, by code
    hashed: int = 0  # records sent that are valid only since what they held in clear was hashed
    skipped: int = 0  # invalid lines not sent
    skipped_before: int = 0  # by the earlier runs that this one resumes
    line: int = 0  # lines that are done, those of earlier runs included
    finished: bool = False  # the whole input is done
    waiting: bool = False  # the last line has no newline: it may be half a line, and is not sent


def simulate(
    settings: Settings,
    sources: Sequence[tuple[Stream, Iterable[Simulated]]],
    stop: threading.Event,
    *,
    rate: float,
    count: int | None,
    on_record: Callable[[Stream], None] = lambda _stream: None,
    traces: Traces | None = None,
) -> Sent:
    """Sends simulated events of streams, at a steady rate in turn, until `count` of each are sent or `stop`
    is set. Raises Unavailable if the broker did not take a record in time.

    Args:
        rate: events of each stream in a second.
        traces: where each record begins one; None for none.
    """
    most = None if count is None else count * len(sources)
    send = (traces or NoTraces()).send
    smallest = min(
        (stream.topics.max_record_bytes for stream, _ in sources), default=MAX_RECORD_BYTES
    )
    sent, client = Sent(), clients.producer(settings, **clients.batches_within(smallest))
    failures: list[KafkaError] = []

    def delivered(error: KafkaError | None, _message: object) -> None:
        if error is not None:
            failures.append(error)

    def check() -> None:
        if failures:
            raise clients.translated(KafkaException(failures[-1]))

    began = time.monotonic()
    for stream, record in islice(_in_turn(sources), most):
        if stop.is_set():
            break
        with send(stream.topic) as headers:
            produce(
                client,
                OutRecord(stream.topic, record.key, record.value, headers),
                on_delivery=delivered,
            )
        sent.records += 1
        if record.code is not None:
            sent.invalid[record.code.value] += 1
        on_record(stream)
        ahead = began + sent.records / (rate * len(sources)) - time.monotonic()
        if ahead > 0.01:  # noqa: PLR2004 (finer than the clock's own grain is no use)
            client.poll(0)
            check()
            stop.wait(ahead)
    with call("producer.flush", _TIMEOUT + SLACK):
        left = client.flush(_TIMEOUT)
    check()
    if left:
        raise Unavailable(
            f"Kafka did not acknowledge {left} of {counted(sent.records, 'record')} within {_TIMEOUT:g} s"
        )
    sent.line = sent.records
    sent.finished = True
    return sent


def _in_turn(
    sources: Sequence[tuple[Stream, Iterable[Simulated]]],
) -> Iterator[tuple[Stream, Simulated]]:
    """The records of streams in turn, until one has no more. Each is made when it is asked for: the time of
    its event is when it is sent, and not when the round began."""
    for stream, source in cycle([(stream, iter(source)) for stream, source in sources]):
        record = next(source, None)
        if record is None:
            return
        yield stream, record


class FileRun:
    """One run over a file.

    Args:
        settings: where the broker is.
        stream: whose topic the lines go to.
        reader: turns lines into records.
        source: what is sent; `resume` finds a file by the absolute form of its path. It is closed at the end.
        on_invalid: what to do with a line that breaks the contract.
        report: is called with the number of each such line and what is wrong with it.
        traces: where each transaction begins one, which its records belong to; None for none.
    """

    def __init__(
        self,
        settings: Settings,
        stream: Stream,
        reader: LineReader,
        source: Source,
        on_invalid: OnInvalid,
        report: Callable[[int, Rejection], None],
        traces: Traces | None = None,
    ) -> None:
        self._settings = settings
        self._stream = stream
        self._reader = reader
        self._source = source
        self._path = source.path
        self._on_invalid = on_invalid
        self._report = report
        self._sent = Sent()
        self._client: Producer  # of the transactions of `run`
        self._traces = traces or NoTraces()
        self._headers: Headers = []  # of the records of a transaction

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
            UsageError: nothing is known of an earlier run, the file's beginning has changed since, or a
                line is invalid and `on_invalid` says stop.
            Fenced: another run of the same file has begun.
            Unavailable: the broker does not answer.
        """
        sent = self._sent
        with (
            closing(self._source) as source,
            FileTransactions(
                self._settings,
                self._stream.topic,
                self._path,
                resumable=source.resumable,
                record_bytes=self._stream.topics.max_record_bytes,
            ) as transactions,
        ):
            self._client = transactions.client
            start = transactions.begin(resume=resume)
            done, size, digest = start.lines, start.bytes, self._skip(source, start, stop)
            sent.skipped_before = start.skipped
            if stop.is_set():
                sent.line = done
                return sent
            for lines in source.groups(stop, _TRANSACTION_LINES if pace is None else 1):
                with self._traces.send(self._stream.topic, len(lines)) as self._headers:
                    with clients.kafka_errors():
                        self._client.begin_transaction()
                        taken, refusal = self._produce(lines, done + 1, pace, stop)
                    # What comes before a line that stops the run is sent.
                    done, size = done + taken, size + sum(map(len, lines[:taken]))
                    digest.update(b"".join(lines[:taken]))
                    skipped = sent.skipped_before + sent.skipped
                    transactions.commit(FileProgress(done, size, digest.hexdigest(), skipped))
                sent.line = done
                if refusal is not None:
                    raise refusal
                on_bytes(sum(map(len, lines)))
        sent.line, sent.waiting = done, source.waiting
        sent.finished = not (stop.is_set() or source.waiting)
        return sent

    @property
    def sent(self) -> Sent:
        """What was sent so far, also by a run that an error has ended."""
        return self._sent

    def _skip(self, source: Source, start: FileProgress, stop: threading.Event) -> "hashlib._Hash":
        digest = source.skip(start.bytes, stop)
        if start.bytes and not stop.is_set() and digest.hexdigest() != start.digest:
            raise UsageError(
                f"{self._path} has changed before {source.unit} {start.lines + 1} since it was sent: "
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
        client, topic, sent, headers = self._client, self._stream.topic, self._sent, self._headers
        queue = partial(client.produce, headers=[*headers]) if headers else client.produce
        for begin in range(0, len(lines), _LINES_AT_ONCE):
            some = lines[begin : begin + _LINES_AT_ONCE]
            # Whoever sets the pace asks an event for its time.
            ordinary = self._reader.read_ordinary(some) if pace is None else repeat(None)
            for number, (line, record) in enumerate(zip(some, ordinary), first + begin):  # noqa: B905 (`repeat`)
                if record is None:
                    found = self._judged(line, number)
                    if isinstance(found, UsageError):
                        return number - first, found
                    if found is None:
                        continue
                    if pace is not None:
                        _wait(pace, found.event, stop)
                    key, value = found.key, found.value
                else:
                    key, value = record
                try:
                    queue(topic, value, key)
                except BufferError:
                    # Waits for room.
                    produce(client, OutRecord(topic, key, value, headers))
                sent.records += 1
        return len(lines), None

    def _judged(self, line: bytes, number: int) -> Accepted | UsageError | None:
        """What is to be sent of a line; None for nothing, an error if it ends the run."""
        text = line.strip(b"\r\n")
        if not text or text.isspace():
            return None
        accepted = self._reader.read(text)
        if isinstance(accepted, Rejection):
            return self._refuse(text, number, accepted)
        return accepted

    def _refuse(
        self, text: bytes, number: int, rejection: Rejection
    ) -> Accepted | UsageError | None:
        """Reports an invalid line, and skips or sends it. Returns an error if it ends the run, and what
        is to be sent if hashing makes the line valid."""
        if self._on_invalid == "send":
            return self._send_hashed(text, number, rejection)
        self._report(number, rejection)
        if self._on_invalid == "stop":
            return UsageError(
                f"{self._source.unit} {number} is invalid ({rejection.message}): nothing after it sent"
            )
        self._sent.skipped += 1
        return None

    def _send_hashed(self, text: bytes, number: int, rejection: Rejection) -> Accepted | None:
        redacted = self._reader.redacted(text)
        found = self._reader.read(redacted)
        if isinstance(found, Rejection) and too_long(
            self._stream, OutRecord(self._stream.topic, None, redacted, self._headers)
        ):
            # Kafka would refuse the transaction.
            self._report(number, found)
            self._sent.skipped += 1
            return None
        if isinstance(found, Accepted):
            self._report(number, rejection._replace(message=f"{rejection.message}: {_HASHED}"))
            self._sent.hashed += 1
            return found
        # Its dead letter names the fault that is left.
        self._report(number, found)
        produce(self._client, OutRecord(self._stream.topic, None, redacted, self._headers))
        self._sent.records += 1
        self._sent.invalid[found.code.value] += 1
        return None


def _wait(pace: Pace, event: Event, stop: threading.Event) -> None:
    """Waits until an event is due, for centuries if need be: a thread cannot wait so long at once."""
    while (seconds := pace(event)) > 0 and not stop.wait(min(seconds, _DAY)):
        pass
