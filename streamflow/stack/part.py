"""A part of the stack, as data: how to prepare it, start it and ask how it is."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from streamflow.stack.process import Launch


class Stage(IntEnum):
    """When a part starts. Between the two, topics and schema are put in place."""

    SERVICES = 1
    WORKERS = 3


@dataclass(frozen=True)
class Health:
    """What a part answered.

    Attributes:
        answered: it answered at all; False right after a start.
        ready: it does its work.
        detail: why not.
    """

    answered: bool
    ready: bool
    detail: str = ""


READY = Health(answered=True, ready=True)


class Report(Protocol):
    """Takes what happens while the stack starts and runs, for whoever watches."""

    def say(self, text: str) -> None:
        """Something worth a line happened."""

    def progress(self, what: str, done: int, total: int) -> None:
        """So many bytes of `what` are here."""


def prepare_nothing(_report: Report) -> None:
    """For parts that need nothing before they start."""


@dataclass(frozen=True)
class Part:
    """One process of the stack.

    Attributes:
        launch: how to start it; None when somebody else runs it (``KAFKA_BOOTSTRAP_SERVERS``).
        probe: how it is; answers within a few seconds, from any thread, and never raises.
        ports: what it listens on.
        address: where to find it, for people.
        prepare: what it needs before the start (downloads, formatting); may take long.
        stop_seconds: time to finish in order, before it is killed.
    """

    name: str
    stage: Stage
    launch: Callable[[], Launch] | None
    probe: Callable[[], Health]
    ports: tuple[int, ...] = ()
    address: str = ""
    prepare: Callable[[Report], None] = prepare_nothing
    stop_seconds: float = 10.0
