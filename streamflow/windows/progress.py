"""What the counting of a partition needs to go on: committed with what was emitted, as the metadata of an
offset. Pure."""

import re
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

# The name under which windows without aggregates go: that of their table.
COUNTS: Final = "window_counts"

_COUNTS_ONLY: Final = "1"
_WITH_HANDED: Final = "2"
_SEVERAL: Final = "3"
_NAME: Final = re.compile(r"[A-Za-z0-9_]+")
# Of the 4,096 bytes that a broker takes, the ids and gaps of a position may need the rest.
_MOST_BYTES: Final = 3_200
_POSITION_BYTES: Final = 24
_NUMBERS_BYTES: Final = 90  # of a declaration's digest and numbers, at most
_BEFORE_ALL: Final = -(10**14)  # milliseconds since the epoch


class WindowProgress(NamedTuple):
    """How far one declaration's windows are."""

    closed_through: int | None  # what was before it is emitted; None before the first event
    ahead: int  # the far-ahead limit, in milliseconds, in force since `Progress.resume`
    # End of the last window that was handed over and is not closed yet.
    handed_through: int | None = None
    digest: str = ""  # of what is counted; other windows of the same name begin anew
    since: int = 0  # the offset from which on these windows count

    @property
    def closed_before(self) -> int:
        """As `closed_through`, and before all events if no window is closed."""
        return _BEFORE_ALL if self.closed_through is None else self.closed_through

    def block(self, name: str) -> str:
        numbers = (self.since, self.closed_through, self.ahead, self.handed_through)
        return ",".join((name, self.digest, *map(_text, numbers)))


class Progress(NamedTuple):
    """What a partition's counting needs to go on."""

    resume: int  # offset to read from: the oldest event of an open window
    position: int  # everything before this offset was counted
    windows: Mapping[str, WindowProgress]  # by the name of their table

    @classmethod
    def of_counts(  # of windows without aggregates alone
        cls,
        resume: int,
        position: int,
        closed_through: int | None,
        ahead: int,
        handed_through: int | None = None,
    ) -> "Progress":
        return cls(
            resume, position, {COUNTS: WindowProgress(closed_through, ahead, handed_through)}
        )

    @property
    def counts(self) -> WindowProgress | None:
        """That of the windows without aggregates."""
        return self.windows.get(COUNTS)

    def metadata(self) -> str:
        """Committed beside ``resume``, as the metadata of the offset. For a stream that only counts events
        it is what releases before aggregates wrote."""
        counts = self.counts
        if counts is None or len(self.windows) > 1 or counts.since:
            blocks = (windows.block(name) for name, windows in self.windows.items())
            return ";".join((_SEVERAL, str(self.position), *blocks))
        closed, ahead, handed = _text(counts.closed_through), counts.ahead, counts.handed_through
        if handed is None:
            return f"{_COUNTS_ONLY};{self.position};{closed};{ahead}"
        return f"{_WITH_HANDED};{self.position};{closed};{ahead};{handed}"

    @classmethod
    def parse(cls, offset: int, metadata: str | None) -> "Progress | None":
        """From a committed offset. None if the metadata is not ours, as after the group's offsets were
        reset: counting starts again from that offset."""
        version, *fields = (metadata or "").split(";")
        try:
            if version == _SEVERAL:
                position, *blocks = fields
                return cls(offset, int(position), dict(map(_parsed, blocks)))
            position, closed, ahead, *handed = fields
            if (version, len(handed)) not in ((_COUNTS_ONLY, 0), (_WITH_HANDED, 1)):
                return None
            return cls.of_counts(
                offset, int(position), _number(closed), int(ahead), *map(int, handed)
            )
        except ValueError:
            return None


def fits(names: Iterable[str]) -> bool:
    """Whether the progress of windows with these names always fits beside an offset."""
    return _POSITION_BYTES + sum(len(name) + _NUMBERS_BYTES for name in names) <= _MOST_BYTES


def _parsed(block: str) -> tuple[str, WindowProgress]:
    name, digest, since, closed, ahead, handed = block.split(",")
    if not _NAME.fullmatch(name):
        raise ValueError("no name of a table")
    return name, WindowProgress(_number(closed), int(ahead), _number(handed), digest, int(since))


def _text(number: int | None) -> str:
    return "" if number is None else str(number)


def _number(text: str) -> int | None:
    return int(text) if text else None
