"""The last sample of a source, with its age and why there is no newer one. Pure."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

T = TypeVar("T")

STALE_INTERVALS: Final = 3


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

    def figure(self, pick: Callable[[T], float | None]) -> "Reading[float]":
        """One value of the sample, with its age and error."""
        value = None if self.sample is None else pick(self.sample)
        return Reading(self.source, self.interval, value, self.measured_at, self.error)

    @property
    def is_pending(self) -> bool:
        """Whether no attempt has ended yet."""
        return self.measured_at is None and self.error is None

    def age(self, now: float) -> float | None:
        """Seconds since it was measured."""
        return None if self.measured_at is None else max(0.0, now - self.measured_at)

    def is_current(self, now: float) -> bool:
        """Whether the sample is from the last three intervals and no attempt has failed since."""
        age = self.age(now)
        return self.error is None and age is not None and age <= STALE_INTERVALS * self.interval

    def current(self, now: float) -> T | None:
        """The sample, if it is current."""
        return self.sample if self.is_current(now) else None

    def succeeded(self, sample: T, at: float, seconds: float) -> "Reading[T]":
        return Reading(self.source, self.interval, sample, at, None, seconds)

    def failed(self, error: str, seconds: float) -> "Reading[T]":
        """The reading after a failed attempt: the last sample keeps its age."""
        return Reading(self.source, self.interval, self.sample, self.measured_at, error, seconds)

    def trouble(self, now: float) -> str | None:
        """Why the sample is not current, in words; None where it is."""
        if self.is_current(now):
            return None
        if self.error is not None:
            return self.error
        age = self.age(now)
        return "not measured yet" if age is None else f"no answer for {age:.0f} s"
