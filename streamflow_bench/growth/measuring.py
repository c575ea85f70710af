"""Measures workers while one thing grows, by events that are all there once the workers have joined."""

import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from streamflow.privacy import Hasher
from streamflow.settings import Settings
from streamflow_bench.figures import PathName
from streamflow_bench.filling import fill_events
from streamflow_bench.growth.dimensions import Dimension, Growth, Point
from streamflow_bench.growth.streams import stream_of
from streamflow_bench.latency import latencies
from streamflow_bench.results import Detail
from streamflow_bench.sandbox import Sandbox
from streamflow_bench.scaling import Scaling
from streamflow_bench.sources import USERS, Sources
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
            scaling = Scaling(self._sandbox, self._sources(Path(folder), dimension, step))
            for growth in growths:
                point = self._point(scaling, dimension, growth.part, step)
                growth.runs[step].append(point)
                cost = f"{point.cost:.1f} µs an event, {point.rate:,.0f} events/s"
                self._say(f"{step:,} {dimension.unit}, {growth.part}, {what}: {cost}")

    def _sources(self, folder: Path, dimension: Dimension, step: int) -> Sources:
        count = dimension.events(step, self._events)
        users = step if dimension is Dimension.USERS else USERS
        size = step if dimension is Dimension.SIZE else None
        return Sources(folder, count, self._hasher, users=users, size=size)

    def _point(self, scaling: Scaling, dimension: Dimension, part: PathName, step: int) -> Point:
        detail: Detail = {}

        def fill(settings: Settings) -> None:
            if dimension is Dimension.ROWS:
                fill_events(settings, step, self._say)

        def ask(settings: Settings) -> None:
            if dimension is Dimension.ROWS:
                detail.update(_status(settings))

        workers = step if dimension is Dimension.WORKERS else 1
        stream = stream_of(dimension, step)
        run = scaling.measure(part, workers, stream=stream, before=fill, after=ask)
        return Point(
            cost=run.cpu_us,
            rate=run.rate,
            peak_mb=run.peak_mb,
            seconds=run.seconds,
            load_before=run.load_before,
            detail=detail,
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
