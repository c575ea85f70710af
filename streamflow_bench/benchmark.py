"""All of a benchmark: prepare, measure path by path, clean up, report."""

import os
import platform
from collections.abc import Callable, Collection, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import confluent_kafka
import psutil

from streamflow.contract import format_time
from streamflow.extras import DISTRIBUTION
from streamflow.postgres.connections import session
from streamflow.registry import hasher_for, load_streams
from streamflow.settings import Settings
from streamflow.units import counted
from streamflow_bench.figures import PATHS, PathName
from streamflow_bench.growth.dimensions import Dimension, Growth
from streamflow_bench.growth.measuring import Growing
from streamflow_bench.leftovers import remove_leftovers
from streamflow_bench.paths import Paths
from streamflow_bench.peers.comparison import PeerComparison, compare
from streamflow_bench.results import Result, Run
from streamflow_bench.sandbox import Sandbox
from streamflow_bench.scaling import SCALABLE, Scaled, Scaling
from streamflow_bench.sources import Sources
from streamflow_stack.signals import StopSignals


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be measured."""

    paths: Collection[PathName]
    events: int  # for each run of a path with a rate
    runs: int  # of each path
    latency_seconds: float  # of sending at a steady rate
    workers: tuple[int, ...] = ()  # to measure so many together, instead of one and its raw limit
    peers: bool = False  # whether to measure the peers of each path too
    growth: Collection[
        Dimension
    ] = ()  # to measure what cost becomes as these grow, instead of paths

    @property
    def uses_database(self) -> bool:
        uses = not {PathName.LOADER, PathName.LATENCY}.isdisjoint(self.paths)
        return uses or bool(self.growth)


class Findings(NamedTuple):
    """What was measured."""

    results: list[Result]  # of one worker, its raw limit and the hand loop
    comparisons: list[PeerComparison]  # with the peers
    scaled: list[Scaled]  # of several workers together
    report: dict[str, Any]  # all of it, for JSON
    growths: Sequence[Growth] = ()  # of the cost as work grows


def run_benchmark(settings: Settings, plan: Plan, say: Callable[[str], None]) -> Findings:
    """Measures, and removes everything it created, whatever happens.

    Raises:
        ConfigurationError: Kafka or PostgreSQL do not let it create topics or a schema of its own.
        KeyboardInterrupt: a stop signal arrived; everything is removed.
    """
    report = {
        "date": format_time(datetime.now(UTC)),
        "events": plan.events,
        "runs": plan.runs,
        "latency_seconds": plan.latency_seconds,
        "machine": _machine(),
        "versions": _versions(settings, plan),
    }
    with StopSignals() as signals, closing(Sandbox(settings)) as sandbox:
        with signals.interrupting():
            for removed in remove_leftovers(settings, database=plan.uses_database):
                say(removed)
            if plan.uses_database:
                # A missing right is reported now, not after minutes of measuring.
                sandbox.claim_schema()
            findings = _find(settings, sandbox, plan, say)
        say("removing topics, groups and tables")
    report["paths"] = [result.as_dict() for result in findings.results]
    report["scaling"] = [one.as_dict() for one in findings.scaled]
    report["peers"] = [each.as_dict() for each in findings.comparisons]
    report["growth"] = [growth.as_dict() for growth in findings.growths]
    judged: list[Result | Growth] = [*findings.results, *findings.growths]
    report["missed"] = [missed for each in judged for missed in each.missed]
    return findings._replace(report=report)


def _find(settings: Settings, sandbox: Sandbox, plan: Plan, say: Callable[[str], None]) -> Findings:
    """Without the report."""
    found = Findings([], [], [], {})
    hasher = hasher_for(settings, load_streams(settings))
    if plan.growth:
        growing = Growing(sandbox, hasher, plan.events, say)
        return found._replace(growths=growing.measure(plan.growth, plan.runs))
    say(f"preparing {counted(plan.events, 'event')}")
    sources = Sources(sandbox.directory, plan.events, hasher)
    if plan.workers:
        return found._replace(scaled=_scale(sandbox, sources, plan, say))
    if not plan.peers:
        return found._replace(results=_measure(sandbox, sources, plan, say))
    paths = Paths(sandbox, sources, plan.latency_seconds)
    comparisons = [compare(paths, name, plan.runs, say) for name in PathName if name in plan.paths]
    results = [each.result for each in comparisons]
    return found._replace(results=results, comparisons=comparisons)


def _measure(
    sandbox: Sandbox, sources: Sources, plan: Plan, say: Callable[[str], None]
) -> list[Result]:
    paths = Paths(sandbox, sources, plan.latency_seconds)
    results = []
    for name in PathName:
        if name not in plan.paths:
            continue
        result = Result(PATHS[name], [])
        for number in range(1, plan.runs + 1):
            run = paths.measure(name)
            result.runs.append(run)
            say(f"{name}, run {number} of {plan.runs}: {_describe(run, PATHS[name].unit)}")
        results.append(result)
    return results


def _scale(
    sandbox: Sandbox, sources: Sources, plan: Plan, say: Callable[[str], None]
) -> list[Scaled]:
    scaling = Scaling(sandbox, sources)
    scaled = [
        Scaled(name, workers, [])
        for name in SCALABLE
        if name in plan.paths
        for workers in plan.workers
    ]
    # Numbers of workers take turns, so that a busy minute does not affect only one of them.
    for number in range(1, plan.runs + 1):
        for one in scaled:
            run = scaling.measure(one.path, one.workers)
            one.runs.append(run)
            say(
                f"{one.path}, {SCALABLE[one.path]}: {one.workers}, run {number} of {plan.runs}: "
                f"{run.rate:,.0f} events/s, load {run.load_before:.1f}"
            )
    return scaled


def _describe(run: Run, unit: str) -> str:
    figure, raw = (
        "unknown" if value is None else f"{value:,.0f} {unit}" for value in (run.figure, run.raw)
    )
    return f"{figure}, raw limit {raw}"


def _machine() -> dict[str, Any]:
    return {
        "cores": os.cpu_count(),
        "cpu": _cpu_model(),
        "memory_mb": psutil.virtual_memory().total // 1_000_000,
        "system": platform.platform(),
        "load_average": list(os.getloadavg()),
    }


def _cpu_model() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def _versions(settings: Settings, plan: Plan) -> dict[str, str]:
    versions = {
        "streamflow": version(DISTRIBUTION),
        "python": platform.python_version(),
        "confluent-kafka": version("confluent-kafka"),
        "librdkafka": confluent_kafka.libversion()[0],
        "psycopg": version("psycopg"),
        "pydantic": version("pydantic"),
    }
    if plan.uses_database:
        with session(settings, "bench") as connection:
            row = connection.execute("SHOW server_version").fetchone()
            versions["postgresql"] = str(row[0]) if row else "unknown"
    return versions
