"""What a comparison found, as the tables and the chart of ``docs/performance.md``."""

import json
import re
import subprocess
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from streamflow.errors import StreamFlowError, UsageError
from streamflow.units import counted
from streamflow_bench.figures import PATHS, PathName
from streamflow_bench.peers.place import FOLDER
from streamflow_bench.peers.programs import PEERS_PYTHON

DOCS: Final = FOLDER.parents[1] / "docs"
PAGE: Final = DOCS / "performance.md"
CHART: Final = DOCS / "images" / "peers.png"
BEGIN: Final = "<!-- measured: begin, written by `streamflow bench --peers --write-docs` -->"
END: Final = "<!-- measured: end -->"

Report = Mapping[str, Any]


def require_documents() -> None:
    """Raises UsageError if page or chart cannot be written here."""
    if not PAGE.exists():
        raise UsageError(f"--write-docs works in the repository only: there is no {PAGE}")
    if not PEERS_PYTHON.exists():
        raise UsageError("the chart needs matplotlib in .venv-peers: run `make peers`")


def write_documents(report: Report, page: Path = PAGE, chart: Path = CHART) -> None:
    """Renews the page's part between its marks, and the chart. Raises StreamFlowError if that fails."""
    renew(page, BEGIN, END, _paragraphs(report))
    draw(FOLDER / "chart.py", report, chart)


def renew(page: Path, begin: str, end: str, paragraphs: Iterable[str]) -> None:
    """Replaces what stands between two lines. Raises StreamFlowError if they are not there."""
    text = page.read_text()
    measured = re.compile(f"{re.escape(begin)}.*{re.escape(end)}", re.DOTALL)
    if not measured.search(text):
        raise StreamFlowError(f"{page} has no lines {begin} and {end}")
    page.write_text(measured.sub(lambda _: "\n\n".join((begin, *paragraphs, end)), text))


def draw(script: Path, report: Report, chart: Path) -> None:
    """Raises StreamFlowError if the script cannot draw."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(report, file)
        file.flush()
        done = subprocess.run(  # noqa: S603 (our own command)
            [str(PEERS_PYTHON), str(script), file.name, str(chart)],
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise StreamFlowError(f"the chart cannot be drawn: {done.stderr.strip()[-300:]}")


def _paragraphs(report: Report) -> Iterator[str]:
    comparisons = report["peers"]
    loads = [
        run["load_before"]
        for comparison in comparisons
        for contender in comparison["contenders"]
        for run in contender["runs"]
    ]
    yield conditions(report, loads)
    for comparison in comparisons:
        path = PATHS[PathName(comparison["path"])]
        yield f"### {path.text}"
        yield _figures(comparison)
        yield (
            f"Raw limit: {path.raw}, {spread_text(comparison['raw'], ',.0f')} events/s; StreamFlow's rate is "
            f"{spread_text(comparison['raw_ratio'], '.2f')} of it."
        )
    yield "### What was compared"
    yield table(
        ("path", "program", "after a crash, and invalid records", "settings", "versions"),
        (
            (comparison["path"], each["name"], each["guarantee"], each["settings"], _versions(each))
            for comparison in comparisons
            for each in comparison["contenders"]
        ),
    )


def conditions(report: Report, loads: Collection[float]) -> str:
    """When, how often and where it was measured, with load averages before the runs."""
    machine = report["machine"]
    return (
        f"Measured {report['date'][:10]}: {report['events']:,} events, {counted(report['runs'], 'round')}; "
        f"{machine['cores']} cores ({machine['cpu']}), {machine['memory_mb'] / 1000:.0f} GB, broker and "
        f"database on the same machine; load average before a run {min(loads)} to {max(loads)}. Medians, "
        "least and most in brackets."
    )


def _figures(comparison: Report) -> str:
    titles = ("program", "CPU s per million events", "of the hand loop's", "events/s")
    return table(
        (*titles, "cores busy", "peak memory, MB", "same rows"),
        (
            (each["name"], f"not measured: {each['not_measured']}", *[""] * 5)
            if each["not_measured"]
            else (
                each["name"],
                spread_text(each["cpu_s_per_million"], ",.1f"),
                spread_text(each["cpu_of_hand_loop"], ".2f"),
                spread_text(each["events_per_s"], ",.0f"),
                spread_text(each["cores_busy"], ".2f"),
                spread_text(each["memory_peak_mb"], ",.0f"),
                {True: "yes", False: "no", None: ""}[each["rows_equal"]],
            )
            for each in comparison["contenders"]
        ),
    )


def _versions(contender: Report) -> str:
    return ", ".join(f"{name} {version}" for name, version in contender["versions"].items())


def spread_text(values: Mapping[str, float] | None, form: str) -> str:
    if values is None:
        return "unknown"
    text = f"{values['median']:{form}}"
    if values["min"] != values["max"]:
        text += f" ({values['min']:{form}} to {values['max']:{form}})"
    return text


def table(titles: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = (titles, ("---",) * len(titles), *rows)
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)
