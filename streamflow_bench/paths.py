"""Measures each path: the real worker, then its raw limit and the hand loop on the same data."""

import os
from collections.abc import Callable
from functools import cached_property
from typing import Final

import psutil

from streamflow.kafka import clients, kept_positions, offsets
from streamflow.kafka.producing import produce_and_flush
from streamflow.postgres.signing_key import SigningKey
from streamflow.registry import load_streams
from streamflow.settings import Settings
from streamflow.stream import Stream
from streamflow_bench import delivery, latency, limits
from streamflow_bench.delivery import Delivery
from streamflow_bench.figures import PathName
from streamflow_bench.latency import Latencies, Pace
from streamflow_bench.peers.catalog import hand_loop
from streamflow_bench.peers.programs import NotInstalled
from streamflow_bench.peers.rows import rows_of
from streamflow_bench.peers.running import PeerRunner
from streamflow_bench.results import MEGABYTE, Course, Detail, Rows, Run
from streamflow_bench.sandbox import Sandbox
from streamflow_bench.sources import Sources
from streamflow_bench.watching import group_progress, loader_progress, running, watch
from streaming_workers.producer.progress import group_of

RATE: Final = 5_000  # events a second, for latencies
HIGH_RATE: Final = 12_000


class Paths:
    """Measures the paths in a sandbox. Events are sent at a steady rate for `latency_seconds`, for each
    side.

    Measure the loader before the validator: it also loads what the validator derives.
    """

    def __init__(self, sandbox: Sandbox, sources: Sources, latency_seconds: float) -> None:
        self._sandbox = sandbox
        self._sources = sources
        self._latency_seconds = latency_seconds
        self.peers = PeerRunner(sandbox, sources)
        self._runs = 0
        self._measures: dict[PathName, Callable[[float], Run]] = {
            PathName.PRODUCE: self._produce,
            PathName.LOADER: self._load,
            PathName.ANALYTICS: self._count,
            PathName.VALIDATOR: self._validate,
            PathName.LATENCY: self._latency,
            PathName.SOCKET: self._socket,
            PathName.SOCKET_LOSS: self._socket_loss,
        }

    def measure(self, name: PathName) -> Run:
        self._runs += 1
        return self._measures[name](os.getloadavg()[0])

    @cached_property
    def filled(self) -> Settings:
        """Settings with which ``user-events`` holds all events, for all paths of a worker."""
        settings = self._sandbox.settings_with_topics("filled")
        limits.bare_produce(settings, _stream(settings).topic, self._sources.records())
        return settings

    def _produce(self, load: float) -> Run:
        total, lines = self._sources.count, self._sources.lines
        with self._sandbox.topics(f"produce-{self._runs}") as settings:
            topic = _stream(settings).topic
            with (
                group_progress(settings, group_of(settings, lines), [(topic, 0)]) as done,
                running(self._sandbox, settings, "produce", "--from", str(lines)) as child,
            ):
                course = watch(child, done, total)
        with self._sandbox.topics(f"bare-{self._runs}") as settings:
            topic = _stream(settings).topic
            raw = limits.bare_produce(settings, topic, self._sources.records())
        return self._beside_hand_loop(PathName.PRODUCE, course, raw, load)

    def _load(self, load: float) -> Run:
        settings = self._sandbox.with_schema(self.filled)
        stream = _stream(settings)
        with (
            loader_progress(settings, stream.topic) as done,
            running(self._sandbox, settings, "worker", "loader") as child,
        ):
            course = watch(child, done, self._sources.count)
        self._sandbox.remove_groups(settings.group("loader"))
        rows = rows_of(settings)
        raw = limits.bare_copy(settings, stream)
        return self._beside_hand_loop(PathName.LOADER, course, raw, load, rows)

    def _count(self, load: float) -> Run:
        course = self._transactional("analytics")
        topic = _stream(self.filled).topic
        raw = limits.bare_consume(self.filled, topic, self._sources.count)
        return self._beside_hand_loop(PathName.ANALYTICS, course, raw, load)

    def _validate(self, load: float) -> Run:
        course = self._transactional("validator")
        total = self._sources.valid
        sample = limits.sample_of(self.filled, _stream(self.filled).notifications_topic, total)
        with self._sandbox.topics(f"bare-{self._runs}") as settings:
            topic = _stream(settings).notifications_topic
            raw = limits.bare_transactions(settings, topic, sample, total)
        return self._beside_hand_loop(PathName.VALIDATOR, course, raw, load)

    def _beside_hand_loop(
        self,
        path: PathName,
        course: Course,
        raw: float | None,
        load: float,
        rows: Rows | None = None,
    ) -> Run:
        """The run of a worker whose own course is known, after that of the hand loop."""
        try:
            hand = self.peers.run(hand_loop(path), self.filled)
        except NotInstalled:
            hand = None
        return Run(
            figure=course.rate,
            raw=raw,
            load_before=load,
            course=course,
            hand=hand and hand.course,
            rows=rows,
            hand_rows=hand and hand.rows,
        )

    def _transactional(self, name: str) -> Course:
        """All events through a worker that commits to its group."""
        settings = self.filled
        group = settings.group(name)
        partitions = offsets.partitions_of(clients.admin(settings), [_stream(settings).topic])
        with (
            group_progress(settings, group, partitions) as done,
            running(self._sandbox, settings, "worker", name) as child,
        ):
            course = watch(child, done, self._sources.count)
        self._sandbox.remove_groups(group)
        # What StreamFlow keeps itself of the group, too: the next run begins at the beginning.
        sign = SigningKey(settings).signer().sign
        forgotten = [
            sign(kept_positions.forgetting(settings, group, partition)) for partition in partitions
        ]
        produce_and_flush(clients.producer(settings), forgotten)
        return course

    def _latency(self, load: float) -> Run:
        pace = Pace(RATE, self._latency_seconds)
        bare = self._bare_latencies(pace)
        with self._sandbox.topics(f"latency-rows-{self._runs}") as settings:
            stored = self._sandbox.with_schema(settings)
            with (
                latency.querying(stored, topic := _stream(stored).topic) as watcher,
                running(self._sandbox, stored, "worker", "loader"),
            ):
                records = self._sources.numbered()
                rows = latency.measure(stored, topic, watcher, records, pace)
        detail = _prefixed("row", rows._asdict()) | _prefixed("bare", bare._asdict())
        return Run(figure=rows.p99_ms, raw=bare.p99_ms, load_before=load, detail=detail)

    def _bare_latencies(self, pace: Pace) -> Latencies:
        with self._sandbox.topics(f"latency-{self._runs}") as settings:
            topic = _stream(settings).topic
            with latency.consuming(settings, topic) as watcher:
                return latency.measure(settings, topic, watcher, self._sources.numbered(), pace)

    def _socket(self, load: float) -> Run:
        delivered, bare, detail = self._delivered(Pace(RATE, self._latency_seconds))
        # If events were lost, there is no latency of all events.
        figure = None if delivered.lost else delivered.latencies.p99_ms
        return Run(figure=figure, raw=bare.p99_ms, load_before=load, detail=detail)

    def _socket_loss(self, load: float) -> Run:
        pace = Pace(HIGH_RATE, self._latency_seconds)
        delivered, bare, detail = self._delivered(pace)
        lost = pace.events - bare.events
        return Run(figure=delivered.lost, raw=lost, load_before=load, detail=detail)

    def _delivered(self, pace: Pace) -> tuple[Delivery, Latencies, Detail]:
        """To one client through the bridge, and to a bare consumer."""
        bare = self._bare_latencies(pace)
        with (
            self._sandbox.topics(f"socket-{self._runs}") as settings,
            delivery.bridged(self._sandbox, settings) as (bridge, [client]),
        ):
            process = psutil.Process(bridge.pid)
            before = process.cpu_times()
            topic = _stream(settings).topic
            delivered = delivery.measure(settings, topic, client, self._sources.numbered(), pace)
            used = process.cpu_times()
            memory = process.memory_info().rss
        detail = _prefixed("client", delivered.named()) | _prefixed("bare", bare._asdict())
        detail["bridge_cpu_seconds"] = used.user + used.system - before.user - before.system
        detail["bridge_memory_mb"] = memory / MEGABYTE
        return delivered, bare, detail


def _prefixed(word: str, detail: Detail) -> Detail:
    return {f"{word}_{name}": value for name, value in detail.items()}


def _stream(settings: Settings) -> Stream:
    return load_streams(settings)[0]
