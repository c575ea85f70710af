"""Rows of dead letters. Pure.

Every record of a dead-letter topic becomes a row. One that no worker has signed is the row of a foreign
record, under its own position. Every address in it is redacted (again: redacting twice changes nothing).
"""

import re
from base64 import b64encode
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from streamflow import records
from streamflow.contract import EARLIEST, LATEST
from streamflow.dead_letter_records import redact
from streamflow.errors import ErrorCode
from streamflow.flow import Replayed
from streamflow.postgres.rows.events import appended_at, line_of
from streamflow.postgres.tables import DeadLetterRow
from streamflow.privacy import Hasher
from streamflow.records import (
    Headers,
    Origin,
    Record,
    attempt_of,
    in_its_topic,
    last_header,
    position_of,
)

FOREIGN_STAGE: Final = "foreign"

_CODE = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
_LONGEST: Final = 1024  # characters of a header that becomes a column


class DeadLetterClaim(NamedTuple):
    """What a dead letter says of the record that failed."""

    source: Origin  # position of that record
    identity: Replayed  # what it claims to be
    otherwise: Replayed  # what it is unless our replay records confirm that


def claim_of(
    headers: Headers, topic_ids: Mapping[str, str], *, signed: bool
) -> DeadLetterClaim | None:
    """What a dead letter says of the record that failed; None if it names none, or a malformed one.

    A worker passes on what the record itself claimed, with one exception: it knows which event a derived
    record was made of.

    Args:
        topic_ids: of the topics now.
        signed: whether a worker of this release wrote it.
    """
    source = _source(headers)
    if source is None:
        return None
    origin = _sound(Origin.parse(last_header(headers, records.ORIGIN_HEADER))) or source
    is_derived = signed and origin.topic != source.topic
    topic_id = last_header(headers, records.TOPIC_ID_HEADER)
    origin_id = last_header(headers, records.ORIGIN_TOPIC_ID_HEADER) if is_derived else topic_id
    source = in_its_topic(source, topic_id, topic_ids)
    origin = in_its_topic(origin, origin_id, topic_ids)
    otherwise = Replayed(origin if is_derived else source, 0)
    return DeadLetterClaim(source, Replayed(origin, attempt_of(headers)), otherwise)


def dead_letter_line(
    record: Record,
    headers: Headers,
    hasher: Hasher,
    source: Origin | None = None,
    identity: Replayed | None = None,
) -> bytes:
    """The line of ``dead_letters`` for a record of a dead-letter topic.

    Args:
        headers: of the record, as far as they are trusted.
        hasher: redacts.
        source: position of the record that failed; None if this is not a dead letter of ours.
        identity: of the record that failed.
    """
    position = position_of(record)
    is_ours = source is not None and identity is not None
    if source is None or identity is None:
        source, stage, code = position, FOREIGN_STAGE, str(ErrorCode.FOREIGN_RECORD)
        identity = Replayed(position, 0)
    else:
        stage = _text(headers, records.ERROR_STAGE_HEADER, hasher)
        code = _text(headers, records.ERROR_CODE_HEADER, hasher)
        if not _CODE.fullmatch(code):
            code = str(ErrorCode.SCHEMA_VIOLATION)
    # A foreign record may be of any size.
    kept = redact(hasher, record.key(), record.value(), headers, own_are_ours=is_ours)
    if kept.truncated is not None:
        kept.headers.append((records.TRUNCATED_HEADER, "{}/{}".format(*kept.truncated).encode()))
    return line_of(
        DeadLetterRow(
            *source,
            *identity.origin,
            *position,
            code,
            stage,
            _text(headers, records.GROUP_HEADER, hasher),
            _text(headers, records.ERROR_EXCEPTION_HEADER, hasher),
            _text(headers, records.ERROR_MESSAGE_HEADER, hasher),
            identity.attempt,
            last_header(headers, records.REDACTED_HEADER) == b"true",
            _failed_at(headers),
            kept.key,
            kept.value,
            _encoded(kept.headers, hasher),
            appended_at(record.timestamp()),
        )
    )


def _source(headers: Headers) -> Origin | None:
    """The failed record's position, if the headers name a well-formed one."""
    names = records.ERROR_TOPIC_HEADER, records.ERROR_PARTITION_HEADER, records.ERROR_OFFSET_HEADER
    return _sound(Origin.parse(b"/".join(last_header(headers, name) or b"" for name in names)))


def _sound(origin: Origin | None) -> Origin | None:
    return origin if origin is not None and _TOPIC.fullmatch(origin.topic) else None


def _text(headers: Headers, name: str, hasher: Hasher) -> str:
    """A header as text that PostgreSQL can hold."""
    return _redacted(last_header(headers, name) or b"", hasher)[:_LONGEST]


def _redacted(raw: bytes, hasher: Hasher) -> str:
    return hasher.redact(raw).decode("utf-8", "replace").replace("\x00", "\ufffd")


def _failed_at(headers: Headers) -> datetime | None:
    raw = last_header(headers, records.FAILED_AT_HEADER) or b""
    try:
        moment = datetime.fromisoformat(raw[:40].decode("ascii"))
    except ValueError:
        return None
    moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return moment if EARLIEST <= moment <= LATEST else None


def _encoded(headers: Headers, hasher: Hasher) -> list[Any]:
    """Redacted headers as they are stored, in their order: ``[[name, base64 or null], …]``."""
    return [
        [
            _redacted(name.encode("utf-8", "replace"), hasher),
            None if value is None else b64encode(value).decode(),
        ]
        for name, value in headers
    ]
