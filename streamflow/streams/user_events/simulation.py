"""Simulated users, and the mistakes of a careless producer. Pure and repeatable."""

import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Final

import orjson

from streamflow.contract import format_time
from streamflow.errors import ErrorCode
from streamflow.privacy import Hasher
from streamflow.stream import Simulated

_TYPES: Final = ("USER_LOGIN", "USER_LOGIN_FAILED", "USER_LOGOUT", "USER_SIGNUP")
_TYPE_WEIGHTS: Final = (55, 15, 25, 5)
_NAMES: Final = (
    "ada", "alan", "barbara", "claude", "dennis", "edsger", "frances", "grace", "hedy", "john",
    "katherine", "ken", "leslie", "margaret", "niklaus", "radia", "rosalind", "tim",
)  # fmt: skip
_USERS: Final = 5_000
# Share of each kind of mistake, in percent.
_MISTAKES: Final = {
    ErrorCode.SCHEMA_VIOLATION: 35,
    ErrorCode.CLEAR_TEXT_PII: 20,
    ErrorCode.UNKNOWN_TYPE: 15,
    ErrorCode.INVALID_JSON: 12,
    ErrorCode.EMPTY_VALUE: 8,
    ErrorCode.INVALID_UTF8: 5,
    ErrorCode.UNSTORABLE_VALUE: 5,
}


class Simulation:
    """An endless source of events.

    Args:
        seed: the same seed gives the same users, types and mistakes; times come from `clock`.
        invalid_ratio: share of records that break the contract.
        clock: returns the time of the next event.
    """

    def __init__(
        self,
        hasher: Hasher,
        *,
        seed: int | None = None,
        invalid_ratio: float = 0.0,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._chance = random.Random(seed)  # noqa: S311 (a simulation needs a seed, no secret)
        self._hasher = hasher
        self._invalid_ratio = invalid_ratio
        self._clock = clock
        self._number = 0

    def __iter__(self) -> Iterator[Simulated]:
        while True:
            yield self._next()

    def _next(self) -> Simulated:
        self._number += 1
        chance = self._chance
        # A few users are responsible for most events.
        number = min(int(chance.paretovariate(0.8)), _USERS)
        user = f"{_NAMES[number % len(_NAMES)]}{number}"
        address = f"{user}@example.com"
        body: dict[str, object] = {
            "id": self._number,
            "type": chance.choices(_TYPES, _TYPE_WEIGHTS)[0],
            "user": user,
            "user_email": self._hasher.hash(address),
            "timestamp": format_time(self._clock()),
        }
        key = user.encode()
        if chance.random() >= self._invalid_ratio:
            return Simulated(key, orjson.dumps(body), None)
        code = chance.choices(list(_MISTAKES), list(_MISTAKES.values()))[0]
        return Simulated(key, _spoil(body, code, address, chance), code)


def _spoil(body: dict[str, object], code: ErrorCode, address: str, chance: random.Random) -> bytes:
    """The record of a producer that makes just this one mistake."""
    if code is ErrorCode.EMPTY_VALUE:
        return b""
    if code is ErrorCode.INVALID_JSON:
        return orjson.dumps(body)[:-2]
    if code is ErrorCode.INVALID_UTF8:
        return orjson.dumps(body).replace(b'"user":"', b'"user":"\xff', 1)
    if code is ErrorCode.CLEAR_TEXT_PII:
        return orjson.dumps(body | {"user_email": address})
    if code is ErrorCode.UNKNOWN_TYPE:
        return orjson.dumps(body | {"type": "USER_TELEPORTED"})
    if code is ErrorCode.UNSTORABLE_VALUE:
        return orjson.dumps(body | {"user": f"{body['user']}\0"})
    wrong: list[dict[str, object]] = [
        {"id": str(body["id"])},
        {"id": -1},
        {"user": ""},
        {"timestamp": str(body["timestamp"])[:-1]},
        {"session": 7},
    ]
    return orjson.dumps(body | chance.choice(wrong))
