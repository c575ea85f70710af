"""A real worker as a process: its durable progress over time, and its memory."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from typing import Final

from streamflow.errors import StreamFlowError, Unavailable
from streamflow.flow import Partition
from streamflow.kafka import clients
from streamflow.kafka.offsets import (
    GroupOffsets,
    high_watermarks,
    partitions_of,
    read_position,
)
from streamflow.postgres.connections import session
from streamflow.settings import Settings
from streamflow_bench.results import Course, MemorySamples
from streamflow_bench.sandbox import Sandbox
from streamflow_bench.usage import ProcessTree, Used
from streamflow_stack.process import Child, Launch, own_command

_EVERY: Final = 0.02  # seconds between two readings
_MEMORY_EVERY: Final = 0.1  # seconds
_PATIENCE: Final = 120.0  # seconds without progress
# Seconds. A transaction's result is visible only once its markers are written: a process may have done
# all its work, and ended, before that.
_SETTLING: Final = 5.0
# A process that has read all goes on working until it has, for so many seconds, written nothing and used less
# than this share of a core.
_IDLE_SECONDS: Final = 5.0
_WORKING: Final = 0.2
_LOOK_EVERY: Final = 0.25  # seconds
_STOP_SECONDS: Final = 11.0

# By the primary key, whichever of its partitions a row is in.
_LAST_ROW: Final = """
SELECT origin_offset FROM events WHERE origin_partition = %s AND origin_topic = %s
 ORDER BY origin_partition DESC, origin_offset DESC LIMIT 1
"""

# How many records are durably done.
Progress = Callable[[], int]


def running(
    sandbox: Sandbox, settings: Settings, *arguments: str, name: str | None = None
) -> AbstractContextManager[Child]:
    """A command of ours as a process, exactly as a user runs it. `name` as of `process`; by default the
    first words of the command."""
    name = name or "-".join(word for word in arguments[:2] if not word.startswith("-"))
    return process(sandbox, settings, name, own_command(*arguments))


@contextmanager
def process(
    sandbox: Sandbox,
    settings: Settings,
    name: str,
    command: tuple[str, ...],
    environment: Mapping[str, str] | None = None,
) -> Iterator[Child]:
    """A program with these settings, stopped at the end. `name` is that of its log and pid file, unique
    among those that run; `environment` has further variables."""
    log = sandbox.directory / f"{name}.log"
    variables = {**sandbox.environment(settings), **(environment or {})}
    launch = Launch(command=command, log=log, environment=variables)
    child = Child(name, launch, sandbox.directory / f"{name}.pid.json")
    try:
        yield child
    finally:
        child.stop(_STOP_SECONDS)


def watch(
    child: Child, progress: Progress, total: int, output: Callable[[], int] | None = None
) -> Course:
    """Follows a process until `total` records are done. Raises as `looks`.

    Args:
        child: the process.
        progress: how many records it has done.
        total: how many there are.
        output: how much it has written. If given, what was read may not be done yet: the run ends when the
            process has become idle.
    """
    tree = ProcessTree(child.pid)
    first: tuple[float, int, Used] | None = None
    used = tree.used()
    samples: list[tuple[float, int]] = []
    sampled = now = time.monotonic()
    done = 0
    for now, done in looks([child], progress, total):
        # Nothing can be told of a process that has ended.
        used = max(used, tree.used())
        if first is None and done:
            first = now, done, used
        if first is not None and (now - sampled > _MEMORY_EVERY or not samples):
            sampled = now
            if size := tree.resident():
                samples.append((now - first[0], size))
    began, before, used_before = first or (now, done, used)
    if output is not None:
        # What it had read by the first look was still to be done.
        before = 0
        now, used = _until_idle(tree, used, output)
        samples.append((now - began, tree.resident()))
    return Course(
        done - before,
        now - began,
        used.user - used_before.user,
        used.system - used_before.system,
        MemorySamples(samples),
    )


def _until_idle(tree: ProcessTree, used: Used, output: Callable[[], int]) -> tuple[float, Used]:
    """When a process that has used so much became idle, and what it had used then."""
    end, written = time.monotonic(), output()
    while (now := time.monotonic()) - end < _IDLE_SECONDS:
        uses, wrote = max(used, tree.used()), output()
        if wrote != written or sum(uses) - sum(used) > _WORKING * (now - end):
            end, used, written = now, uses, wrote
        time.sleep(_LOOK_EVERY)
    return end, used


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


@contextmanager
def table_progress(settings: Settings, partitions: list[Partition]) -> Iterator[Progress]:
    """How far the rows of ``events`` go, by the largest offset of each partition."""
    with session(settings, "bench") as connection:

        def done() -> int:
            total = 0
            for topic, partition in partitions:
                row = connection.execute(_LAST_ROW, [partition, topic]).fetchone()
                total += 0 if row is None else int(row[0]) + 1
            return total

        yield done


@contextmanager
def topic_progress(settings: Settings, topic: str) -> Iterator[Progress]:
    """How many records a topic holds, markers of transactions included."""
    client = clients.admin(settings)
    partitions = partitions_of(client, [topic])
    yield lambda: sum(high_watermarks(client, partitions).values())
