"""The circuit breaker: stops a release that rejects everything, or whose database refuses everything,
before it does harm (G6).

Whether a contract rejects a record depends on the release and on its producer. A release that has accepted
enough since its process started is sound: what it rejects from then on is the producers' fault, and stops
nobody. Before that, many rejected records are the release's fault if they have many keys of which it has
accepted nothing; few keys are a broken producer.

Each worker judges for itself: what loader or analytics passed because their release cannot read it would
be missing once the release is mended.
"""

from bisect import bisect_left
from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from operator import methodcaller
from typing import Final, NamedTuple, Self

import structlog

from streamflow.errors import CircuitOpen
from streamflow.flow import PartitionRun, runs_of
from streamflow.records import Record
from streamflow.settings import Settings
from streamflow.units import counted

log = structlog.get_logger()

_KEY: Final = methodcaller("key")
_MOST_KEYS: Final = 4_096  # rejected ones that are remembered


class Breaker:
    """Limits the rejected and refused records of each topic on its own: a stream whose table takes nothing
    must be noticed among others that are well. Implements `flow.Limit`.

    Args:
        window: number of last records to take the ratio of.
        ratio: share of rejected or refused records in that window that is too much.
        consecutive: rejected or refused records in a row that are too many.
        keys: keys without any accepted record that show that the release rejects them, not one producer
            sends them.
    """

    def __init__(self, window: int, ratio: float, consecutive: int, keys: int = 10) -> None:
        self._window = window
        self._ratio = ratio
        self._consecutive = consecutive
        self._keys = keys
        self._enough = max(1, round(window * (1 - ratio)))  # accepted ones
        self._sound: set[str] = set()
        self._evidence: dict[str, _Evidence] = {}
        self._learned: dict[str, _Evidence] = {}
        self._tallies: dict[Hashable, _Past] = {}
        self._next: dict[Hashable, _Past] = {}
        self._warned: set[str] = set()

    @classmethod
    def of(cls, settings: Settings) -> Self:
        return cls(
            settings.breaker_window,
            settings.breaker_ratio,
            settings.breaker_consecutive,
            settings.breaker_keys,
        )

    def check(
        self,
        records: Sequence[Record],
        rejected: Sequence[int],
        refused: Sequence[int] = (),
        runs: Sequence[PartitionRun] = (),
    ) -> None:
        """Checks a batch before it is committed; the same one again if its commit is retried. `rejected`
        and `refused` are indexes, ascending: of records that break their contract, and of others that
        cannot be kept. `runs` are those of the records, if the caller knows them.

        Raises:
            CircuitOpen: this batch would be too much; it must not be committed.
        """
        self._next, self._learned = self._tallies.copy(), {}
        runs = runs or runs_of(records)
        unknown = not self._sound.issuperset(run.topic for run in runs)
        if rejected or refused or self._tallies or unknown:
            for topic, part in _by_topic(records, runs, rejected, refused).items():
                self._check_refused(topic, part)
                self._check_rejected(topic, part)

    def kept(self) -> None:
        # Most batches hold nothing to count.
        self._tallies = {topic: past for topic, past in self._next.items() if past.refused}
        self._warned = {topic for topic in self._warned if (topic, "rejected") in self._tallies}
        self._evidence |= self._learned
        for topic, evidence in self._learned.items():
            if evidence.accepted >= self._enough:
                self._sound.add(topic)
                del self._evidence[topic]
        self._learned = {}

    def _check_refused(self, topic: str, part: "_Part") -> None:
        records = len(part.records) - len(part.rejected)
        excess = self._counted((topic, "refused"), records, part.refused)
        if excess:
            raise CircuitOpen(f"{excess} were refused, of {topic}")

    def _check_rejected(self, topic: str, part: "_Part") -> None:
        excess = self._counted((topic, "rejected"), len(part.records), part.rejected)
        unaccepted = 0
        if topic not in self._sound:
            evidence = self._evidence.get(topic, _Evidence()).plus(part)
            self._learned[topic] = evidence
            unaccepted = len(evidence.rejected_keys - evidence.accepted_keys)
        if not excess:
            return
        if unaccepted >= self._keys:
            raise CircuitOpen(f"{excess} were rejected, of {topic}")
        if topic not in self._warned:
            self._warned.add(topic)
            log.error(
                "broken producer",
                topic=topic,
                why=f"{excess} were rejected; this release accepts those of others",
                advice="each is a dead letter: see `streamflow dlq list`",
            )

    def _counted(self, what: Hashable, records: int, indexes: Sequence[int]) -> str:
        """Counts a batch; returns what is too much, if anything."""
        past = self._tallies.get(what, _Past())
        run, longest = _runs(past.run, records, indexes)
        recent = deque([(records, len(indexes))])
        seen = records
        for size, count in reversed(past.batches):
            if seen >= self._window:
                break
            recent.appendleft((size, count))
            seen += size
        self._next[what] = new = _Past(run, recent)
        if longest >= self._consecutive:
            return f"{counted(longest, 'record')} in a row"
        if seen >= self._window and new.refused >= self._ratio * seen:
            return f"{new.refused} of the last {counted(seen, 'record')}"
        return ""


