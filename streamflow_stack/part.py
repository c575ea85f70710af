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
    answered: bool  # at all; False right after a start
    ready: bool
    detail: str = ""  # why it is not ready
    hung: bool = False  # it says itself that it hangs; `detail` says where


READY = Health(answered=True, ready=True)


@dataclass(frozen=True)
class Patience:
    """How long a part may be unwell, in seconds, before it is killed and restarted."""

    hung: float = 10.0  # since it first said that it hangs; a worker ends itself after two seconds
    # Since it last answered at all, or was started. Longer than a process is stopped for inspection
    # (SIGSTOP, a debugger), and than a start takes on a busy machine.
    silent: float = 90.0


class StackReport(Protocol):
    def say(self, text: str) -> None: ...

    def progress(self, what: str, done: int, total: int) -> None:
        """`done` of `total` bytes of `what` are downloaded."""


def prepare_nothing(_report: StackReport) -> None:
    pass


@dataclass(frozen=True)
class Part:
    name: str
    stage: Stage
    launch: Callable[[], Launch] | None  # None if it is not ours to run (KAFKA_BOOTSTRAP_SERVERS)
    probe: Callable[[], Health]  # answers within a few seconds, from any thread, and never raises
    ports: tuple[int, ...] = ()
    address: str = ""  # for display
    prepare: Callable[[StackReport], None] = prepare_nothing  # before the start; may take long
    # A part of the same stage that must be up before this one is first started, and is stopped after it.
    after: str | None = None
    stop_seconds: float = 10.0  # to stop in order, before it is killed
    patience: Patience | None = None  # None: it is never killed for being unwell
