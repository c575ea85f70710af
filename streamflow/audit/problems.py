"""The problems that an audit can find, as data. Pure."""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

MOST_LISTED: Final = 1000  # problems of a partition that are listed; all are counted


class ProblemKind(StrEnum):
    """Of an audit."""

    TOPIC_MISSING = "topic_missing"
    TOPIC_RECREATED = "topic_recreated"
    GAP_RETENTION = "gap_retention"
    GAP_RECREATED = "gap_recreated"
    GAP_TRUNCATED = "gap_truncated"
    TRUNCATED = "truncated"
    MISSING = "missing"
    TWICE = "twice"
    NOT_IN_KAFKA = "not_in_kafka"
    OTHER_RECORD = "other_record"
    NO_NOTIFICATION = "no_notification"
    NO_EVENT = "no_event"
    WINDOW_DIFFERS = "window_differs"
    STATE_DIFFERS = "state_differs"
    ROWS_VANISHED = "rows_vanished"
    ROWS_ADDED = "rows_added"
    NOT_AUDITABLE = "not_auditable"


# Problems of what a partition holds, rather than of what was derived from it.
GAPS: Final = frozenset(
    {
        ProblemKind.TOPIC_MISSING,
        ProblemKind.TOPIC_RECREATED,
        ProblemKind.GAP_RETENTION,
        ProblemKind.GAP_RECREATED,
        ProblemKind.GAP_TRUNCATED,
        ProblemKind.TRUNCATED,
        ProblemKind.ROWS_VANISHED,
        ProblemKind.ROWS_ADDED,
        ProblemKind.NOT_AUDITABLE,
    }
)


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One problem that an audit has found.

    Attributes:
        partition: None if a whole topic is affected.
        offset: of the first record affected; None if no record can be named.
        end_offset: the offset after the last record affected.
        count: number of records (or events) affected.
        detail: what is wrong, for people.
        streams: the streams that it is about, where the topic alone does not say it.
        without_values: `detail` for a place where nothing can be forgotten (G16), where that names groups or
            values of events.
    """

    kind: ProblemKind
    topic: str
    partition: int | None = None
    offset: int | None = None
    end_offset: int | None = None
    count: int = 1
    detail: str
    streams: tuple[str, ...] = ()
    without_values: str = ""

    @property
    def nameless(self) -> "Problem":
        """The same without groups and values of events."""
        return replace(self, detail=self.without_values or self.detail)

    @property
    def place(self) -> str:
        return self.topic if self.partition is None else f"{self.topic}[{self.partition}]"

    def __str__(self) -> str:
        if self.offset is None:
            return f"{self.place} {self.detail}"
        if self.end_offset is None or self.end_offset == self.offset + 1:
            return f"{self.place} offset {self.offset}: {self.detail}"
        return f"{self.place} offsets {self.offset} to {self.end_offset - 1}: {self.detail}"

    def as_dict(self) -> dict[str, Any]:
        own = {**vars(self), "message": str(self)}
        del own["without_values"]  # the message says more
        return own
