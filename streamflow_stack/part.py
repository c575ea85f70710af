"""A part of the stack, as data: how to prepare it, start it and ask how it is."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Protocol

from streamflow_stack.process import Launch

LOOPBACK: Final = "127.0.0.1"
PROBE_SECONDS: Final = 2


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
        hung: it says itself that it hangs, and where.
    """

    answered: bool
    ready: bool
    detail: str = ""
    hung: bool = False


READY = Health(answered=True, ready=True)


@dataclass(frozen=True)
class Patience:
    """How long a part may be unwell, in seconds, before it is killed and started again.

    Attributes:
        hung: since it first said that it hangs. A worker ends itself two seconds after that.
        silent: since it last answered at all, or was started. Longer than a process is stopped for
            a look at it (SIGSTOP, a debugger), and than a start takes on a busy machine.
    """

    hung: float = 10.0
    silent: float = 90.0


class StackReport(Protocol):
    """Is notified while the stack starts and runs."""

    def say(self, text: str) -> None: ...

    def progress(self, what: str, done: int, total: int) -> None:
        """`done` of `total` bytes of `what` are downloaded."""


def prepare_nothing(_report: StackReport) -> None:
    pass


@dataclass(frozen=True)
class Part:
    """One process of the stack.

    Attributes:
        launch: how to start it; None if it is not ours to run (``KAFKA_BOOTSTRAP_SERVERS``).
        probe: how it is; answers within a few seconds, from any thread, and never raises.
        ports: what it listens on.
        address: where to find it, for people.
        prepare: what it needs before the start (downloads, formatting); may take long.
        after: a part of the same stage that must be up before this one is first started, and that is
            stopped after it.
        stop_seconds: time to finish in order, before it is killed.
        patience: how long it may be unwell; None leaves it alone however it is.
    """

    name: str
    stage: Stage
    launch: Callable[[], Launch] | None
    probe: Callable[[], Health]
    ports: tuple[int, ...] = ()
    address: str = ""
    prepare: Callable[[StackReport], None] = prepare_nothing
    after: str | None = None
    stop_seconds: float = 10.0
    patience: Patience | None = None
