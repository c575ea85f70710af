"""Random events of the shop: out of order, late by seconds to days, and some that break the contract, most of
which a repair mends."""

import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import orjson

COUNTRIES = ("DE", "FR", "PL", "Ä\t\\N", "", None)
CITIES = ("Köln", "Łódź", "", None)
CUSTOMERS = 45
ADDRESSES = 3_000
DEVICES = 12
DISORDER = timedelta(seconds=9)  # more than the grace
LATE = (timedelta(seconds=40), timedelta(minutes=7), timedelta(hours=5), timedelta(days=3))
WRONG_CLOCK = timedelta(days=1)


@dataclass
class Sent:
    """One event, as it is valid, and the bytes that are sent.

    Attributes:
        stream: its name.
        valid: the document; None of what is never an event.
        broken: whether only a repair makes it one.
    """

    stream: str
    key: str
    valid: dict[str, Any] | None
    value: bytes
    broken: bool = False

    @property
    def number(self) -> int:
        assert self.valid is not None
        return int(self.valid["id"])


@dataclass
class Shop:
    """Events of some minutes until `end`, a full hour, so that windows of an hour are over; the same for one
    seed."""

    seed: int
    end: datetime
    span: timedelta = timedelta(minutes=20)
    _rng: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._rng = random.Random(self.seed)

    def events(self, number: int) -> list[Sent]:
        """So many, about half of each stream, in the order of their sending."""
        made = []
        for each in range(number):
            at = self._time(each / number)
            make = self._order if self._rng.random() < 0.5 else self._reading
            made.append(make(each, at))
        return made

    def _time(self, progress: float) -> datetime:
        rng = self._rng
        at = self.end - self.span * (1 - progress) - DISORDER * rng.random()
        chance = rng.random()
        if chance < 0.06:
            at -= rng.choice(LATE) * rng.random()
        elif chance < 0.065:
            at += WRONG_CLOCK
        return at

    def _order(self, number: int, at: datetime) -> Sent:
        rng = self._rng
        customer = f"customer {rng.randrange(CUSTOMERS)}"
        order = {
            "id": number,
            "kind": rng.choice(["placed", "placed", "cancelled"]),
            "created_at": at.isoformat(timespec="microseconds").replace("+00:00", "Z"),
            "country": rng.choice(COUNTRIES),
            "address": {"city": rng.choice(CITIES)},
            "customer": customer,
            "email": sha256(b"%d" % rng.randrange(ADDRESSES)).hexdigest(),
            "total": f"{rng.randrange(-500, 10 ** rng.randrange(3, 10)) / 100:.2f}",
            "weight": rng.choice([0.1, 1e15, rng.random(), -rng.random() * 1e-9]),
            "quantity": rng.choice([None, 1, 3]),
        }
        return self._sent("orders", customer, order, {"total": f"{order['total']} EUR"})

    def _reading(self, number: int, at: datetime) -> Sent:
        rng = self._rng
        device = f"device {rng.randrange(DEVICES)}"
        milliseconds = int(at.timestamp() * 1000)
        reading = {
            "id": number,
            "device": device,
            "at": milliseconds,
            "temperature": None if rng.random() < 0.05 else rng.gauss(20, 15),
        }
        return self._sent("readings", device, reading, {"at": str(milliseconds)})

    def _sent(self, stream: str, key: str, valid: dict[str, Any], wrong: dict[str, Any]) -> Sent:
        chance = self._rng.random()
        if chance < 0.01:
            return Sent(stream, key, None, b'{"id": %d,' % valid["id"])
        if chance < 0.04:
            return Sent(stream, key, valid, orjson.dumps(valid | wrong), broken=True)
        return Sent(stream, key, valid, orjson.dumps(valid))


def last_hour() -> datetime:
    """The last full hour."""
    return datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
