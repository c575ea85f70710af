"""Building a dead letter: the refused record, redacted, with what went wrong in added headers."""

from datetime import datetime

from streamflow.contract import format_time
from streamflow.privacy import Hasher
from streamflow.records import (
    ATTEMPT_HEADER,
    ERROR_CLASS_HEADER,
    ERROR_CODE_HEADER,
    ERROR_EXCEPTION_HEADER,
    ERROR_MESSAGE_HEADER,
    ERROR_OFFSET_HEADER,
    ERROR_PARTITION_HEADER,
    ERROR_STAGE_HEADER,
    ERROR_TOPIC_HEADER,
    FAILED_AT_HEADER,
    GROUP_HEADER,
    ORIGIN_HEADER,
    OWN_HEADER_PREFIXES,
    REDACTED_HEADER,
    Headers,
    Origin,
    OutRecord,
    Record,
    Rejection,
    attempt_of,
    claimed_origin,
    headers_of,
    position_of,
)

_LONGEST_MESSAGE = 1000


def build(
    record: Record,
    rejection: Rejection,
    *,
    stage: str,
    group: str,
    topic: str,
    hasher: Hasher,
    now: datetime,
    origin: Origin | None = None,
) -> OutRecord:
    """The dead letter of a refused record.

    Key, value and headers are kept as they came but for addresses, which are replaced by their
    hashes (G7); headers under our own names are replaced, since incoming ones are untrusted. Origin
    and attempt that a record of its own topic claims are told on as claims: whoever reads the dead
    letter believes them only of a record that we replayed.

    Args:
        record: what was refused.
        rejection: why.
        stage: the worker that refused it.
        group: its consumer group.
        topic: the dead-letter topic.
        hasher: hashes the addresses.
        now: when it was refused.
        origin: of a derived record, the event that it was made of.
    """
    position = position_of(record)
    came_with = headers_of(record)
    headers: Headers = [
        (name, None if value is None else hasher.redact(value))
        for name, value in came_with
        if not name.startswith(OWN_HEADER_PREFIXES)
    ]
    key, value = record.key(), record.value()
    kept_key = None if key is None else hasher.redact(key)
    kept_value = None if value is None else hasher.redact(value)
    redacted = kept_key != key or kept_value != value
    told = {
        ERROR_TOPIC_HEADER: position.topic,
        ERROR_PARTITION_HEADER: str(position.partition),
        ERROR_OFFSET_HEADER: str(position.offset),
        ERROR_STAGE_HEADER: stage,
        ERROR_CLASS_HEADER: f"streaming_workers.{stage}",
        ERROR_EXCEPTION_HEADER: rejection.exception,
        ERROR_MESSAGE_HEADER: rejection.message[:_LONGEST_MESSAGE],
        ERROR_CODE_HEADER: rejection.code.value,
        ATTEMPT_HEADER: str(attempt_of(came_with)),
        REDACTED_HEADER: "true" if redacted else "false",
        FAILED_AT_HEADER: format_time(now),
        GROUP_HEADER: group,
        ORIGIN_HEADER: str(origin or claimed_origin(record) or position),
    }
    headers += [(name, text.encode()) for name, text in told.items()]
    return OutRecord(topic, kept_key, kept_value, headers)
