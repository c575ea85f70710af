"""How fast several workers of a kind are together, and who uses the processors meanwhile.

The topic is prepared: all events are in it, in one transaction that is still open, so that nobody
sees them. When every worker has its partitions the transaction is committed. So all begin at one
moment, and neither starting nor joining nor producing is in the time.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import Producer

from streamflow.errors import Unavailable
from streamflow.flow import Partition
from streamflow.kafka import clients, offsets
from streamflow.kafka.offsets import assignments
from streamflow.registry import load_streams
from streamflow.settings import Settings
from streamflow_bench import delivery
from streamflow_bench.figures import PathName, Spread, spread
from streamflow_bench.limits import send_all
from streamflow_bench.sandbox import Sandbox
from streamflow_bench.sources import Sources
from streamflow_bench.usage import CLIENTS, WORKERS, Meter
from streamflow_bench.watching import (
    Progress,
    group_progress,
    loader_progress,
    looks,
    running,
)
from streamflow_stack.process import Child

# What there can be several of, and what the several are.
SCALABLE: Final = {
    PathName.LOADER: "workers",
    PathName.ANALYTICS: "workers",
    PathName.VALIDATOR: "workers",
    PathName.SOCKET: "clients of one bridge",
}

_JOIN_SECONDS: Final = 120.0
_SETTLED: Final = 1.0  # seconds that an assignment stays the same
_TICK: Final = 0.1  # seconds
_TRANSACTION_SECONDS: Final = 600
_TIMEOUT: Final = 60.0  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Together:
    """One measurement of several workers.

    Attributes:
        rate: events a second, of all together; of a bridge, those that each of its clients got.
        busy: workers that had a partition with events.
        lost: events that a client did not get.
        cores: how many cores each part kept busy.
        load_before: load average over the last minute, before the run.
    """

    rate: float
    busy: int
    lost: int
    cores: Mapping[str, float]
    load_before: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "events_per_s": round(self.rate, 1),
            "busy": self.busy,
            "lost": self.lost,
            "cores": {part: round(value, 3) for part, value in self.cores.items()},
            "load_before": self.load_before,
        }


@dataclass(frozen=True, slots=True)
class Scaled:
    """All runs of one path with one number of workers."""

    path: PathName
    workers: int
    runs: list[Together]

    @property
    def rate(self) -> Spread | None:
        """Of all runs."""
        return spread([run.rate for run in self.runs])

    @property
    def cores(self) -> dict[str, float]:
        """Median over the runs, by part."""
        parts = self.runs[0].cores if self.runs else {}
        found = {part: spread([run.cores.get(part) for run in self.runs]) for part in parts}
        return {part: each.median for part, each in found.items() if each is not None}

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "name": self.path.value,
            "of": SCALABLE[self.path],
            "workers": self.workers,
            "runs": [run.as_dict() for run in self.runs],
        }


class Scaling:
    """Measures several workers at a time in a sandbox.

    Args:
        sandbox: for topics, groups and tables.
        sources: the events.
    """

    def __init__(self, sandbox: Sandbox, sources: Sources) -> None:
        self._sandbox = sandbox
        self._sources = sources
        self._runs = 0

    def measure(self, path: PathName, workers: int) -> Together:
        """Measures a path once, with so many workers.

        Raises:
            Unavailable: they do not join, or make no progress.
        """
        self._runs += 1
        load = os.getloadavg()[0]
        with self._sandbox.topics(f"scaling-{self._runs}") as settings:
            topic = load_streams(settings)[0].topic
            release = self._prepare(settings, topic)
            if path is PathName.SOCKET:
                return self._deliver(settings, workers, release, load)
            stored = self._sandbox.with_schema(settings) if path is PathName.LOADER else settings
            with self._started(stored, path.value, workers) as children:
                busy = _joined(stored, path, workers)
                with self._progress(stored, path, topic) as done:
                    return self._timed(stored, children, done, busy, release, load)

    def _prepare(self, settings: Settings, topic: str) -> Callable[[], None]:
        """Fills a topic with what nobody sees yet; returns what makes it visible."""
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

    @contextmanager
    def _started(self, settings: Settings, name: str, workers: int) -> Iterator[list[Child]]:
        with ExitStack() as stack:
            yield [
                stack.enter_context(
                    running(self._sandbox, settings, "worker", name, name=f"{name}-{number}")
                )
                for number in range(1, workers + 1)
            ]

    @contextmanager
    def _progress(self, settings: Settings, path: PathName, topic: str) -> Iterator[Progress]:
        if path is PathName.LOADER:
            with loader_progress(settings, topic) as done:
                yield done
        else:
            partitions = offsets.partitions_of(clients.admin(settings), [topic])
            with group_progress(settings, settings.group(path.value), partitions) as done:
                yield done

    def _timed(
        self,
        settings: Settings,
        children: Sequence[Child],
        done: Progress,
        busy: int,
        release: Callable[[], None],
        load: float,
    ) -> Together:
        total = self._sources.count
        meter = Meter(settings, {WORKERS: [child.pid for child in children]})
        began = ended = time.monotonic()
        release()
        for now, _ in looks(children, done, total):
            ended = now
        seconds = ended - began
        return Together(
            rate=total / seconds,
            busy=busy,
            lost=0,
            cores=meter.used(time.monotonic() - began),
            load_before=load,
        )

    def _deliver(
        self, settings: Settings, count: int, release: Callable[[], None], load: float
    ) -> Together:
        total = self._sources.count
        with delivery.bridged(self._sandbox, settings, count) as (bridge, listeners):
            pids = {WORKERS: [bridge.pid], CLIENTS: [each.pid for each in listeners]}
            meter = Meter(settings, pids)
            began = time.monotonic()
            release()
            delivery.wait_for(listeners, total)
            cores = meter.used(time.monotonic() - began)
            ends = [each.notes[-1].at for each in listeners]
            return Together(
                rate=min(each.events for each in listeners) / (max(ends) - began),
                busy=count,
                lost=sum(total - each.events for each in listeners),
                cores=cores,
                load_before=load,
            )


def _commit(client: Producer) -> None:
    with clients.kafka_errors():
        client.commit_transaction(_TIMEOUT)


def _joined(settings: Settings, path: PathName, workers: int) -> int:
    """Waits until the workers have shared out all partitions among them, for good; tells how many
    have one with events.

    Raises:
        Unavailable: they do not get that far.
    """
    client = clients.admin(settings)
    stream = load_streams(settings)[0]
    group = settings.group(path.value)
    topics = stream.topic_names if path is PathName.LOADER else [stream.topic]
    wanted = offsets.partitions_of(client, topics)
    deadline = time.monotonic() + _JOIN_SECONDS
    last: list[frozenset[Partition]] = []
    since = time.monotonic()
    while True:
        found: list[frozenset[Partition]] = []
        # There is no group before the first has joined.
        with suppress(Unavailable):
            found = assignments(client, group)
        if set(found) != set(last):
            last, since = found, time.monotonic()
        sharing = sum(map(bool, found))
        if (
            len(found) == workers
            and sharing == min(workers, stream.topics.partitions)
            and sum(map(len, found)) == len(wanted)
            and time.monotonic() - since > _SETTLED
        ):
            return sum(any(topic == stream.topic for topic, _ in each) for each in found)
        if time.monotonic() > deadline:
            raise Unavailable(
                f"{len(found)} of {workers} workers have joined {group}, with "
                f"{', '.join(str(len(each)) for each in found)} of {len(wanted)} partitions"
            )
        time.sleep(_TICK)
