"""Measures workers while one thing grows: each worker alone, on a topic that is full when it starts."""

import os
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from streamflow.kafka import clients
from streamflow.privacy import Hasher
from streamflow.registry import load_streams
from streamflow.settings import Settings
from streamflow_bench.figures import PathName
from streamflow_bench.filling import fill_events
from streamflow_bench.growth.dimensions import Dimension, Growth, Point
from streamflow_bench.growth.streams import stream_of
from streamflow_bench.latency import latencies
from streamflow_bench.limits import send_all
from streamflow_bench.results import MILLION, Detail
from streamflow_bench.sandbox import Sandbox
from streamflow_bench.scaling import Scaling
from streamflow_bench.sources import USERS, Sources
from streamflow_bench.usage import WORKERS
from streamflow_bench.watching import watch_worker
from streamflow_stack.stream_status import read_stream_status

_ASKED: Final = 50  # times that the status is asked for
_UP: Final = {"kafka": "up", "postgres": "up"}

Say = Callable[[str], None]


class Growing:
    def __init__(self, sandbox: Sandbox, hasher: Hasher, events: int, say: Say) -> None:
        self._sandbox = sandbox
        self._hasher = hasher
        self._events = events
        self._say = say
        self._runs = 0

    def measure(self, dimensions: Iterable[Dimension], rounds: int) -> list[Growth]:
        """Steps take turns, so that a busy minute does not affect only one of them."""
        found = []
        for dimension in dimensions:
            steps = dict.fromkeys(dimension.steps(self._events))
            growths = [
                Growth(dimension, part, {step: [] for step in steps}) for part in dimension.parts
            ]
            for number in range(1, rounds + 1):
                for step in steps:
                    self._measure(growths, step, f"run {number} of {rounds}")
            found += growths
        return found

    def _measure(self, growths: list[Growth], step: int, what: str) -> None:
        """All parts at one step."""
        dimension = growths[0].dimension
        with TemporaryDirectory(dir=self._sandbox.directory) as folder:
            sources = self._sources(Path(folder), dimension, step)
            if dimension is Dimension.WORKERS:
                scaling = Scaling(self._sandbox, sources)
                for growth in growths:
                    self._add(growth, step, _together(scaling, growth.part, step), what)
                return
            self._runs += 1
            with self._sandbox.topics(
                f"growth-{self._runs}", stream_of(dimension, step)
            ) as settings:
                topic = load_streams(settings)[0].topic
                send_all(clients.producer(settings), topic, sources.records())
                for growth in growths:
                    rows = step if dimension is Dimension.ROWS else None
                    point = self._alone(settings, growth.part, sources.count, rows)
                    self._add(growth, step, point, what)

    def _add(self, growth: Growth, step: int, point: Point, what: str) -> None:
        growth.runs[step].append(point)
        cost = "all in one step" if point.cost is None else f"{point.cost:.1f} µs an event"
        self._say(f"{step:,} {growth.dimension.unit}, {growth.part}, {what}: {cost}")

    def _sources(self, folder: Path, dimension: Dimension, step: int) -> Sources:
        count = dimension.events(step, self._events)
        users = step if dimension is Dimension.USERS else USERS
        size = step if dimension is Dimension.SIZE else None
        return Sources(folder, count, self._hasher, users=users, size=size)

    def _alone(self, settings: Settings, part: PathName, total: int, rows: int | None) -> Point:
        """One worker, with so many rows in the table before; the status is asked for where that is said."""
        load = os.getloadavg()[0]
        if part is PathName.LOADER:
            settings = self._sandbox.with_schema(settings)
            fill_events(settings, rows or 0, self._say)
        course = watch_worker(self._sandbox, settings, part, total)
        return Point(
            # Seconds for a million are microseconds for one.
            cost=course.cpu,
            rate=course.rate,
            peak_mb=course.memory.peak_mb,
            seconds=course.seconds,
            load_before=load,
            detail={} if rows is None else _status(settings),
        )


def _together(scaling: Scaling, part: PathName, workers: int) -> Point:
    run = scaling.measure(part, workers)
    return Point(
        cost=run.cores[WORKERS] / run.rate * MILLION,
        rate=run.rate,
        peak_mb=run.peak_mb,
        seconds=run.seconds,
        load_before=run.load_before,
    )


def _status(settings: Settings) -> Detail:
    """How long `streamflow status` takes to ask broker and database."""
    times = []
    for _ in range(_ASKED):
        began = time.perf_counter()
        read_stream_status(settings, _UP)
        times.append(time.perf_counter() - began)
    asked = latencies(times, 1 / statistics.mean(times))
    return {"status_p50_ms": asked.p50_ms, "status_p99_ms": asked.p99_ms}
