"""What is committed beside an offset, as its metadata. Pure.

A worker without a database keeps there, in the transaction that moves its position: its own text
(analytics: `windows.progress`), the id of the topic that the offset counts in, and the offsets that it
passed because their records were gone. For example::

    1;730;1767225600000;300000|id=SceY-kIZSLCpbOxsD6vlFQ|lost=0-50:retention,90-112:retention

A broker accepts 4,096 bytes of it (``offset.metadata.max.bytes``).
"""

import re
from dataclasses import dataclass
from typing import Final, NamedTuple, cast

from streamflow.records import GapCause

MAX_BYTES: Final = 4096
MAX_GAPS: Final = 16

_GAP: Final = r"(\d{1,19})-(\d{1,19}):(retention|recreated|truncated)"
_OURS: Final = re.compile(
    rf"(?P<text>.*?)(?:\|id=(?P<id>[A-Za-z0-9_-]{{22}}))?(?:\|lost=(?P<lost>{_GAP}(?:,{_GAP})*))?",
    re.DOTALL,
)


class LostRange(NamedTuple):
    """Offsets from `first` up to before `end`, lost to `cause`."""

    first: int
    end: int
    cause: GapCause


@dataclass(frozen=True, slots=True)
class PositionMetadata:
    text: str = ""  # the job's own
    topic_id: str = ""  # of the topic that the offset counts in; empty if unknown
    lost: tuple[LostRange, ...] = ()  # passed unread, oldest first; the last 16 are kept

    def encode(self) -> str:
        """As text for the broker. Raises ValueError if the job's own text leaves no room."""
        head = self.text + (f"|id={self.topic_id}" if self.topic_id else "")
        kept = self.lost[-MAX_GAPS:]
        ranges = ",".join(f"{first}-{end}:{cause}" for first, end, cause in kept)
        encoded = head + (f"|lost={ranges}" if ranges else "")
        if len(encoded.encode()) > MAX_BYTES:
            raise ValueError(f"an offset's metadata has more than {MAX_BYTES} bytes")
        return encoded

    @classmethod
    def parse(cls, metadata: str | None) -> "PositionMetadata":
        """Reads it back. What is not ours, or from an older release, is all text."""
        match = _OURS.fullmatch(metadata or "")
        if match is None:
            return cls(metadata or "")
        lost = tuple(
            LostRange(int(first), int(end), cast("GapCause", cause))
            for first, end, cause in re.findall(_GAP, match["lost"] or "")
        )
        return cls(match["text"], match["id"] or "", lost)
