"""A real worker as a process: its durable progress over time, and its memory."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
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

_EVERY: Final = 0.02  # seconds between two readings
_MEMORY_EVERY: Final = 0.1  # seconds
_PATIENCE: Final = 120.0  # seconds without progress
# Seconds. A transaction's result is visible only once its markers are written: a process may have done
# all its work, and ended, before that.
_SETTLING: Final = 5.0
_STOP_SECONDS: Final = 11.0

# How many records are durably done.
Progress = Callable[[], int]


class Course(NamedTuple):
    """A worker's run, from the first progress seen to the end."""

    records: int  # those of the first step are not included
    seconds: float
    user: float  # seconds of processor time in the program and its libraries
    system: float  # and in the kernel for it
    memory: MemorySamples

    @property
    def rate(self) -> float | None:
        """Records a second; None if all were done in one step."""
        return self.records / self.seconds if self.records and self.seconds else None


def running(
    sandbox: Sandbox, settings: Settings, *arguments: str, name: str | None = None
) -> AbstractContextManager[Child]:
    """A command of ours as a process, exactly as a user runs it. `name` as of `process`; by default the
    first words of the command."""
    name = name or "-".join(word for word in arguments[:2] if not word.startswith("-"))
    return process(sandbox, settings, name, own_command(*arguments))


@contextmanager
def process(
    sandbox: Sandbox, settings: Settings, name: str, command: tuple[str, ...]
) -> Iterator[Child]:
    """A program with these settings, stopped at the end. `name` is that of its log and pid file, unique
    among those that run."""
    log = sandbox.directory / f"{name}.log"
    launch = Launch(command=command, log=log, environment=sandbox.environment(settings))
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
                if size:  # 0 for a zombie
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
    """Yields the time and the number of records done until `total` are done. Raises StreamFlowError if a
    process has ended before that, Unavailable if they make no progress."""
    moved = time.monotonic()
    ended_at = None
    done = last = 0
    while True:
        ended = next((child for child in children if child.poll() is not None), None)
        # A coordinator that is being created or moved is unavailable for a moment.
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
    """How far a consumer group has read, by its committed offsets."""
    with closing(GroupOffsets(settings, group)) as reader:
        yield lambda: sum(map(read_position, reader.read(partitions).values()))


@contextmanager
def loader_progress(settings: Settings, topic: str) -> Iterator[Progress]:
    """How many records of a topic are done, by the loader's positions in the database."""
    with session(settings, "bench") as connection:

        def done() -> int:
            row = connection.execute(
                "SELECT coalesce(sum(records), 0) FROM loader_positions WHERE topic = %s", [topic]
            ).fetchone()
            return 0 if row is None else int(row[0])

        yield done
