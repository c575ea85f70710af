import json
from collections.abc import Collection
from pathlib import Path
from typing import Annotated

import typer

from streamflow_bench.figures import OF_WORK, PathName


def bench(
    events: Annotated[int, typer.Option(min=1, help="Events for each run of a path.")] = 1_000_000,
    runs: Annotated[
        int, typer.Option(min=1, help="Runs of each path; median, least and most are shown.")
    ] = 1,
    only: Annotated[
        list[PathName] | None, typer.Option(help="Measure this path only. May be repeated.")
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
    write_docs: Annotated[
        bool,
        typer.Option(
            "--write-docs",
            help="With --peers, in the repository: renew table and chart of docs/performance.md.",
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
    """
    from streamflow.errors import UsageError
    from streamflow.settings import load_process_settings
    from streamflow_bench.benchmark import Plan, run_benchmark
    from streamflow_bench.peers.documents import require_documents, write_documents
    from streamflow_cli.bench_tables import show_findings

    if out is not None:
        _require_writable(out)
    if write_docs:
        if not peers:
            raise UsageError("--write-docs needs --peers")
        require_documents()
    possible = _possible_paths(several=bool(workers), peers=peers)
    _require_possible(only or (), possible, "--workers" if workers else "--peers")
    plan = Plan(
        paths=frozenset(only or possible),
        events=events,
        runs=runs,
        latency_seconds=latency_seconds,
        workers=tuple(workers or ()),
        peers=peers,
    )
    findings = run_benchmark(load_process_settings(), plan, lambda text: typer.echo(text, err=True))
    if out is not None:
        out.write_text(json.dumps(findings.report, indent=1) + "\n")
    if write_docs:
        write_documents(findings.report)
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


def _possible_paths(*, several: bool, peers: bool) -> Collection[PathName]:
    from streamflow.errors import UsageError
    from streamflow_bench.scaling import SCALABLE

    if several and peers:
        raise UsageError("--peers compares single workers: leave out --workers")
    if several:
        return SCALABLE
    return OF_WORK if peers else tuple(PathName)


def _require_possible(
    wanted: Collection[PathName], possible: Collection[PathName], option: str
) -> None:
    from streamflow.errors import UsageError

    impossible = [path for path in wanted if path not in possible]
    if impossible:
        what = "never several workers" if option == "--workers" else "no peers"
        raise UsageError(
            f"there are {what} of {impossible[0]}: with {option}, --only takes {', '.join(possible)}"
        )
