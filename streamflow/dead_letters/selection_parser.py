"""Parses what a user types (command line, Dagster's launchpad, dashboard) into a selection."""

import re
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Final

from streamflow.dead_letters.select import Selection, SourceStream, Status
from streamflow.errors import ErrorCode, UsageError
from streamflow.privacy import Hasher
from streamflow.records import MAX_OFFSET, Origin
from streamflow.stream import Stream
from streamflow.user_code import nearest

_AGO: Final = re.compile(r"([0-9]{1,6})([smhd])")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def make_selection(
    hasher: Hasher,
    *,
    codes: Sequence[str] = (),
    since: str | None = None,
    until: str | None = None,
    ids: Sequence[str] = (),
    stream: Stream | None = None,
    text: str | None = None,
    texts: Sequence[str] = (),
    statuses: Sequence[str] = (Status.OPEN,),
    loaded_until: str | None = None,
    limit: int | None = None,
    now: datetime | None = None,
) -> Selection:
    """Parses the fields of a `Selection`.

    Args:
        hasher: values are redacted, so an address in `text` is searched by its hashes, and the selection,
            which is stored, holds no address.
        since: a time (ISO 8601, UTC by default) or an age: 90s, 15m, 2h, 7d; `until` and
            `loaded_until` likewise.
        texts: further ones, any of which is enough.
        ids: as ``topic/partition/offset`` of the failed record.
        stream: that the failed record is of, or was made from.
        now: the time that an age is relative to; the present by default.

    Raises:
        UsageError: one of them is malformed, or is no error code.
    """
    now = now or datetime.now(UTC)
    unknown = [status for status in statuses if status not in set(Status)]
    if unknown:
        raise UsageError(f"{unknown[0]!r} is not a status: choose from {', '.join(Status)}")
    if limit is not None and not 1 <= limit <= MAX_OFFSET:
        raise UsageError(f"the limit must be at least 1, and at most {MAX_OFFSET}")
    selection = Selection(
        codes=tuple(map(parse_code, codes)),
        since=None if since is None else parse_time(since, now),
        until=None if until is None else parse_time(until, now),
        ids=tuple(map(parse_id, ids)),
        stream=source_of(stream),
        texts=tuple(
            redacted.decode()
            for wanted in filter(None, (text, *texts))
            for redacted in hasher.redactions(_encoded(wanted))
        ),
        loaded_until=None if loaded_until is None else parse_time(loaded_until, now),
        statuses=tuple(map(Status, statuses)),
        limit=limit,
    )
    if selection.since and selection.until and selection.since >= selection.until:
        raise UsageError("no time is in that range: since is not before until")
    return selection


def source_of(stream: Stream | None) -> SourceStream | None:
    return None if stream is None else SourceStream(stream.topic, stream.topic_names[1:])


def _encoded(text: str) -> bytes:
    """The text as values hold it; PostgreSQL stores no NUL in a selection."""
    with suppress(UnicodeEncodeError):
        if "\0" not in text:
            return text.encode()
    raise UsageError("the text to search for must be valid UTF-8 without NUL characters")


def parse_code(text: str) -> str:
    """The error code of that name, or UsageError: there are no others, in a user's own `Rejection` either."""
    with suppress(ValueError):
        return ErrorCode(text).value
    raise UsageError(
        f"{text!r} is not an error code{nearest(text.upper(), list(ErrorCode))}: choose from "
        f"{', '.join(ErrorCode)}"
    )


def parse_id(text: str) -> Origin:
    """The id of a dead letter, or UsageError."""
    id_ = Origin.parse(text.encode("utf-8", "replace"))
    if id_ is None:
        raise UsageError(
            f"{text!r} is not the id of a dead letter: they look like user-events/0/17, topic, "
            "partition and offset of the failed record, as `streamflow dlq list` shows them"
        )
    return id_


def parse_time(text: str, now: datetime) -> datetime:
    """A time, given as such or as an age before `now`; UsageError if it is neither."""
    ago = _AGO.fullmatch(text)
    try:
        if ago:
            return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise UsageError(
            f"{text!r} is not a time: write 2026-03-01T12:00:00Z, 2026-03-01, or an age such as 90s, "
            "15m, 2h or 7d"
        ) from None
