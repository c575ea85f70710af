"""The events that all paths are measured with, as files: written once, read by every run."""

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple

import orjson

from streamflow.contract import format_time
from streamflow.privacy import Hasher

RATE: Final = 5_000  # events a second of event time, ending now
USERS: Final = 1_000
# Every fifth user has no address.
WITHOUT_ADDRESS: Final = 5
# One event in so many breaks the contract. The last ones of all partitions do not: a table that holds their
# rows holds all.
INVALID_EVERY: Final = 1_000
LAST_VALID: Final = 100

_SEED: Final = 1
_TYPES: Final = {
    "USER_LOGIN": 55,
    "USER_LOGIN_FAILED": 15,
    "USER_LOGOUT": 25,
    "USER_SIGNUP": 5,
}
_WORDS: Final = "she sells sea shells by the sea shore; "
_UNKNOWN: Final = "USER_TELEPORTED"
_SEPARATOR: Final = b"\t"  # JSON holds none


class Keyed(NamedTuple):
    """A record as it goes into ``user-events``."""

    key: bytes
    value: bytes


class Sources:
    """`count` events in two files: with addresses in clear text, as a user has them, and hashed by
    `hasher`, as they are in the topic. Those in the topic have a few that break the contract.

    Args:
        directory: of the files.
        count: how many events.
        hasher: of the addresses.
        users: how many users they are of.
        size: bytes of each record in the topic, at least; a field ``note`` fills it up.
    """

    def __init__(
        self,
        directory: Path,
        count: int,
        hasher: Hasher,
        *,
        users: int = USERS,
        size: int | None = None,
    ) -> None:
        self.count = count
        self._users = users
        self.lines = directory / "events.ndjson"
        self._records = directory / "records.tsv"
        ends = datetime.now(UTC)
        self.began = ends - timedelta(seconds=count / RATE)  # event time of the first event
        hashes = {user: hasher.hash(_address(user)) for user in map(_name, range(users))}
        with self.lines.open("wb") as lines, self._records.open("wb") as records:
            for event in self._events():
                user = str(event["user"])
                has_address = "user_email" in event
                hashed = event | ({"user_email": hashes[user]} if has_address else {})
                if size is not None:
                    event["note"] = hashed["note"] = _note(hashed, size)
                lines.write(orjson.dumps(event) + b"\n")
                if self._is_invalid(int(str(event["id"]))):
                    hashed["type"] = _UNKNOWN
                records.write(user.encode() + _SEPARATOR + orjson.dumps(hashed) + b"\n")

    def _events(self) -> Iterator[dict[str, object]]:
        chance = random.Random(_SEED)  # noqa: S311 (repeatable, not secret)
        kinds, weights = list(_TYPES), list(_TYPES.values())
        step = timedelta(seconds=1 / RATE)
        for number in range(1, self.count + 1):
            index = chance.randrange(self._users)
            user = _name(index)
            address = {"user_email": _address(user)} if index % WITHOUT_ADDRESS else {}
            yield {
                "id": number,
                "type": chance.choices(kinds, weights)[0],
                "user": user,
                **address,
                "timestamp": format_time(self.began + number * step),
            }

    @property
    def valid(self) -> int:
        """How many of the records do not break the contract."""
        return sum(not self._is_invalid(number) for number in range(1, self.count + 1))

    def _is_invalid(self, number: int) -> bool:
        return number % INVALID_EVERY == INVALID_EVERY // 2 and number <= self.count - LAST_VALID

    def records(self) -> Iterator[Keyed]:
        """The events as records, their addresses hashed, invalid ones among them."""
        with self._records.open("rb") as file:
            for line in file:
                key, _, value = line.partition(_SEPARATOR)
                yield Keyed(key, value[:-1])

    def numbered(self) -> Iterator[Keyed]:
        """The valid ones without end, with ``id`` 1, 2, 3 ... by which a receiver identifies them."""
        number = 0
        unknown = _UNKNOWN.encode()
        while True:
            for key, value in self.records():
                if unknown not in value:
                    number += 1
                    yield Keyed(key, b'{"id":%d%b' % (number, value[value.index(b",") :]))


def _note(event: dict[str, object], size: int) -> str:
    """What fills an event up to so many bytes."""
    missing = max(0, size - len(orjson.dumps(event | {"note": ""})))
    return (_WORDS * (missing // len(_WORDS) + 1))[:missing]


def _name(index: int) -> str:
    return f"user{index}"


def _address(user: str) -> str:
    return f"{user}@example.com"
