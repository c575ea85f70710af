"""What can go wrong, as types.

    StreamFlowError            one line for the user: what happened and what to do (exit 1)
    ├── UsageError             the command or its input is off (exit 2)
    ├── ConfigurationError     a setting, stream or environment is off
    ├── Unavailable            broker or database cannot be reached now: wait and try again
    ├── Fenced                 another worker owns these partitions now: drop the batch, start anew
    ├── CircuitOpen            too many rejections: this release looks broken, stop before harm
    ├── OffsetsReused          a topic was recreated or cut back: stop until a person has decided
    └── StackError             the embedded stack cannot start or stop

A record that breaks its contract is not an exception but data: see ``records.Rejection`` and
`ErrorCode`, the catalogue of causes that a dead letter can carry.
"""

from enum import StrEnum


class StreamFlowError(Exception):
    """Root of all errors that StreamFlow raises; its text says what to do."""

    exit_code = 1


class UsageError(StreamFlowError):
    """The command line or the input given to it is wrong."""

    exit_code = 2


class ConfigurationError(StreamFlowError):
    """A setting, a stream's declaration or the environment is wrong."""


class Unavailable(StreamFlowError):
    """The broker or the database does not answer now; the caller waits and tries again."""


class Fenced(StreamFlowError):
    """Another worker has taken over; what is in hand must be dropped, it is not lost."""


class CircuitOpen(StreamFlowError):
    """Too many records in a row were rejected: the release, not the data, is suspect."""


class OffsetsReused(StreamFlowError):
    """Offsets that were read before mean other records now. What was made of the old ones has their
    identity, so only a person can decide that it is set aside.

    Args:
        message: what happened, and what to do.
        topic: that was recreated or truncated.
    """

    def __init__(self, message: str, topic: str) -> None:
        super().__init__(message)
        self.topic = topic


class StackError(StreamFlowError):
    """The embedded stack cannot be started, stopped or read."""


def cause_of(error: BaseException) -> object:
    """The innermost cause of a failed request, mostly the operating system's, without what HTTP clients
    wrap around it."""
    reason = getattr(error, "reason", None)
    if isinstance(reason, str):
        return reason
    inner = reason if isinstance(reason, BaseException) else error.__context__
    return error if inner is None else cause_of(inner)


class ErrorCode(StrEnum):
    """Why a record became a dead letter: one code per cause. Data errors only, never an outage."""

    EMPTY_VALUE = "EMPTY_VALUE"
    INVALID_UTF8 = "INVALID_UTF8"
    INVALID_JSON = "INVALID_JSON"
    SCHEMA_VIOLATION = "SCHEMA_VIOLATION"
    UNKNOWN_TYPE = "UNKNOWN_TYPE"
    CLEAR_TEXT_PII = "CLEAR_TEXT_PII"
    UNSTORABLE_VALUE = "UNSTORABLE_VALUE"
    # In a topic that only workers write to: it has not their signature.
    FOREIGN_RECORD = "FOREIGN_RECORD"
    TOO_LARGE = "TOO_LARGE"
    UNREADABLE = "UNREADABLE"
