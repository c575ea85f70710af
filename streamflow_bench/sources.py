"""The events that all paths are measured with, as files: written once, read by every run."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple

from streamflow.privacy import Hasher
from streamflow.streams.user_events.simulation import Simulation

RATE: Final = 5_000  # events a second of event time, ending now

_SEED: Final = 1
_SEPARATOR: Final = b"\t"  # JSON holds none


class Keyed(NamedTuple):
    """A record as it goes into ``user-events``."""

    key: bytes
    value: bytes


class Sources:
    """`count` events in two files: with addresses in clear text, as a user has them, and hashed by
    `hasher`, as they are in the topic."""

    def __init__(self, directory: Path, count: int, hasher: Hasher) -> None:
        self.count = count
        self.lines = directory / "events.ndjson"
        self._records = directory / "records.tsv"
        self._ends = datetime.now(UTC)
        with self.lines.open("wb") as lines:
            lines.writelines(value + b"\n" for _, value in self._simulated(_ClearText()))
        with self._records.open("wb") as records:
            records.writelines(
                key + _SEPARATOR + value + b"\n" for key, value in self._simulated(hasher)
            )

    def _simulated(self, hasher: Hasher) -> Iterator[Keyed]:
        moments = iter(range(self.count))
        began = self._ends - timedelta(seconds=self.count / RATE)
        step = timedelta(seconds=1 / RATE)
        events = iter(Simulation(hasher, seed=_SEED, clock=lambda: began + next(moments) * step))
        for _ in range(self.count):
            record = next(events)
            yield Keyed(record.key or b"", record.value)

    def records(self) -> Iterator[Keyed]:
        """The events as records, their addresses hashed."""
        with self._records.open("rb") as file:
            for line in file:
                key, _, value = line.partition(_SEPARATOR)
                yield Keyed(key, value[:-1])

    def numbered(self) -> Iterator[Keyed]:
        """The same without end, with ``id`` 1, 2, 3 ... by which a receiver identifies them."""
        number = 0
        while True:
            for key, value in self.records():
                number += 1
                yield Keyed(key, b'{"id":%d%b' % (number, value[value.index(b",") :]))


class _ClearText(Hasher):
    """Leaves the addresses as they are: hashing them is part of what is measured."""

    def hash(self, address: str) -> str:
        return address
