"""Lag over time: from samples to seconds, trends and verdicts. Pure.

One `LagHistory` lives in the dashboard's poller, others in the cursors of Dagster's sensors.
"""

import json
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Self

from streamflow.flow import Partition
from streamflow.lag.measure import ConsumerGroup, LagSample
from streamflow.lag.verdicts import (
    EndHistory,
    LagTime,
    LagVerdict,
    PartitionSample,
    judge_group,
    judge_partition,
    trend,
)

WINDOW: Final = 30.0  # seconds that a verdict looks back
SHORTEST: Final = 10.0  # seconds that a window must cover before it may find fault
_MOST_SAMPLES: Final = 60  # in a window: of samples closer together, the last one stays


class WorkerHealth(StrEnum):
    UP = "up"
    GONE = "gone"
    STALLED = "stalled"


@dataclass(frozen=True, slots=True)
class PartitionLag:
    """How far a group is behind in one partition; `time` is None where it is unknown."""

    position: int
    end: int
    offsets: int
    time: LagTime | None
    owned: bool
    verdict: LagVerdict


@dataclass(frozen=True, slots=True)
class GroupLag:
    """How far a group is behind.

    Attributes:
        offsets: over all partitions, transaction markers included; None where it never committed.
        trend: offsets a second by which its lag grows; None where too little is known.
    """

    group: ConsumerGroup
    partitions: Mapping[Partition, PartitionLag]
    offsets: int | None
    verdict: LagVerdict
    trend: float | None

    @property
    def time(self) -> LagTime | None:
        """In seconds, of the partition that is furthest behind."""
        known = [lag.time for lag in self.partitions.values() if lag.time is not None]
        return max(known, key=lambda time: time.seconds) if known else None

    @property
    def health(self) -> WorkerHealth:
        if self.group.members == 0:
            return WorkerHealth.GONE
        if self.verdict in (LagVerdict.STALL, LagVerdict.STOP, LagVerdict.ERR):
            return WorkerHealth.STALLED
        return WorkerHealth.UP


class LagHistory:
    """The samples of a sliding window, and what they say of each group."""

    def __init__(self, window: float = WINDOW) -> None:
        self._window = window
        self._ends: dict[Partition, EndHistory] = {}
        self._samples: dict[tuple[str, Partition], deque[PartitionSample]] = {}

    def add(self, sample: LagSample, now: float) -> dict[str, GroupLag]:
        """Adds a sample; returns the lag of each group, by its name."""
        for partition, (_, end) in sample.bounds.items():
            self._ends.setdefault(partition, EndHistory()).add(now, end)
        lags = {name: self._judge(group, sample, now) for name, group in sample.groups.items()}
        # Partitions and groups that are no longer measured.
        self._samples = {
            place: window
            for place, window in self._samples.items()
            if now - window[-1].time <= self._window
        }
        return lags

    def _judge(self, group: ConsumerGroup, sample: LagSample, now: float) -> GroupLag:
        lags = sample.lags(group.name)
        partitions = {}
        over_time = Counter[float]()
        for partition, position in sorted(group.positions.items()):
            end = sample.bounds[partition][1]
            owned = partition in group.owned
            window = self._samples.setdefault((group.name, partition), deque())
            if len(window) > 1 and now - window[-2].time < self._window / _MOST_SAMPLES:
                window.pop()
            window.append(PartitionSample(now, position, end, owned))
            while now - window[0].time > self._window:
                window.popleft()
            partitions[partition] = PartitionLag(
                position,
                end,
                lags[partition],
                self._ends[partition].lag(position, now),
                owned,
                judge_partition(list(window), shortest=SHORTEST),
            )
            for past in window:
                over_time[past.time] += past.lag
        return GroupLag(
            group,
            partitions,
            sample.lag(group.name),
            judge_group(lag.verdict for lag in partitions.values()),
            trend(sorted(over_time.items()), shortest=SHORTEST),
        )

    def dump(self) -> str:
        return json.dumps(
            [
                [group, topic, partition, list(samples)]
                for (group, (topic, partition)), samples in self._samples.items()
            ]
        )

    @classmethod
    def load(cls, text: str, window: float = WINDOW) -> Self:
        """The inverse of `dump`; ValueError or TypeError if the text is something else."""
        history = cls(window)
        ends: dict[Partition, set[tuple[float, int]]] = {}
        for group, topic, partition, samples in json.loads(text):
            window_of = deque(PartitionSample(*sample) for sample in samples)
            history._samples[group, (topic, partition)] = window_of
            ends.setdefault((topic, partition), set()).update(
                (sample.time, sample.end) for sample in window_of
            )
        for place, points in ends.items():
            history._ends[place] = EndHistory()
            for time, end in sorted(points):
                history._ends[place].add(time, end)
        return history
