"""What was measured: runs of a path, and what they come to. Pure."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from streamflow_bench.figures import (
    CPU_OF_HAND,
    FIGURE,
    MEMORY_BAR,
    RATE_OF_HAND,
    RATIO,
    MeasuredPath,
)

MEGABYTE: Final = 1_000_000
MILLION: Final = 1_000_000

# Further figures; their names end with the unit.
Detail = dict[str, float | int | None]


class MemorySamples(NamedTuple):
    """Resident memory of a process and its children, from the first durable progress to the end."""

    samples: list[tuple[float, int]]  # seconds since the first progress, and bytes

    @property
    def peak_mb(self) -> float | None:
        return max((size for _, size in self.samples), default=0) / MEGABYTE or None

    def as_dict(self) -> dict[str, Any]:
        """In megabytes."""
        sizes = [size / MEGABYTE for _, size in self.samples]
        return {
            "first_mb": round(sizes[0], 1) if sizes else None,
            "peak_mb": rounded(self.peak_mb, 1),
            "last_mb": round(sizes[-1], 1) if sizes else None,
            "samples": [[round(at, 2), round(size / MEGABYTE, 1)] for at, size in self.samples],
        }


class Course(NamedTuple):
    """A process's run, from the first progress seen to the end."""

    records: int  # those of the first step are not included
    seconds: float
    user: float  # seconds of processor time in the program and its libraries, its children's too
    system: float  # and in the kernel for it
    memory: MemorySamples

    @property
    def rate(self) -> float | None:
        """Records a second; None if all were done in one step."""
        return self.records / self.seconds if self.records and self.seconds else None

    @property
    def cpu(self) -> float | None:
        """Seconds of processor time for a million records; None if all were done in one step."""
        return (self.user + self.system) * MILLION / self.records if self.records else None

    @property
    def cores(self) -> float | None:
        """How many cores it kept busy; None if all records were done in one step."""
        return (self.user + self.system) / self.seconds if self.records and self.seconds else None

    def as_dict(self) -> dict[str, Any]:
        return {
            "events_timed": self.records,
            "seconds": round(self.seconds, 3),
            "user_cpu_seconds": round(self.user, 3),
            "system_cpu_seconds": round(self.system, 3),
            "events_per_s": rounded(self.rate),
            "cpu_s_per_million": rounded(self.cpu),
            "memory": self.memory.as_dict(),
        }


class Rows(NamedTuple):
    """The rows of a table: equal for tables that hold the same events from the same places."""

    number: int
    digest: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One measurement of a path; figure and raw limit are in the path's unit, None if unknown."""

    figure: float | None
    raw: float | None
    load_before: float  # load average of the minute before
    course: Course | None = None  # of the worker, on paths of work
    hand: Course | None = None  # of the hand loop
    rows: Rows | None = None  # in the table, on the path of the loader
    hand_rows: Rows | None = None
    detail: Detail = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        return quotient(self.figure, self.raw)

    @property
    def cpu(self) -> float | None:
        return self.course and self.course.cpu

    @property
    def rate_of_hand(self) -> float | None:
        return quotient(self.course and self.course.rate, self.hand and self.hand.rate)

    @property
    def cpu_of_hand(self) -> float | None:
        return quotient(self.cpu, self.hand and self.hand.cpu)

    def as_dict(self) -> dict[str, Any]:
        return {
            **({} if self.course is None else self.course.as_dict()),
            "figure": rounded(self.figure),
            "raw": rounded(self.raw),
            "ratio": rounded(self.ratio),
            "load_before": self.load_before,
            "hand_loop": None if self.hand is None else self.hand.as_dict(),
            "rate_of_hand_loop": rounded(self.rate_of_hand),
            "cpu_of_hand_loop": rounded(self.cpu_of_hand),
            **{name: rounded(value) for name, value in self.detail.items()},
        }


class Spread(NamedTuple):
    median: float
    least: float
    most: float


def spread(values: Sequence[float | None]) -> Spread | None:
    """Of the values that are known; None if none is."""
    known = [value for value in values if value is not None]
    return Spread(statistics.median(known), min(known), max(known)) if known else None


@dataclass(frozen=True, slots=True)
class Result:
    """All runs of one path."""

    path: MeasuredPath
    runs: list[Run]

    @property
    def figure(self) -> Spread | None:
        return spread([run.figure for run in self.runs])

    @property
    def raw(self) -> Spread | None:
        return spread([run.raw for run in self.runs])

    @property
    def ratio(self) -> Spread | None:
        return spread([run.ratio for run in self.runs])

    @property
    def also(self) -> Spread | None:
        name = self.path.also
        return None if name is None else spread([run.detail.get(name) for run in self.runs])

    @property
    def cpu(self) -> Spread | None:
        """Seconds of processor time for a million events."""
        return spread([run.cpu for run in self.runs])

    @property
    def rate_of_hand(self) -> Spread | None:
        return spread([run.rate_of_hand for run in self.runs])

    @property
    def cpu_of_hand(self) -> Spread | None:
        return spread([run.cpu_of_hand for run in self.runs])

    @property
    def peak_mb(self) -> Spread | None:
        return spread([run.course.memory.peak_mb for run in self.runs if run.course])

    @property
    def met(self) -> bool | None:
        return self.path.bar.is_met(self._medians())

    @property
    def memory_met(self) -> bool | None:
        return MEMORY_BAR.is_met(self._peak())

    @property
    def missed(self) -> list[str]:
        """The limits that are not kept, in words."""
        name = self.path.name.value
        return [
            *(f"{name}: {each}" for each in self.path.bar.missed(self._medians(), self.path.unit)),
            *(f"memory of {name}: {each}" for each in MEMORY_BAR.missed(self._peak(), "MB")),
        ]

    def _medians(self) -> dict[str, float | None]:
        spreads = {
            FIGURE: self.figure,
            RATIO: self.ratio,
            RATE_OF_HAND: self.rate_of_hand,
            CPU_OF_HAND: self.cpu_of_hand,
        }
        return {name: each and each.median for name, each in spreads.items()}

    def _peak(self) -> dict[str, float | None]:
        peak = self.peak_mb
        return {FIGURE: peak and peak.most}

    def as_dict(self) -> dict[str, Any]:
        path = self.path
        return {
            "name": path.name.value,
            "path": path.text,
            "raw_limit": path.raw,
            "unit": path.unit,
            "bar": path.bar.text(path.unit),
            "met": self.met,
            "figure": named(self.figure),
            "raw": named(self.raw),
            "ratio": named(self.ratio),
            "cpu_s_per_million": named(self.cpu),
            "rate_of_hand_loop": named(self.rate_of_hand),
            "cpu_of_hand_loop": named(self.cpu_of_hand),
            "memory_peak_mb": named(self.peak_mb),
            "memory_bar": MEMORY_BAR.text("MB"),
            "memory_met": self.memory_met,
            "runs": [run.as_dict() for run in self.runs],
        }


def named(values: Spread | None) -> dict[str, float | None] | None:
    if values is None:
        return None
    return dict(zip(("median", "min", "max"), map(rounded, values), strict=True))


def quotient(value: float | None, of: float | None) -> float | None:
    return value / of if value is not None and of else None


def rounded(value: float | None, digits: int = 3) -> float | None:
    return None if value is None else round(value, digits)
