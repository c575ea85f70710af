"""A real worker as a process: its durable progress over time, and its memory."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from typing import Final, NamedTuple

import psutil

from streamflow.errors import StreamFlowError, Unavailable
from streamflow.flow import Partition
from streamflow.kafka.offsets import GroupOffsets, read_position
from streamflow.postgres.connections import session
from streamflow.settings import Settings
from streamflow_bench.figures import MemorySamples
from streamflow_bench.sandbox import Sandbox
from streamflow_stack.process import Child, Launch, own_command

_EVERY: Final = 0.02  # seconds between two looks
_MEMORY_EVERY: Final = 0.1  # seconds
_PATIENCE: Final = 120.0  # seconds without progress
# What a transaction has committed is seen only when its markers are written: a process may have done
# all its work, and ended, before that can be told.
_SETTLING: Final = 5.0  # seconds
_STOP_SECONDS: Final = 11.0

# How many records are durably done.
Progress = Callable[[], int]


class Course(NamedTuple):
    """How a worker got on, from the first progress seen to the end.

    Attributes:
        records: done in that time; the ones of the first step are not among them.
        seconds: of that time.
        user: seconds of processor time in it, spent in the program and its libraries.
        system: likewise, spent in the kernel for it.
        memory: during it.
    """

    records: int
    seconds: float
    user: float
    system: float
    memory: MemorySamples

    @property
    def rate(self) -> float | None:
        """Records a second; None where all was done in one step, so that nothing can be told."""
        return self.records / self.seconds if self.records and self.seconds else None


@contextmanager
def running(
    sandbox: Sandbox, settings: Settings, *arguments: str, name: str | None = None
) -> Iterator[Child]:
    """A command of ours as a process, exactly as a user runs it; ended at the end.

    Args:
        name: as of `process`; by default the first words of the command.
    """
    name = name or "-".join(each for each in arguments[:2] if not each.startswith("-"))
    with process(sandbox, settings, name, own_command(*arguments)) as child:
        yield child


@contextmanager
def process(
    sandbox: Sandbox, settings: Settings, name: str, command: tuple[str, ...]
) -> Iterator[Child]:
    """Any program under these settings; ended at the end.

    Args:
        name: of its log and pid file, so no two at a time have the same.
    """
    launch = Launch(
        command=command,
        log=sandbox.directory / f"{name}.log",
        environment=sandbox.environment(settings),
    )
    child = Child(name, launch, sandbox.directory / f"{name}.pid.json")
    try:
        yield child
    finally:
        child.stop(_STOP_SECONDS)


def watch(child: Child, progress: Progress, total: int) -> Course:
    """Follows a process until `total` records are done. Raises as `looks`."""
    measured = psutil.Process(child.pid)
    first: tuple[float, int] | None = None
    used_before = used = measured.cpu_times()
    samples: list[tuple[float, int]] = []
    sampled = now = time.monotonic()
    done = 0
    for now, done in looks([child], progress, total):
        with suppress(psutil.NoSuchProcess):
            used = measured.cpu_times()
        if first is None and done:
            first, used_before = (now, done), used
        if first is not None and (now - sampled > _MEMORY_EVERY or not samples):
            sampled = now
            with suppress(psutil.NoSuchProcess):
                size = measured.memory_info().rss
                if size:  # one that has ended holds none, until its end was waited for
                    samples.append((now - first[0], size))
    began, before = first or (now, done)
    return Course(
        done - before,
        now - began,
        used.user - used_before.user,
        used.system - used_before.system,
        MemorySamples(samples),
    )


def looks(children: Sequence[Child], progress: Progress, total: int) -> Iterator[tuple[float, int]]:
    """Looks again and again until `total` records are done: when, and how many are.

    Raises:
        StreamFlowError: a process has ended before; says how.
        Unavailable: they make no progress.
    """
    moved = time.monotonic()
    ended_at = None
    done = last = 0
    while True:
        ended = next((child for child in children if child.poll() is not None), None)
        # A coordinator that is being made or moved says no for a moment.
        with suppress(Unavailable):
            done = progress()
        now = time.monotonic()
        if done != last:
            last, moved = done, now
        yield now, done
        if done >= total:
            return
        if ended is not None:
            ended_at = ended_at or now
            if now - ended_at > _SETTLING:
                raise StreamFlowError(f"{ended.name} {ended.last_words()}")
        if now - moved > _PATIENCE:
            raise Unavailable(
                f"{children[0].name} made no progress for {_PATIENCE:g} s, at {done:,} of {total:,}"
            )
        time.sleep(_EVERY)


@contextmanager
def group_progress(
    settings: Settings, group: str, partitions: list[Partition]
) -> Iterator[Progress]:
    """How far a consumer group has read, by what it has committed."""
    with closing(GroupOffsets(settings, group)) as reader:
        yield lambda: sum(map(read_position, reader.read(partitions).values()))


@contextmanager
def loader_progress(settings: Settings, topic: str) -> Iterator[Progress]:
    """How many records of a topic the loader has done, by its positions in the database."""
    with session(settings, "bench") as connection:

        def done() -> int:
            row = connection.execute(
                "SELECT coalesce(sum(records), 0) FROM loader_positions WHERE topic = %s", [topic]
            ).fetchone()
            return 0 if row is None else int(row[0])

        yield done
