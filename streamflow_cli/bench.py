"""The command that measures."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from streamflow_bench.figures import MEMORY_BAR, MemorySamples, PathName, Result, Spread

if TYPE_CHECKING:
    from rich.text import Text

    from streamflow_bench.scaling import Scaled

_TITLES = ("measured", "raw limit", "ratio", "bar", "met")


def register(app: typer.Typer) -> None:
    """Adds the command of this module to the root application."""
    app.command()(bench)


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
            "who uses the processors. May be repeated.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write everything that was measured there, as JSON.")
    ] = None,
) -> None:
    """Measures every path beside the raw limit of the same path in the same run.

    Runs real workers against the configured Kafka and PostgreSQL, with topics, groups and a database
    schema of its own that it removes at the end. On a machine that is busy otherwise, look at the ratios.

    Example: streamflow bench --runs 3 --out bench.json
    Example: streamflow bench --workers 1 --workers 2 --workers 3 --only validator
    """
    from streamflow.settings import load_settings
    from streamflow_bench.benchmark import Plan, run_benchmark
    from streamflow_bench.scaling import SCALABLE

    if out is not None:
        _require_writable(out)
    if workers:
        _require_scalable(only or [], list(SCALABLE))
    plan = Plan(
        paths=frozenset(only or (SCALABLE if workers else PathName)),
        events=events,
        runs=runs,
        latency_seconds=latency_seconds,
        workers=tuple(workers or ()),
    )
    found = run_benchmark(load_settings(), plan, lambda text: typer.echo(text, err=True))
    if out is not None:
        out.write_text(json.dumps(found.report, indent=1) + "\n")
    if found.results:
        _show(found.results)
    if found.scaled:
        _show_scaled(found.scaled)


def _require_scalable(only: list[PathName], scalable: list[PathName]) -> None:
    from streamflow.errors import UsageError

    for path in only:
        if path not in scalable:
            raise UsageError(
                f"there are never several workers of {path}: with --workers, --only takes "
                f"{', '.join(scalable)}"
            )


def _require_writable(path: Path) -> None:
    """Now, not after minutes of measuring."""
    from streamflow.errors import UsageError

    try:
        path.open("a").close()
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from error


def _show(results: list[Result]) -> None:
    from rich.table import Column, Table

    from streamflow_cli.tables import make_console

    table = Table(Column("path", no_wrap=True), *_TITLES)
    for each in results:
        unit = each.path.unit
        table.add_row(
            each.path.text,
            _told(each.figure, ",.0f", unit) + _told_also(each),
            f"{_told(each.raw, ',.0f', unit)}\n{each.path.raw}",
            _told(each.ratio, ".2f", ""),
            each.path.bar.text(unit),
            _verdict(each.met),
        )
    for each in results:
        if each.peak_mb is not None:
            # One that ended before anybody looked has no samples.
            courses = [run.memory for run in each.runs if run.memory and run.memory.samples]
            table.add_row(
                f"memory of {each.path.name}: peak",
                f"{_told(each.peak_mb, ',.0f', 'MB')}\n{'; '.join(map(_course, courses))}",
                "-",
                "-",
                MEMORY_BAR.text("MB"),
                _verdict(each.memory_met),
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
    for each in scaled:
        cores = each.cores
        table.add_row(
            each.path.value,
            f"{SCALABLE[each.path]}: {each.workers}",
            ", ".join(dict.fromkeys(str(run.busy) for run in each.runs)),
            _told(each.rate, ",.0f", ""),
            *(f"{cores[part]:.2f}" if part in cores else "-" for part in PARTS),
            f"{sum(run.lost for run in each.runs):,}",
        )
    make_console().print(table)


def _course(memory: MemorySamples) -> str:
    found = memory.as_dict()
    return f"from {found['first_mb']:.0f} to {found['last_mb']:.0f}"


def _told_also(result: Result) -> str:
    if result.path.also is None:
        return ""
    _, name, unit = result.path.also.rsplit("_", 2)
    return f"\n{name} {_told(result.also, ',.0f', unit)}"


def _told(found: Spread | None, form: str, unit: str) -> str:
    if found is None:
        return "unknown"
    text = f"{found.median:{form}} {unit}".rstrip()
    if found.least != found.most:
        text += f"\n({found.least:{form}} to {found.most:{form}})"
    return text


def _verdict(met: bool | None) -> "Text":
    from rich.text import Text

    words = {True: ("yes", "green"), False: ("no", "red"), None: ("unknown", "yellow")}
    return Text(*words[met])
