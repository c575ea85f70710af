"""Measured values, each with its time, its source and why it is missing.

A `Reading` is the last sample of one source; a `Figure` is one value out of it. Pure.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

T = TypeVar("T")

STALE_INTERVALS: Final = 3


@dataclass(frozen=True, slots=True)
class Figure:
    """One value on a screen.

    Attributes:
        value: as last measured; None where it never was.
        measured_at: seconds since the epoch; None where it never was.
        source: what it was measured by, in words.
        interval: seconds between two measurements.
        error: why the last attempt failed; None where it did not.
    """

    value: float | None
    measured_at: float | None
    source: str
    interval: float
    error: str | None = None

    def age(self, now: float) -> float | None:
        """Seconds since it was measured."""
        return None if self.measured_at is None else max(0.0, now - self.measured_at)

    def is_current(self, now: float) -> bool:
        """Whether it may be shown as the present: measured within three intervals, and the last
        attempt did not fail."""
        age = self.age(now)
        return (
            self.value is not None
            and self.error is None
            and age is not None
            and age <= STALE_INTERVALS * self.interval
        )


@dataclass(frozen=True)
class Reading(Generic[T]):
    """The last sample of a source.

    Attributes:
        source: what measures, in words.
        interval: seconds between two measurements.
        sample: the last one that succeeded.
        measured_at: when that was, in seconds since the epoch.
        error: why the last attempt failed; None where it did not.
        seconds: what the last attempt took.
    """

    source: str
    interval: float
    sample: T | None = None
    measured_at: float | None = None
    error: str | None = None
    seconds: float = 0.0

    def figure(self, pick: Callable[[T], float | None]) -> Figure:
        """One value of the sample."""
        value = None if self.sample is None else pick(self.sample)
        return Figure(value, self.measured_at, self.source, self.interval, self.error)

    def is_current(self, now: float) -> bool:
        """Whether the sample is from the last three intervals and no attempt failed since."""
        return (
            self.error is None
            and self.measured_at is not None
            and now - self.measured_at <= STALE_INTERVALS * self.interval
        )

    def current(self, now: float) -> T | None:
        """The sample, if it is current."""
        return self.sample if self.is_current(now) else None

    def succeeded(self, sample: T, at: float, seconds: float) -> "Reading[T]":
        """The reading after an attempt that brought a sample."""
        return Reading(self.source, self.interval, sample, at, None, seconds)

    def failed(self, error: str, seconds: float) -> "Reading[T]":
        """The reading after an attempt that brought none: the last sample keeps its age."""
        return Reading(self.source, self.interval, self.sample, self.measured_at, error, seconds)

    def trouble(self, now: float) -> str | None:
        """Why this is not the present, in words; None where it is."""
        if self.is_current(now):
            return None
        if self.error is not None:
            return self.error
        if self.measured_at is None:
            return "not measured yet"
        return f"no answer for {now - self.measured_at:.0f} s"
