import json
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Final

import typer

from streamflow_bench.figures import OF_WORK, PathName
from streamflow_bench.growth.dimensions import EVENTS, Dimension
from streamflow_cli.bench_audit import bench_audit
from streamflow_cli.bench_idle import show_idle
from streamflow_cli.options import refuse_options

_EVENTS: Final = 1_000_000


_OF_IDLE: Final = ("idle", "idle_seconds", "settle_seconds", "out")
_OF_AUDIT: Final = ("audit", "events", "runs", "out")


def bench(
    context: typer.Context,
    *,
    events: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Events for each run of a path.",
            show_default=f"{_EVENTS:,}; with --growth {EVENTS:,}",
        ),
    ] = None,
    runs: Annotated[
        int, typer.Option(min=1, help="Runs of each path; median, least and most are shown.")
    ] = 1,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help=f"Measure this path only: {', '.join(PathName)}; with --growth this dimension: "
            f"{', '.join(Dimension)}. May be repeated.",
        ),
    ] = None,
    latency_seconds: Annotated[
        float,
        typer.Option(min=0.1, help="Seconds of sending at a steady rate, for latencies and loss."),
    ] = 10.0,
    workers: Annotated[
        list[int] | None,
        typer.Option(
            min=1,
            help="Measure so many workers of a kind together (of the bridge: clients) instead, and "
            "which processes use the processors. May be repeated.",
        ),
    ] = None,
    peers: Annotated[
        bool,
        typer.Option(
            "--peers",
            help="Measure the hand loops and other frameworks in turn, on the same events (`make peers` "
            "installs them).",
        ),
    ] = False,
    growth: Annotated[
        bool,
        typer.Option(
            "--growth",
            help="Measure instead what an event costs as partitions, rows, users, sizes, workers and what "
            "is to be caught up with grow.",
        ),
    ] = False,
    audit: Annotated[
        bool,
        typer.Option(
            "--audit", help="Measure the processor time of an audit of so many events instead."
        ),
    ] = False,
    idle: Annotated[
        bool,
        typer.Option(
            "--idle",
            help="Measure instead what the running stack costs while nothing happens.",
        ),
    ] = False,
    idle_seconds: Annotated[
        float, typer.Option(min=1, help="With --idle: seconds to measure.")
    ] = 60.0,
    settle_seconds: Annotated[
        float, typer.Option(min=0, help="With --idle: seconds to wait before.")
    ] = 60.0,
    write_docs: Annotated[
        bool,
        typer.Option(
            "--write-docs",
            help="With --peers or --growth, in the repository: renew tables and chart of "
            "docs/performance.md.",
        ),
    ] = False,
    judge: Annotated[
        bool, typer.Option(help="End with exit code 1 if a figure misses its bar.")
    ] = True,
    out: Annotated[
        Path | None, typer.Option(help="Write everything that was measured to this file, as JSON.")
    ] = None,
) -> None:
    """Measures every path next to the raw limit and the hand loop of the same path in the same run.

    Runs real workers against the configured Kafka and PostgreSQL, with topics, groups and a database
    schema of its own that it removes at the end. The hand loop is the shortest program of the same work.
    A figure that misses its bar makes the exit code 1.

    Example: streamflow bench --runs 3 --out bench.json
    Example: streamflow bench --workers 1 --workers 2 --workers 3 --only validator
    Example: streamflow bench --peers --events 500000 --runs 5
    Example: streamflow bench --growth --only rows
    Example: streamflow bench --audit --events 5000000
    Example: streamflow bench --idle
    """
    from streamflow import extras

    extras.require("bridge", "the bench")
    from streamflow.errors import UsageError
    from streamflow.settings import load_process_settings
    from streamflow_bench.benchmark import Plan, run_benchmark
    from streamflow_bench.growth.documents import write_growth
    from streamflow_bench.peers.documents import require_documents, write_documents
    from streamflow_cli.bench_tables import show_findings

    if out is not None:
        _require_writable(out)
    if audit or idle:
        own = _OF_IDLE if idle else _OF_AUDIT
        others = [name for name in context.params if name not in own]
        refuse_options(context, others, f"does not go with --{'idle' if idle else 'audit'}")
        if idle:
            show_idle(idle_seconds, settle_seconds, out)
        else:
            bench_audit(events or _EVENTS, runs, out)
        return
    refuse_options(context, ("idle_seconds", "settle_seconds"), "goes with --idle only")
    if write_docs:
        if not peers and not growth:
            raise UsageError("--write-docs needs --peers or --growth")
        require_documents()
    chosen = _chosen(only or (), several=bool(workers), peers=peers, growth=growth)
    plan = Plan(
        paths=[name for name in chosen if isinstance(name, PathName)],
        growth=[name for name in chosen if isinstance(name, Dimension)],
        events=events or (EVENTS if growth else _EVENTS),
        runs=runs,
        latency_seconds=latency_seconds,
        workers=tuple(workers or ()),
        peers=peers,
    )
    findings = run_benchmark(load_process_settings(), plan, lambda text: typer.echo(text, err=True))
    if out is not None:
        out.write_text(json.dumps(findings.report, indent=1) + "\n")
    if write_docs:
        (write_growth if growth else write_documents)(findings.report)
    show_findings(findings)
    if judge and findings.report["missed"]:
        raise typer.Exit(1)


def _require_writable(out: Path) -> None:
    """Fails now, not after minutes of measuring."""
    from streamflow.errors import UsageError

    try:
        out.open("a").close()
    except OSError as error:
        raise UsageError(f"{out} cannot be written: {error.strerror}") from error


def _chosen(
    only: Collection[str], *, several: bool, peers: bool, growth: bool
) -> list[PathName | Dimension]:
    """What is to be measured. Raises UsageError if it cannot be measured so."""
    from streamflow.errors import UsageError
    from streamflow_bench.scaling import SCALABLE

    possible: Collection[PathName | Dimension] = tuple(PathName)
    why = "only --growth measures {}: without it"
    if growth:
        if several or peers:
            raise UsageError("--growth has steps of its own: leave out --workers and --peers")
        possible, why = tuple(Dimension), "{} is a path: with --growth"
    elif several:
        if peers:
            raise UsageError("--peers compares single workers: leave out --workers")
        possible, why = tuple(SCALABLE), "there are never several workers of {}: with --workers"
    elif peers:
        possible, why = OF_WORK, "there are no peers of {}: with --peers"
    for name in only:
        if name not in possible:
            why = why if name in {*PathName, *Dimension} else "nothing is called {}"
            raise UsageError(f"{why.format(name)}, --only takes {', '.join(possible)}")
    return [name for name in possible if not only or name in only]
