"""The circuit breaker: stops a release that refuses everything before it does harm (G6)."""

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import methodcaller
from typing import Final, Self

from streamflow.errors import CircuitOpen
from streamflow.records import Record
from streamflow.settings import Settings

_TOPIC: Final = methodcaller("topic")


class Breaker:
    """Limits the refused records of each topic on its own: a stream whose table takes nothing must
    be noticed among others that are well. Implements `flow.Limit`.

    Args:
        window: number of last records to take the ratio of.
        ratio: share of refused records in that window that is too much.
        consecutive: refused records in a row that are too many.
    """

    def __init__(self, window: int, ratio: float, consecutive: int) -> None:
        self._window = window
        self._ratio = ratio
        self._consecutive = consecutive
        self._topics: dict[str, _Past] = {}
        self._next: dict[str, _Past] = {}

    @classmethod
    def of(cls, settings: Settings) -> Self:
        return cls(settings.breaker_window, settings.breaker_ratio, settings.breaker_consecutive)

    def check(self, records: Sequence[Record], rejected: Sequence[int]) -> None:
        """Checks a batch before it is committed; the same one again if its commit is retried.
        `rejected` are the indexes of the refused records, ascending.

        Raises:
            CircuitOpen: this batch would be too much; it must not be committed.
        """
        self._next = self._topics
        if rejected or self._topics:
            batch = _by_topic(records, rejected)
            self._next = self._topics | {
                topic: self._checked(topic, *counted) for topic, counted in batch.items()
            }

    def kept(self) -> None:
        # Most batches hold nothing to refuse, so nothing to count.
        self._topics = {topic: past for topic, past in self._next.items() if past.refused}

    def _checked(self, topic: str, records: int, rejected: Sequence[int]) -> "_Past":
        past = self._topics.get(topic, _Past())
        run, longest = _runs(past.run, records, rejected)
        recent = deque([(records, len(rejected))])
        seen = records
        for size, count in reversed(past.batches):
            if seen >= self._window:
                break
            recent.appendleft((size, count))
            seen += size
        new = _Past(run, recent)
        if longest >= self._consecutive:
            raise CircuitOpen(f"{longest} records in a row were refused, of {topic}")
        if seen >= self._window and new.refused >= self._ratio * seen:
            raise CircuitOpen(f"{new.refused} of the last {seen} records were refused, of {topic}")
        return new


@dataclass(frozen=True, slots=True)
class _Past:
    run: int = 0  # refused records at the end
    batches: deque[tuple[int, int]] = field(default_factory=deque)  # records, and refused ones

    @property
    def refused(self) -> int:
        return sum(count for _, count in self.batches)


def _by_topic(
    records: Sequence[Record], rejected: Sequence[int]
) -> dict[str, tuple[int, Sequence[int]]]:
    counts: Counter[str] = Counter(map(_TOPIC, records))
    if len(counts) == 1:
        return dict.fromkeys(counts, (len(records), rejected))
    indexes: dict[str, list[int]] = {topic: [] for topic in counts}
    refused = set(rejected)
    seen: Counter[str] = Counter()
    for index, record in enumerate(records):
        topic = record.topic() or ""
        if index in refused:
            indexes[topic].append(seen[topic])
        seen[topic] += 1
    return {topic: (count, indexes[topic]) for topic, count in counts.items()}


def _runs(run: int, records: int, rejected: Sequence[int]) -> tuple[int, int]:
    """Length of the run of refusals at the end, and of the longest one."""
    longest = run
    expected = 0
    for index in rejected:
        run = run + 1 if index == expected else 1
        longest = max(longest, run)
        expected = index + 1
    return (run if expected == records else 0), longest
