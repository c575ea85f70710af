"""Masked records: addresses are hashed before anything is kept or searched (G7), so that a filter
cannot find what may not be seen."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from streamflow.privacy import Hasher
from streamflow.records import Record, headers_of

LONGEST: Final = 65_536  # bytes of a value that are kept


@dataclass(frozen=True, slots=True)
class SeenRecord:
    """A record, masked.

    Attributes:
        appended: the broker's time stamp; None where it has none.
        size: of the value as it is in the topic, in bytes; None for no value at all.
        value: as text; longer ones are cut.
        binary: the value is not UTF-8; `value` shows its bytes with escapes.
    """

    topic: str
    partition: int
    offset: int
    appended: datetime | None
    key: str | None
    value: str
    size: int | None
    headers: tuple[tuple[str, str | None], ...]
    binary: bool = False

    @property
    def position(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"

    @property
    def is_cut(self) -> bool:
        """Whether the value is longer than what is kept of it."""
        return (self.size or 0) > LONGEST


def mask(record: Record, hasher: Hasher) -> SeenRecord:
    value = record.value()
    masked = b"" if value is None else hasher.redact_within(value, LONGEST)[0]
    text, binary = as_text(masked)
    key = record.key()
    kind, time = record.timestamp()
    return SeenRecord(
        topic=record.topic() or "",
        partition=record.partition() or 0,
        offset=record.offset() or 0,
        appended=datetime.fromtimestamp(time / 1000, UTC) if kind and time >= 0 else None,
        key=None if key is None else as_text(hasher.redact(key))[0],
        value=text,
        size=None if value is None else len(value),
        headers=tuple(
            (
                as_text(hasher.redact(name.encode()))[0],
                None if content is None else as_text(hasher.redact(content))[0],
            )
            for name, content in headers_of(record)
        ),
        binary=binary,
    )


def as_text(data: bytes) -> tuple[str, bool]:
    """Bytes as text, and whether they are not UTF-8: invalid bytes are escaped."""
    try:
        return data.decode(), False
    except UnicodeDecodeError:
        return data.decode("utf-8", "backslashreplace"), True
