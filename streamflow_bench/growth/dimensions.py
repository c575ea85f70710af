"""What grows, in which steps, and how what was measured is judged. Pure."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from streamflow_bench.figures import PathName
from streamflow_bench.results import Detail, Spread, named, quotient, rounded, spread

EVENTS: Final = 100_000  # of a run, unless the user says otherwise
# How often the cost of the smallest step the largest may have.
BAR: Final = 1.5

_MOST_BYTES: Final = 300_000_000  # of the events of one run
_WORKERS: Final = (PathName.LOADER, PathName.ANALYTICS, PathName.VALIDATOR)


class Dimension(StrEnum):
    """What grows."""

    PARTITIONS = "partitions"
    ROWS = "rows"
    USERS = "users"
    SIZE = "size"
    WORKERS = "workers"
    CATCH_UP = "catch-up"

    @property
    def unit(self) -> str:
        """Of its steps, in words."""
        return {
            Dimension.ROWS: "rows in the table",
            Dimension.SIZE: "bytes an event",
            Dimension.CATCH_UP: "events behind",
        }.get(self, self.value)

    @property
    def parts(self) -> tuple[PathName, ...]:
        """The workers whose cost could depend on it."""
        return (PathName.LOADER,) if self is Dimension.ROWS else _WORKERS

    def steps(self, events: int) -> tuple[int, ...]:
        """Where runs have so many events; with fewer of them the large steps are smaller, too."""
        return {
            Dimension.PARTITIONS: (3, 12, 48),
            Dimension.ROWS: (0, min(10 * events, 1_000_000), min(100 * events, 10_000_000)),
            Dimension.USERS: (10, 1_000, 100_000),
            Dimension.SIZE: (200, 1_000, 10_000),
            Dimension.WORKERS: (1, 2, 3),
            # Both are more than a worker reads ahead, so that memory can be compared.
            Dimension.CATCH_UP: (min(5 * events, 500_000), min(50 * events, 5_000_000)),
        }[self]

    def events(self, step: int, events: int) -> int:
        """How many events a run at this step has."""
        if self is Dimension.CATCH_UP:
            return step
        return min(events, _MOST_BYTES // step) if self is Dimension.SIZE else events


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One run of one part at one step."""

    cost: float | None  # µs of the processor for an event
    rate: float  # events a second
    peak_mb: float | None
    seconds: float
    load_before: float  # load average of the minute before
    detail: Detail = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return {
            "cpu_us_per_event": rounded(self.cost),
            "events_per_s": rounded(self.rate),
            "peak_mb": rounded(self.peak_mb, 1),
            "seconds": rounded(self.seconds),
            "load_before": rounded(self.load_before, 2),
            **{name: rounded(value) for name, value in self.detail.items()},
        }


@dataclass(frozen=True, slots=True)
class Growth:
    """All runs of one part along one dimension."""

    dimension: Dimension
    part: PathName
    runs: dict[int, list[Point]]  # by step, the smallest first

    def cost(self, step: int) -> Spread | None:
        return spread([point.cost for point in self.runs[step]])

    def rate(self, step: int) -> Spread | None:
        return spread([point.rate for point in self.runs[step]])

    def peak_mb(self, step: int) -> Spread | None:
        return spread([point.peak_mb for point in self.runs[step]])

    def detail(self, step: int, name: str) -> Spread | None:
        return spread([point.detail.get(name) for point in self.runs[step]])

    @property
    def ends(self) -> tuple[int, int]:
        return min(self.runs), max(self.runs)

    @property
    def growth(self) -> float | None:
        """Cost of an event at the largest step, as a multiple of that at the smallest; of a byte, where
        events grow. None if there is one step only."""
        first, last = self.ends
        of_event = self._multiple(self.cost(first), self.cost(last))
        return quotient(of_event, last / first if self.dimension is Dimension.SIZE else 1.0)

    @property
    def memory_growth(self) -> float | None:
        """Likewise of peak memory, which is required of what catches up only."""
        first, last = self.ends
        if self.dimension is not Dimension.CATCH_UP:
            return None
        return self._multiple(self.peak_mb(first), self.peak_mb(last))

    def _multiple(self, first: Spread | None, last: Spread | None) -> float | None:
        if len(self.runs) == 1:
            return None
        return quotient(last and last.median, first and first.median)

    @property
    def met(self) -> bool | None:
        """None if what is required is not known."""
        if self.missed:
            return False
        required = [self.growth]
        if self.dimension is Dimension.CATCH_UP:
            required.append(self.memory_growth)
        return None if None in required else True

    @property
    def missed(self) -> list[str]:
        """What grows too much, in words."""
        first, last = self.ends
        of = "a byte" if self.dimension is Dimension.SIZE else "an event"
        figures = ((f"CPU for {of}", self.growth), ("peak memory", self.memory_growth))
        return [
            f"{self.dimension}, {self.part}: {name} at {last:,} {self.dimension.unit} is {value:.2f} x "
            f"that at {first:,}, bar ≤ {BAR:g}"
            for name, value in figures
            if value is not None and value > BAR
        ]

    def as_dict(self) -> dict[str, Any]:
        return {
            "dimension": self.dimension.value,
            "unit": self.dimension.unit,
            "part": self.part.value,
            "steps": [
                {
                    "step": step,
                    "cpu_us_per_event": named(self.cost(step)),
                    "events_per_s": named(self.rate(step)),
                    "peak_mb": named(self.peak_mb(step)),
                    "seconds": named(spread([point.seconds for point in points])),
                    "status_p50_ms": named(self.detail(step, "status_p50_ms")),
                    "status_p99_ms": named(self.detail(step, "status_p99_ms")),
                    "runs": [point.as_dict() for point in points],
                }
                for step, points in self.runs.items()
            ],
            "growth": rounded(self.growth),
            "memory_growth": rounded(self.memory_growth),
            "bar": BAR,
            "met": self.met,
        }
