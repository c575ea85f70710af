"""What an event costs as work grows, as a table and a chart of ``docs/performance.md``."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from streamflow_bench.growth.dimensions import BAR
from streamflow_bench.peers.documents import (
    DOCS,
    PAGE,
    Report,
    conditions,
    draw,
    renew,
    spread_text,
    table,
)
from streamflow_bench.peers.place import FOLDER

BEGIN: Final = "<!-- growth: begin, written by `streamflow bench --growth --write-docs` -->"
END: Final = "<!-- growth: end -->"
CHART: Final = DOCS / "images" / "growth.png"

_TITLES: Final = (
    *("step", "part", "CPU µs per event", "events/s", "s", "peak memory, MB"),
    *("status, ms: p50", "p99", f"growth (bar ≤ {BAR:g})"),
)


def write_growth(report: Report, page: Path = PAGE, chart: Path = CHART) -> None:
    """Renews the page's part between its marks, and the chart. Raises StreamFlowError if that fails."""
    renew(page, BEGIN, END, _paragraphs(report))
    draw(FOLDER.parent / "growth_chart.py", report, chart)


def _paragraphs(report: Report) -> Iterator[str]:
    growths = report["growth"]
    loads = [
        run["load_before"] for each in growths for step in each["steps"] for run in step["runs"]
    ]
    yield f"![Processor time for an event as work grows](images/{CHART.name})"
    yield conditions(report, loads)
    yield table(_TITLES, (_cells(each, step) for each in growths for step in each["steps"]))


def _cells(growth: Report, step: Report) -> tuple[str, ...]:
    status = (step["status_p50_ms"], step["status_p99_ms"])
    return (
        f"{step['step']:,} {growth['unit']}",
        growth["part"],
        spread_text(step["cpu_us_per_event"], ",.1f"),
        spread_text(step["events_per_s"], ",.0f"),
        spread_text(step["seconds"], ",.1f"),
        spread_text(step["peak_mb"], ",.0f"),
        *("" if each is None else spread_text(each, ",.1f") for each in status),
        _growth(growth) if step is growth["steps"][-1] else "",
    )


def _growth(growth: Report) -> str:
    figures = (("{:.2f}", growth["growth"]), ("memory {:.2f}", growth["memory_growth"]))
    return ", ".join(text.format(value) for text, value in figures if value is not None)
