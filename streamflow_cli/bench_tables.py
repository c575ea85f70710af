"""What a benchmark has measured, as tables."""

from collections.abc import Sequence

import typer
from rich.table import Column, Table
from rich.text import Text

from streamflow_bench.benchmark import Findings
from streamflow_bench.figures import MEMORY_BAR
from streamflow_bench.growth.dimensions import Growth
from streamflow_bench.peers.comparison import PeerComparison
from streamflow_bench.results import MemorySamples, Result, Spread
from streamflow_bench.scaling import SCALABLE, Scaled
from streamflow_bench.usage import PARTS
from streamflow_cli.tables import make_console

_TITLES = ("measured", "CPU s per million", "raw limit", "ratio", "of hand loop", "bar", "met")


def show_findings(findings: Findings) -> None:
    for comparison in findings.comparisons:
        _show_comparison(comparison)
    if findings.results:
        _show_results(findings.results)
    if findings.growths:
        _show_growths(findings.growths)
    if findings.scaled:
        _show_scaled(findings.scaled)
    for missed in findings.report["missed"]:
        typer.echo(f"bar missed: {missed}", err=True)


def _show_results(results: list[Result]) -> None:
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
            _spread(result.cpu, ".1f", "") if result.cpu else "-",
            f"{_spread(result.raw, ',.0f', path.unit)}\n{path.raw}",
            _spread(result.ratio, ".2f", ""),
            _of_hand(result),
            path.bar.text(path.unit),
            _verdict(result.met),
        )
    for result in results:
        if result.peak_mb is not None:
            # A process that ended before the first sample has none.
            memories = [
                run.course.memory for run in result.runs if run.course and run.course.memory.samples
            ]
            table.add_row(
                f"memory of {result.path.name}: peak",
                f"{_spread(result.peak_mb, ',.0f', 'MB')}\n{'; '.join(map(_growth, memories))}",
                *("-" * 4),
                MEMORY_BAR.text("MB"),
                _verdict(result.memory_met),
            )
    make_console().print(table)


def _show_scaled(scaled: list[Scaled]) -> None:
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


def _show_growths(growths: Sequence[Growth]) -> None:
    titles = ("part", "CPU µs per event", "events/s", "peak memory", "status, p50", "growth", "met")
    table = Table("step", *titles)
    for growth in growths:
        for step in growth.runs:
            status = growth.detail(step, "status_p50_ms")
            is_last = step == growth.ends[1]
            table.add_row(
                f"{step:,} {growth.dimension.unit}",
                growth.part.value,
                _spread(growth.cost(step), ".1f", ""),
                _spread(growth.rate(step), ",.0f", ""),
                _spread(growth.peak_mb(step), ",.0f", "MB"),
                "-" if status is None else _spread(status, ",.0f", "ms"),
                _multiple(growth) if is_last else "",
                _verdict(growth.met) if is_last else "",
                end_section=is_last,
            )
    make_console().print(table)


def _multiple(growth: Growth) -> str:
    text = "unknown" if growth.growth is None else f"{growth.growth:.2f}"
    if growth.memory_growth is not None:
        text += f"\nmemory {growth.memory_growth:.2f}"
    return text


def _show_comparison(comparison: PeerComparison) -> None:
    """All contenders of one path; why one was not measured stands in its row."""
    path = comparison.result.path
    titles = ("CPU s per million", "of hand loop", "events/s", "peak memory", "same rows")
    table = Table(Column(path.text, no_wrap=True), *titles, "after a crash, and invalid records")
    for contender in comparison.contenders:
        if contender.failure is not None:
            table.add_row(contender.name, f"not measured: {contender.failure}")
            continue
        table.add_row(
            contender.name,
            _spread(contender.cpu, ".1f", ""),
            _spread(contender.cpu_of_hand, ".2f", ""),
            _spread(contender.rate, ",.0f", ""),
            _spread(contender.peak_mb, ",.0f", "MB"),
            "-" if contender.equal is None else _verdict(contender.equal),
            contender.guarantee,
        )
    make_console().print(table)


def _of_hand(result: Result) -> str:
    if result.cpu_of_hand is None and result.rate_of_hand is None:
        return "-"
    cpu, rate = result.cpu_of_hand, result.rate_of_hand
    return f"CPU {_spread(cpu, '.2f', '')}\nrate {_spread(rate, '.2f', '')}"


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


def _verdict(met: bool | None) -> Text:
    words = {True: ("yes", "green"), False: ("no", "red"), None: ("unknown", "yellow")}
    return Text(*words[met])
