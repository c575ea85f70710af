"""What can go wrong, as types: each says what the caller does.

A record that breaks its contract is not an exception but data: `records.Rejection`, with an `ErrorCode`.
It is *rejected* by its contract, *refused* by PostgreSQL, or *invalid* before a producer sends it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class StreamFlowError(Exception):
    """Root of all errors of StreamFlow. The message is one line: what happened, and what to do."""

    exit_code = 1


class UsageError(StreamFlowError):
    """The command line or its input is wrong."""

    exit_code = 2


class ConfigurationError(StreamFlowError):
    """A setting, a stream's declaration or the environment is wrong."""


class StreamsRefused(ConfigurationError):
    """What some streams need in Kafka or PostgreSQL cannot be had; what the others need is in place.

    Attributes:
        streams: the names of the streams, and why.
        differences: how topics of the others differed from their declarations.
    """

    def __init__(self, streams: Mapping[str, str], differences: Sequence[Any] = ()) -> None:
        super().__init__("; ".join(streams.values()))
        self.streams = dict(streams)
        self.differences = tuple(differences)


class Unavailable(StreamFlowError):
    """The broker, the database or the schema registry does not answer now: wait and try again."""


class StreamUnavailable(Unavailable):
    """What one stream alone depends on does not answer: the others go on (G14)."""

    def __init__(self, message: str, topic: str) -> None:
        super().__init__(message)
        self.topic = topic


class Fenced(StreamFlowError):
    """Another worker owns these partitions now: drop the batch, it is not lost, and start again."""


class CircuitOpen(StreamFlowError):
    """Too many records were rejected: the release, not the data, is suspect. Stop before harm is done."""


class OffsetsReused(StreamFlowError):
    """A topic was recreated or truncated, so offsets that were read before mean other records now: stop.
    What was made of the old records has their identity, so only a person can decide to set it aside."""

    def __init__(self, message: str, topic: str) -> None:
        super().__init__(message)
        self.topic = topic


class StackError(StreamFlowError):
    """The embedded stack cannot be started, stopped or read."""


def cause_of(error: BaseException) -> object:
    """The innermost cause of a failed request, mostly the operating system's, without the wrappers of
    HTTP clients."""
    reason = getattr(error, "reason", None)
    if isinstance(reason, str):
        return reason
    inner = reason if isinstance(reason, BaseException) else error.__context__
    return error if inner is None else cause_of(inner)


class ErrorCode(StrEnum):
    """Why a record became a dead letter. Data errors only, never an outage."""

    EMPTY_VALUE = "EMPTY_VALUE"
    INVALID_UTF8 = "INVALID_UTF8"
    INVALID_JSON = "INVALID_JSON"
    INVALID_FORMAT = "INVALID_FORMAT"  # not the format that the stream's `decode` reads
    UNKNOWN_SCHEMA = "UNKNOWN_SCHEMA"  # the schema registry has none of that id
    SCHEMA_VIOLATION = "SCHEMA_VIOLATION"
    UNKNOWN_TYPE = "UNKNOWN_TYPE"
    CLEAR_TEXT_PII = "CLEAR_TEXT_PII"
    UNSTORABLE_VALUE = "UNSTORABLE_VALUE"
    FOREIGN_RECORD = "FOREIGN_RECORD"  # in a topic that only workers write to, without a signature
    TOO_LARGE = "TOO_LARGE"
    PROCESSING_FAILED = (
        "PROCESSING_FAILED"  # code of the stream's declaration raised an exception (G14)
    )
    UNREADABLE = "UNREADABLE"


@dataclass(frozen=True)
class EventFault:
    """Why an event is invalid. The reasons never hold a piece of it.

    Attributes:
        index: its place among those that were given to the call, from 0 on.
        code: as a dead letter of it would have.
        reasons: one for each field that is wrong, which they name.
    """

    index: int
    code: ErrorCode
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        return f"event {self.index}: {self.code}: {'; '.join(self.reasons)}"


class InvalidEvent(StreamFlowError):
    """Events break their contract: nothing that was given to the call is sent.

    Attributes:
        faults: of the events that are invalid, the first ones.
        count: how many are.
    """

    def __init__(self, faults: Sequence[EventFault], count: int) -> None:
        more = f" (and {count - 1:,} more)" if count > 1 else ""
        super().__init__(f"{faults[0]}{more}: nothing was sent")
        self.faults = tuple(faults)
        self.count = count

    @property
    def code(self) -> ErrorCode:
        """Of the first invalid event."""
        return self.faults[0].code

    @property
    def reasons(self) -> tuple[str, ...]:
        """Of the first invalid event."""
        return self.faults[0].reasons


class DeliveryFailed(StreamFlowError):
    """Kafka did not acknowledge events.

    Attributes:
        may_be_stored: whether they may be in the topic all the same, so that sending them again may
            store them twice.
    """

    def __init__(self, message: str, *, may_be_stored: bool) -> None:
        super().__init__(message)
        self.may_be_stored = may_be_stored
