"""What a producer sends of an event: hashed, and as the stream's contract accepts it."""

import logging
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Final

from streamflow import declarations
from streamflow.contract import Event
from streamflow.errors import ConfigurationError, EventFault, InvalidEvent, UsageError
from streamflow.producer.documents import Documents
from streamflow.producer.fast_lines import Keyed
from streamflow.producer.lines import LineReader
from streamflow.records import OutRecord, Rejection
from streamflow.registry import hasher_for, load_streams, stream_named
from streamflow.settings import Settings
from streamflow.stream import Stream

log = logging.getLogger("streamflow.producer")

_AT_ONCE: Final = 1_000  # what is made of them stays in the processor's cache
_KEPT_FAULTS: Final = 100


def stream_to_send_to(stream: Stream | str, settings: Settings, *, not_ours: bool) -> Stream:
    """The stream, with the topics of these settings.

    Raises:
        ConfigurationError: its declaration cannot work.
        UsageError: no stream is called so, its topic belongs to another owner, or its records are no JSON.
    """
    if isinstance(stream, str):
        stream = stream_named(load_streams(settings), stream)
    elif faults := declarations.problems(stream, ()):
        raise ConfigurationError(f"stream {stream.name}: {'; '.join(faults)}")
    if not stream.topics.managed and not not_ours:
        raise UsageError(
            f"topic {stream.name} belongs to another owner, and everyone who reads it would get what is "
            "sent: if the owner allows it, add not_ours=True"
        )
    if stream.decode is not None:
        raise UsageError(
            f"stream {stream.name} holds records of another format (decode=), and this producer sends "
            "JSON: send them with a client of that format"
        )
    return stream.prefixed(settings.prefix)


class Judge:
    """Makes the records of a stream's events."""

    def __init__(self, stream: Stream, settings: Settings) -> None:
        # Of this stream only: another one's private field may be a plain one here.
        hasher = hasher_for(settings, [stream])
        if not hasher.keyed:
            log.warning(
                "addresses are hashed with bare SHA-256, which can be guessed: set STREAMFLOW_PII_KEY to a "
                "secret to prevent that"
            )
        self._topic = stream.topic
        self._reader = LineReader(stream, hasher)
        self.documents = Documents(stream.decoder)

    def record(self, event: Event | Mapping[str, Any]) -> OutRecord:
        """The record of one event. Raises InvalidEvent."""
        return self.records([event])[0]

    def records(self, events: Iterable[Event | Mapping[str, Any]]) -> list[OutRecord]:
        """The records of events. Raises InvalidEvent if one of them is invalid."""
        return self._sound(self.judged(map(self.documents.write, events)))

    def judged(self, documents: Iterable[bytes | Rejection]) -> Iterator[OutRecord | Rejection]:
        """The record of each document, or why it has none."""
        waiting = iter(documents)
        while some := list(islice(waiting, _AT_ONCE)):
            texts = [b"" if isinstance(document, Rejection) else document for document in some]
            for document, ordinary in zip(some, self._reader.read_ordinary(texts), strict=True):
                yield self._judged(document, ordinary)

    def _judged(self, document: bytes | Rejection, ordinary: Keyed | None) -> OutRecord | Rejection:
        if isinstance(document, Rejection):
            return document
        found = ordinary or self._reader.read(document)
        if isinstance(found, Rejection):
            return found
        return OutRecord(self._topic, found.key, found.value, [])

    @staticmethod
    def _sound(judged: Iterable[OutRecord | Rejection]) -> list[OutRecord]:
        records: list[OutRecord] = []
        faults: list[EventFault] = []
        count = 0
        for index, one in enumerate(judged):
            if isinstance(one, OutRecord):
                records.append(one)
                continue
            count += 1
            if count <= _KEPT_FAULTS:
                faults.append(EventFault(index, one.code, reasons_of(one)))
        if faults:
            raise InvalidEvent(faults, count)
        return records


def reasons_of(rejection: Rejection) -> tuple[str, ...]:
    """One for each field that is wrong."""
    return rejection.faults or (rejection.message,)
