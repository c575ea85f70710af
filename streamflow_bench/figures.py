"""What is measured and required: paths and their bars. Pure."""

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

# What can be required of; results have them by these names.
FIGURE: Final = "figure"
RATIO: Final = "ratio"
RATE_OF_HAND: Final = "rate_of_hand"
CPU_OF_HAND: Final = "cpu_of_hand"


class PathName(StrEnum):
    """The paths that can be measured, in that order."""

    PRODUCE = "produce"
    LOADER = "loader"
    ANALYTICS = "analytics"
    VALIDATOR = "validator"
    LATENCY = "latency"
    SOCKET = "socket"
    SOCKET_LOSS = "socket-loss"


class Limit(NamedTuple):
    """What one figure must not fall below or exceed."""

    of: str  # the figure's name
    text: str  # the figure in words, with a place for its value
    sign: str
    value: float

    def is_met(self, measured: float) -> bool:
        compare = operator.ge if self.sign == "≥" else operator.le
        return bool(compare(measured, self.value))


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """What is required of a path. Rates of a machine differ from hour to hour, so most is required in
    relation to what was measured in the same run: the raw limit and the hand loop."""

    at_most: float | None = None  # of the figure, in its unit
    least_ratio: float | None = None  # of figure and raw limit
    least_rate: float | None = None  # rates of the worker and of the hand loop
    most_cpu: float | None = None  # processor time of the worker and of the hand loop

    def limits(self, unit: str) -> list[Limit]:
        limits = (
            (FIGURE, f"{{:,.0f}} {unit}", "≤", self.at_most),
            (RATIO, "{:.2f} x raw limit", "≥", self.least_ratio),
            (RATE_OF_HAND, "rate {:.2f} x hand loop", "≥", self.least_rate),
            (CPU_OF_HAND, "CPU {:.2f} x hand loop", "≤", self.most_cpu),
        )
        return [
            Limit(of, text, sign, value) for of, text, sign, value in limits if value is not None
        ]

    def is_met(self, measured: Mapping[str, float | None]) -> bool | None:
        """Whether the bar is met; None if a value that it requires is not known."""
        limits = self.limits("")
        if self.missed(measured, ""):
            return False
        return True if limits and all(measured.get(one.of) is not None for one in limits) else None

    def missed(self, measured: Mapping[str, float | None], unit: str) -> list[str]:
        """The limits that are not kept, in words; what is not known misses none."""
        return [
            f"{limit.text.format(value)}, bar {limit.sign} {limit.value:g}"
            for limit in self.limits(unit)
            if (value := measured.get(limit.of)) is not None and not limit.is_met(value)
        ]

    def text(self, unit: str) -> str:
        return ", ".join(
            limit.text.replace("{:,.0f}", f"{limit.sign} {limit.value:,.0f}").replace(
                "{:.2f}", f"{limit.sign} {limit.value:g}"
            )
            for limit in self.limits(unit)
        )


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
            bar=Bar(most_cpu=1.6),
        ),
        MeasuredPath(
            name=PathName.LOADER,
            text="user-events → PostgreSQL (loader)",
            raw="bare COPY of the same rows",
            bar=Bar(most_cpu=0.6, least_rate=1.5, least_ratio=0.8),
        ),
        MeasuredPath(
            name=PathName.ANALYTICS,
            text="user-events → windows (analytics)",
            raw="bare consume of the same topic",
            bar=Bar(most_cpu=0.6),
        ),
        MeasuredPath(
            name=PathName.VALIDATOR,
            text="user-events → notifications (validator)",
            raw="bare transactional produce of as many notifications",
            bar=Bar(most_cpu=0.6),
        ),
        MeasuredPath(
            name=PathName.LATENCY,
            text="event → row visible in PostgreSQL, p99",
            raw="bare produce → consume, p99",
            bar=Bar(at_most=100),
            unit="ms",
        ),
        MeasuredPath(
            name=PathName.SOCKET,
            text="event → Socket.IO client, p99",
            raw="bare produce → consume, p99",
            bar=Bar(at_most=50),
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
MEMORY_BAR: Final = Bar(at_most=250)
# Those of workers and the producer, which have a hand loop to be compared with.
OF_WORK: Final = (PathName.PRODUCE, PathName.LOADER, PathName.ANALYTICS, PathName.VALIDATOR)
