"""What generates the values of one part of a contract, as JSON has them."""

import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from streamflow.contract import format_time
from streamflow.errors import ConfigurationError

Schema = Mapping[str, Any]  # a core schema of pydantic
_FEW: Final = 20
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class NoSample(ConfigurationError):
    """No sample of a contract can be made. Where it is raised first, the message is only the reason."""


def _microseconds(moment: datetime) -> int:
    since = moment - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


# How a contract may write the event time; the first that it reads as that time is used.
TIME_FORMS: Final[tuple[Callable[[datetime], Any], ...]] = (
    format_time,
    lambda moment: _microseconds(moment) // 1_000_000,
    lambda moment: _microseconds(moment) // 1_000,
    _microseconds,
    lambda moment: _microseconds(moment) * 1_000,
    lambda moment: _microseconds(moment) / 1_000_000,
)


@dataclass(slots=True)
class Draw:
    """The state of making one sample."""

    chance: random.Random
    now: datetime
    number: int = 1  # of the sample, counted from 1
    time_form: Callable[[datetime], Any] = TIME_FORMS[0]
    depth: int = 0  # models within models that refer to themselves
    most_depth: int = 2
    shift: int = 0  # of the numbers that repeat
    single: bool = False  # lists of one item, so that depth does not multiply them

    def few(self) -> int:
        """One of a few numbers, the first ones most often: values that repeat look alive."""
        return min(int(self.chance.paretovariate(0.8)) + self.shift, _FEW)


class SampleEdge(NamedTuple):
    """A value at a boundary of its type, and the names of the fields that lead to it."""

    value: Any
    path: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SampleNode:
    """Generates values of one part of a contract; not all need to be valid.

    Attributes:
        plain: an ordinary value.
        edges: boundary values, each once.
        choices: whether the contract lists the values one by one.
    """

    plain: Callable[[Draw], Any]
    edges: Callable[[Draw], Iterable[SampleEdge]]
    choices: bool = field(default=False)


def leaf(plain: Callable[[Draw], Any], *edges: Any, choices: bool = False) -> SampleNode:
    found = [SampleEdge(value) for value in edges]
    return SampleNode(plain, lambda _draw: iter(found), choices)


def edges_of(nodes: Iterable[SampleNode], draw: Draw) -> Iterator[SampleEdge]:
    for node in nodes:
        yield from node.edges(draw)
