"""What is measured and required: paths, bars, runs. Pure."""

import operator
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, NamedTuple

MEGABYTE: Final = 1_000_000

# Further figures; their names end with the unit.
Detail = dict[str, float | int | None]


class PathName(StrEnum):
    """The paths that can be measured, in that order."""

    PRODUCE = "produce"
    LOADER = "loader"
    ANALYTICS = "analytics"
    VALIDATOR = "validator"
    LATENCY = "latency"
    SOCKET = "socket"
    SOCKET_LOSS = "socket-loss"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """What is required of a path on two cores: limits of the figure, and the least share of the raw limit."""

    at_least: float | None = None
    at_most: float | None = None
    least_ratio: float | None = None

    def is_met(self, figure: float | None, ratio: float | None) -> bool | None:
        """Whether the bar is met; None if a value that it requires is not known."""
        verdicts = [
            None if value is None else compare(value, limit)
            for value, limit, compare in (
                (figure, self.at_least, operator.ge),
                (figure, self.at_most, operator.le),
                (ratio, self.least_ratio, operator.ge),
            )
            if limit is not None
        ]
        if False in verdicts:
            return False
        return None if None in verdicts or not verdicts else True

    def text(self, unit: str) -> str:
        parts = []
        if self.at_least is not None:
            parts.append(f"≥ {self.at_least:,.0f} {unit}")
        if self.at_most is not None:
            parts.append(f"≤ {self.at_most:,.0f} {unit}")
        if self.least_ratio is not None:
            parts.append(f"ratio ≥ {self.least_ratio:g}")
        return ", ".join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredPath:
    """A path from one place of the pipeline to another."""

    name: PathName
    text: str
    raw: str  # the raw limit, in words
    bar: Bar
    unit: str = "events/s"  # of figure and raw limit
    also: str | None = None  # name of the detail that is shown with the figure


PATHS: Final = {
    path.name: path
    for path in (
        MeasuredPath(
            name=PathName.PRODUCE,
            text="produce with hashing (a file, in transactions)",
            raw="bare produce of the same records",
            bar=Bar(at_least=150_000),
        ),
        MeasuredPath(
            name=PathName.LOADER,
            text="user-events → PostgreSQL (loader)",
            raw="bare COPY of the same rows",
            bar=Bar(at_least=150_000, least_ratio=0.5),
        ),
        MeasuredPath(
            name=PathName.ANALYTICS,
            text="user-events → windows (analytics)",
            raw="bare consume of the same topic",
            bar=Bar(at_least=200_000),
        ),
        MeasuredPath(
            name=PathName.VALIDATOR,
            text="user-events → notifications (validator)",
            raw="bare transactional produce of as many notifications",
            bar=Bar(at_least=100_000),
        ),
        MeasuredPath(
            name=PathName.LATENCY,
            text="event → row visible in PostgreSQL, p99",
            raw="bare produce → consume, p99",
            bar=Bar(at_most=500),
            unit="ms",
        ),
        MeasuredPath(
            name=PathName.SOCKET,
            text="event → Socket.IO client, p99",
            raw="bare produce → consume, p99",
            bar=Bar(at_most=250),
            unit="ms",
        ),
        MeasuredPath(
            name=PathName.SOCKET_LOSS,
            text="12,000 events/s to one Socket.IO client: lost",
            raw="bare produce → consume: lost",
            unit="events",
            bar=Bar(at_most=0),
            also="client_p99_ms",
        ),
    )
}
MEMORY_BAR: Final = Bar(at_most=300)


class MemorySamples(NamedTuple):
    """Resident memory of a worker, from its first durable progress to the end of its run."""

    samples: list[tuple[float, int]]  # seconds since the first progress, and bytes

    def as_dict(self) -> dict[str, Any]:
        """In megabytes."""
        sizes = [size / MEGABYTE for _, size in self.samples]
        return {
            "first_mb": round(sizes[0], 1) if sizes else None,
            "peak_mb": round(max(sizes), 1) if sizes else None,
            "last_mb": round(sizes[-1], 1) if sizes else None,
            "samples": [[round(at, 2), round(size / MEGABYTE, 1)] for at, size in self.samples],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One measurement of a path; figure and raw limit are in the path's unit, None if unknown."""

    figure: float | None
    raw: float | None
    load_before: float  # load average of the minute before
    memory: MemorySamples | None = None
    detail: Detail = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        return self.figure / self.raw if self.figure is not None and self.raw else None

    def as_dict(self) -> dict[str, Any]:
        return {
            "figure": _rounded(self.figure),
            "raw": _rounded(self.raw),
            "ratio": _rounded(self.ratio),
            "load_before": self.load_before,
            "memory": None if self.memory is None else self.memory.as_dict(),
            **{name: _rounded(value) for name, value in self.detail.items()},
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
    def peak_mb(self) -> Spread | None:
        return spread([run.memory.as_dict()["peak_mb"] for run in self.runs if run.memory])

    @property
    def met(self) -> bool | None:
        figure, ratio = self.figure, self.ratio
        return self.path.bar.is_met(figure and figure.median, ratio and ratio.median)

    @property
    def memory_met(self) -> bool | None:
        peak = self.peak_mb
        return MEMORY_BAR.is_met(peak and peak.most, None)

    def as_dict(self) -> dict[str, Any]:
        path = self.path
        return {
            "name": path.name.value,
            "path": path.text,
            "raw_limit": path.raw,
            "unit": path.unit,
            "bar": path.bar.text(path.unit),
            "met": self.met,
            "figure": _named(self.figure),
            "raw": _named(self.raw),
            "ratio": _named(self.ratio),
            "memory_peak_mb": _named(self.peak_mb),
            "memory_bar": MEMORY_BAR.text("MB"),
            "memory_met": self.memory_met,
            "runs": [run.as_dict() for run in self.runs],
        }


def _named(values: Spread | None) -> dict[str, float | None] | None:
    if values is None:
        return None
    return dict(zip(("median", "min", "max"), map(_rounded, values), strict=True))


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
