import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from streamflow_bench.figures import MEMORY_BAR, MemorySamples, PathName, Result, Spread
from streamflow_cli.bench_audit import bench_audit
from streamflow_cli.bench_idle import show_idle
from streamflow_cli.options import refuse_options

if TYPE_CHECKING:
    from rich.text import Text

    from streamflow_bench.scaling import Scaled

_OF_PATHS = ("events", "runs", "only", "latency_seconds", "workers")
_OF_IDLE = ("idle_seconds", "settle_seconds")
_TITLES = ("measured", "raw limit", "ratio", "bar", "met")


def bench(
    context: typer.Context,
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
            help="Measure what the running stack costs while nothing happens instead; exit 1 if that is too "
            "much.",
        ),
    ] = False,
    idle_seconds: Annotated[
        float, typer.Option(min=1, help="With --idle: seconds to measure.")
    ] = 60.0,
    settle_seconds: Annotated[
        float, typer.Option(min=0, help="With --idle: seconds to wait before.")
    ] = 60.0,
    out: Annotated[
        Path | None, typer.Option(help="Write everything that was measured to this file, as JSON.")
    ] = None,
) -> None:
    """Measures every path next to the raw limit of the same path in the same run.

    Runs real workers against the configured Kafka and PostgreSQL, with topics, groups and a database
    schema of its own that it removes at the end. On a busy machine, look at the ratios.

    Example: streamflow bench --runs 3 --out bench.json
    Example: streamflow bench --audit --events 5000000
    Example: streamflow bench --workers 1 --workers 2 --workers 3 --only validator
    Example: streamflow bench --idle
    """
    from streamflow.errors import UsageError
    from streamflow.settings import load_process_settings
    from streamflow_bench.benchmark import Plan, run_benchmark
    from streamflow_bench.scaling import SCALABLE

    if out is not None:
        # Fails now, not after minutes of measuring.
        try:
            out.open("a").close()
        except OSError as error:
            raise UsageError(f"{out} cannot be written: {error.strerror}") from error
    if audit:
        bench_audit(events, runs, out)
    if idle:
        refuse_options(
            context, _OF_PATHS, "does not go with --idle, which measures the running stack"
        )
        show_idle(idle_seconds, settle_seconds, out)
        return
    refuse_options(context, _OF_IDLE, "goes with --idle only")
    unscalable = [path for path in only or () if workers and path not in SCALABLE]
    if unscalable:
        raise UsageError(
            f"there are never several workers of {unscalable[0]}: with --workers, --only takes "
            f"{', '.join(SCALABLE)}"
        )
    plan = Plan(
        paths=frozenset(only or (SCALABLE if workers else PathName)),
        events=events,
        runs=runs,
        latency_seconds=latency_seconds,
        workers=tuple(workers or ()),
    )
    results, scaled, report = run_benchmark(
        load_process_settings(), plan, lambda text: typer.echo(text, err=True)
    )
    if out is not None:
        out.write_text(json.dumps(report, indent=1) + "\n")
    if results:
        _show(results)
    if scaled:
        _show_scaled(scaled)


def _show(results: list[Result]) -> None:
    from rich.table import Column, Table

    from streamflow_cli.tables import make_console

    table = Table(Column("path", no_wrap=True), *_TITLES)
    for result in results:
        path = result.path
        measured = _spread(result.figure, ",.0f", path.unit)
        if path.also is not None:
            _, name, unit = path.also.rsplit("_", 2)
            measured += f"\n{name} {_spread(result.also, ',.0f', unit)}"
        table.add_row(
            path.text,
            measured,
            f"{_spread(result.raw, ',.0f', path.unit)}\n{path.raw}",
            _spread(result.ratio, ".2f", ""),
            path.bar.text(path.unit),
            _verdict(result.met),
        )
    for result in results:
        if result.peak_mb is not None:
            # A process that ended before the first sample has none.
            memories = [run.memory for run in result.runs if run.memory and run.memory.samples]
            table.add_row(
                f"memory of {result.path.name}: peak",
                f"{_spread(result.peak_mb, ',.0f', 'MB')}\n{'; '.join(map(_growth, memories))}",
                "-",
                "-",
                MEMORY_BAR.text("MB"),
                _verdict(result.memory_met),
            )
    make_console().print(table)


def _show_scaled(scaled: "list[Scaled]") -> None:
    from rich.table import Column, Table

    from streamflow_bench.scaling import SCALABLE
    from streamflow_bench.usage import PARTS
    from streamflow_cli.tables import make_console

    table = Table(
        *(Column(title, no_wrap=True) for title in ("path", "number", "with events", "events/s")),
        *(f"cores: {part}" for part in PARTS),
        "lost",
    )
    for one in scaled:
        cores = one.cores
        table.add_row(
            one.path.value,
            f"{SCALABLE[one.path]}: {one.workers}",
            ", ".join(dict.fromkeys(str(run.busy) for run in one.runs)),
            _spread(one.rate, ",.0f", ""),
            *(f"{cores[part]:.2f}" if part in cores else "-" for part in PARTS),
            f"{sum(run.lost for run in one.runs):,}",
        )
    make_console().print(table)


def _growth(memory: MemorySamples) -> str:
    values = memory.as_dict()
    return f"from {values['first_mb']:.0f} to {values['last_mb']:.0f}"


def _spread(spread: Spread | None, form: str, unit: str) -> str:
    if spread is None:
        return "unknown"
    text = f"{spread.median:{form}} {unit}".rstrip()
    if spread.least != spread.most:
        text += f"\n({spread.least:{form}} to {spread.most:{form}})"
    return text


def _verdict(met: bool | None) -> "Text":
    from rich.text import Text

    words = {True: ("yes", "green"), False: ("no", "red"), None: ("unknown", "yellow")}
    return Text(*words[met])
