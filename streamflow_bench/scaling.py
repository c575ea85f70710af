"""How fast several workers of a kind are together, and which processes use the processors meanwhile.

All events are in the topic beforehand, in a transaction that is still open, so that no worker sees them.
It is committed once every worker has its partitions. So all begin at the same moment, and the time
includes neither starting nor joining nor producing.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import Producer

from streamflow.errors import Unavailable
from streamflow.flow import Partition
from streamflow.kafka import clients, offsets
from streamflow.kafka.offsets import assignments
from streamflow.registry import load_streams
from streamflow.settings import Settings
from streamflow.units import counted
from streamflow_bench import delivery
from streamflow_bench.figures import PathName
from streamflow_bench.limits import send_all
from streamflow_bench.results import MILLION, MemorySamples, Spread, rounded, spread
from streamflow_bench.sandbox import STREAM, Sandbox
from streamflow_bench.sources import Sources
from streamflow_bench.usage import CLIENTS, WORKERS, Meter, ProcessTree
from streamflow_bench.watching import (
    Progress,
    group_progress,
    loader_progress,
    looks,
    running,
)
from streamflow_stack.process import Child

# The paths that several of something can share, and what that is.
SCALABLE: Final = {
    PathName.LOADER: "workers",
    PathName.ANALYTICS: "workers",
    PathName.VALIDATOR: "workers",
    PathName.SOCKET: "clients of one bridge",
}

_JOIN_SECONDS: Final = 120.0
_SETTLED: Final = 1.0  # seconds that an assignment must stay the same
_TICK: Final = 0.1  # seconds
_TRANSACTION_SECONDS: Final = 900  # no broker allows more, unless told to
_TIMEOUT: Final = 60.0  # seconds

Action = Callable[[Settings], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaledRun:
    """One measurement of several workers, or of several clients of one bridge."""

    rate: float  # events a second, of all together; of a bridge, those that each client received
    busy: int  # workers that had a partition with events
    lost: int  # events that a client did not receive
    cores: Mapping[str, float]  # that each part kept busy
    load_before: float  # load average of the minute before
    seconds: float
    cpu_us: float | None = None  # of the workers' processor time, for an event
    peak_mb: float | None = (
        None  # resident memory of all workers together; of clients it is not measured
    )

    def as_dict(self) -> dict[str, Any]:
        return {
            "events_per_s": round(self.rate, 1),
            "busy": self.busy,
            "lost": self.lost,
            "cores": {part: round(value, 3) for part, value in self.cores.items()},
            "load_before": self.load_before,
            "seconds": round(self.seconds, 3),
            "cpu_us_per_event": rounded(self.cpu_us),
            "peak_mb": rounded(self.peak_mb, 1),
        }


@dataclass(frozen=True, slots=True)
class Scaled:
    """All runs of one path with one number of workers."""

    path: PathName
    workers: int
    runs: list[ScaledRun]

    @property
    def rate(self) -> Spread | None:
        return spread([run.rate for run in self.runs])

    @property
    def cores(self) -> dict[str, float]:
        """Median over the runs, by part."""
        parts = self.runs[0].cores if self.runs else {}
        spreads = {part: spread([run.cores.get(part) for run in self.runs]) for part in parts}
        return {part: cores.median for part, cores in spreads.items() if cores is not None}

    def as_dict(self) -> dict[str, Any]:
        return {
            "name": self.path.value,
            "of": SCALABLE[self.path],
            "workers": self.workers,
            "runs": [run.as_dict() for run in self.runs],
        }


def _nothing(_settings: Settings) -> None:
    pass


class Scaling:
    def __init__(self, sandbox: Sandbox, sources: Sources) -> None:
        self._sandbox = sandbox
        self._sources = sources
        self._runs = 0

    def measure(
        self,
        path: PathName,
        workers: int,
        *,
        stream: str = STREAM,
        before: Action = _nothing,
        after: Action = _nothing,
    ) -> ScaledRun:
        """Raises Unavailable if the workers do not join, or make no progress.

        Args:
            path: what the workers do.
            workers: how many there are.
            stream: as of `Sandbox.topics`.
            before: is called with the workers' settings before the topic is filled.
            after: likewise once they have ended.
        """
        self._runs += 1
        with self._sandbox.topics(f"scaling-{self._runs}", stream) as settings:
            stored = self._sandbox.with_schema(settings) if path is PathName.LOADER else settings
            before(stored)
            load = os.getloadavg()[0]
            topic = load_streams(settings)[0].topic
            release = self._prepare(settings, topic)
            if path is PathName.SOCKET:
                return self._deliver(settings, workers, release, load)
            with ExitStack() as stack:
                children = [
                    stack.enter_context(
                        running(self._sandbox, stored, "worker", path, name=f"{path}-{number}")
                    )
                    for number in range(1, workers + 1)
                ]
                busy = _joined(stored, path, workers)
                done = stack.enter_context(_progress(stored, path, topic))
                run = self._timed(stored, children, done, busy, release, load)
            after(stored)
            return run

    def _prepare(self, settings: Settings, topic: str) -> Callable[[], None]:
        """Fills a topic in an open transaction; returns a function that commits it."""
        client = clients.producer(
            settings,
            **{
                "transactional.id": f"{settings.prefix}prepare",
                "transaction.timeout.ms": _TRANSACTION_SECONDS * 1000,
            },
        )
        with clients.kafka_errors():
            client.init_transactions(_TIMEOUT)
            client.begin_transaction()
        send_all(client, topic, self._sources.records())
        return lambda: _commit(client)

    def _timed(
        self,
        settings: Settings,
        children: Sequence[Child],
        done: Progress,
        busy: int,
        release: Callable[[], None],
        load: float,
    ) -> ScaledRun:
        total = self._sources.count
        trees = [ProcessTree(child.pid) for child in children]
        samples: list[tuple[float, int]] = []
        meter = Meter(settings, {WORKERS: [child.pid for child in children]})
        began = ended = time.monotonic()
        release()
        for now, _ in looks(children, done, total):
            ended = now
            if not samples or now - began - samples[-1][0] > _TICK:
                samples.append((now - began, sum(tree.resident() for tree in trees)))
        seconds = ended - began
        metered = time.monotonic() - began
        cores = meter.used(metered)
        return ScaledRun(
            rate=total / seconds,
            busy=busy,
            lost=0,
            cores=cores,
            load_before=load,
            seconds=seconds,
            cpu_us=cores[WORKERS] * metered / total * MILLION,
            peak_mb=MemorySamples(samples).peak_mb,
        )

    def _deliver(
        self, settings: Settings, count: int, release: Callable[[], None], load: float
    ) -> ScaledRun:
        total = self._sources.count
        with delivery.bridged(self._sandbox, settings, count) as (bridge, listeners):
            pids = {WORKERS: [bridge.pid], CLIENTS: [listener.child.pid for listener in listeners]}
            meter = Meter(settings, pids)
            began = time.monotonic()
            release()
            delivery.wait_for(listeners, total)
            cores = meter.used(time.monotonic() - began)
            end = max(listener.notes[-1].at for listener in listeners)
            return ScaledRun(
                rate=min(listener.events for listener in listeners) / (end - began),
                busy=count,
                lost=sum(total - listener.events for listener in listeners),
                cores=cores,
                load_before=load,
                seconds=end - began,
            )


def _progress(settings: Settings, path: PathName, topic: str) -> AbstractContextManager[Progress]:
    if path is PathName.LOADER:
        return loader_progress(settings, topic)
    partitions = offsets.partitions_of(clients.admin(settings), [topic])
    return group_progress(settings, settings.group(path.value), partitions)


def _commit(client: Producer) -> None:
    with clients.kafka_errors():
        client.commit_transaction(_TIMEOUT)


def _joined(settings: Settings, path: PathName, workers: int) -> int:
    """Waits until the workers share all partitions and keep them; returns how many of them have one with
    events. Raises Unavailable if they do not get that far."""
    client = clients.admin(settings)
    stream = load_streams(settings)[0]
    group = settings.group(path.value)
    topics = stream.topic_names if path is PathName.LOADER else [stream.topic]
    wanted = len(offsets.partitions_of(client, topics))
    deadline = time.monotonic() + _JOIN_SECONDS
    last: list[frozenset[Partition]] = []
    since = time.monotonic()
    while True:
        members: list[frozenset[Partition]] = []
        # The group does not exist before the first worker has joined.
        with suppress(Unavailable):
            members = assignments(client, group)
        if set(members) != set(last):
            last, since = members, time.monotonic()
        if (
            len(members) == workers
            and sum(map(bool, members)) == min(workers, stream.topics.partitions)
            and sum(map(len, members)) == wanted
            and time.monotonic() - since > _SETTLED
        ):
            return sum(any(topic == stream.topic for topic, _ in own) for own in members)
        if time.monotonic() > deadline:
            counts = ", ".join(str(len(own)) for own in members)
            raise Unavailable(
                f"{len(members)} of {counted(workers, 'worker')} joined {group}, with {counts} of "
                f"{counted(wanted, 'partition')}"
            )
        time.sleep(_TICK)