@dataclass(frozen=True, slots=True)
class _Past:
    run: int = 0  # refused records at the end
    batches: deque[tuple[int, int]] = field(default_factory=deque)  # records, and refused ones

    @property
    def refused(self) -> int:
        return sum(count for _, count in self.batches)


class _Part(NamedTuple):
    """The records of a topic in a batch."""

    records: Sequence[Record]
    rejected: Sequence[int]  # indexes of those that break the contract
    refused: Sequence[int]  # indexes, among the others, of those that cannot be kept


@dataclass(frozen=True, slots=True)
class _Evidence:
    """What a release has made of a topic since its process started."""

    accepted: int = 0
    accepted_keys: frozenset[bytes | None] = frozenset()  # no key is a key like others
    rejected_keys: frozenset[bytes | None] = frozenset()

    def plus(self, part: _Part) -> "_Evidence":
        rejected = set(part.rejected)
        accepted = [record for at, record in enumerate(part.records) if at not in rejected]
        accepted_keys = self.accepted_keys.union(map(_KEY, accepted))
        rejected_keys = self.rejected_keys
        if len(rejected_keys) < _MOST_KEYS:
            rejected_keys = rejected_keys.union(part.records[at].key() for at in part.rejected)
        return _Evidence(self.accepted + len(accepted), accepted_keys, rejected_keys)


def _by_topic(
    records: Sequence[Record],
    runs: Sequence[PartitionRun],
    rejected: Sequence[int],
    refused: Sequence[int],
) -> dict[str, _Part]:
    parts: dict[str, tuple[list[Record], list[int], list[int]]] = {}
    for topic, _, start, end in runs:
        held, no_events, not_kept = parts.setdefault(topic, ([], [], []))
        shift = len(held) - start
        held += records[start:end]
        contract = _within(rejected, start, end)
        no_events += [index + shift for index in contract]
        for index in sorted({*_within(refused, start, end)}.difference(contract)):
            place = index + shift
            not_kept.append(place - bisect_left(no_events, place))
    return {topic: _Part(*part) for topic, part in parts.items()}


def _within(indexes: Sequence[int], start: int, end: int) -> Sequence[int]:
    return indexes[bisect_left(indexes, start) : bisect_left(indexes, end)]


def _runs(run: int, records: int, rejected: Sequence[int]) -> tuple[int, int]:
    """Length of the run of refusals at the end, and of the longest one."""
    longest = run
    expected = 0
    for index in rejected:
        run = run + 1 if index == expected else 1
        longest = max(longest, run)
        expected = index + 1
    return (run if expected == records else 0), longest
