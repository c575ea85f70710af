"""What a comparison found, as the tables and the chart of ``docs/performance.md``."""

import json
import re
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from streamflow.errors import StreamFlowError, UsageError
from streamflow_bench.figures import PATHS, PathName
from streamflow_bench.peers.place import FOLDER
from streamflow_bench.peers.programs import PEERS_PYTHON

_DOCS: Final = FOLDER.parents[1] / "docs"
PAGE: Final = _DOCS / "performance.md"
CHART: Final = _DOCS / "images" / "peers.png"
BEGIN: Final = "<!-- measured: begin, written by `streamflow bench --peers --write-docs` -->"
END: Final = "<!-- measured: end -->"
_MEASURED: Final = re.compile(f"{re.escape(BEGIN)}.*{re.escape(END)}", re.DOTALL)

_Report = Mapping[str, Any]


def require_documents() -> None:
    """Raises UsageError if page or chart cannot be written here."""
    if not PAGE.exists():
        raise UsageError(f"--write-docs works in the repository only: there is no {PAGE}")
    if not PEERS_PYTHON.exists():
        raise UsageError("the chart needs matplotlib in .venv-peers: run `make peers`")


def write_documents(report: _Report, page: Path = PAGE, chart: Path = CHART) -> None:
    """Renews the page's part between its marks, and the chart. Raises StreamFlowError if that fails."""
    text = page.read_text()
    if not _MEASURED.search(text):
        raise StreamFlowError(f"{page} has no lines {BEGIN} and {END}")
    measured = "\n\n".join((BEGIN, *_paragraphs(report), END))
    page.write_text(_MEASURED.sub(lambda _: measured, text))
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(report, file)
        file.flush()
        script = FOLDER / "chart.py"
        done = subprocess.run(  # noqa: S603 (our own command)
            [str(PEERS_PYTHON), str(script), file.name, str(chart)],
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise StreamFlowError(f"the chart cannot be drawn: {done.stderr.strip()[-300:]}")


def _paragraphs(report: _Report) -> Iterator[str]:
    machine = report["machine"]
    comparisons = report["peers"]
    loads = [
        run["load_before"]
        for comparison in comparisons
        for contender in comparison["contenders"]
        for run in contender["runs"]
    ]
    yield (
        f"Measured {report['date'][:10]}: {report['events']:,} events, {report['runs']} rounds; "
        f"{machine['cores']} cores ({machine['cpu']}), {machine['memory_mb'] / 1000:.0f} GB, broker and "
        f"database on the same machine; load average before a run {min(loads)} to {max(loads)}. Medians, "
        "least and most in brackets."
    )
    for comparison in comparisons:
        path = PATHS[PathName(comparison["path"])]
        yield f"### {path.text}"
        yield _figures(comparison)
        yield (
            f"Raw limit: {path.raw}, {_spread(comparison['raw'], ',.0f')} events/s; StreamFlow's rate is "
            f"{_spread(comparison['raw_ratio'], '.2f')} of it."
        )
    yield "### What was compared"
    yield _table(
        ("path", "program", "after a crash, and invalid records", "settings", "versions"),
        (
            (comparison["path"], each["name"], each["guarantee"], each["settings"], _versions(each))
            for comparison in comparisons
            for each in comparison["contenders"]
        ),
    )


def _figures(comparison: _Report) -> str:
    titles = ("program", "CPU s per million events", "of the hand loop's", "events/s")
    return _table(
        (*titles, "cores busy", "peak memory, MB", "same rows"),
        (
            (each["name"], f"not measured: {each['not_measured']}", *[""] * 5)
            if each["not_measured"]
            else (
                each["name"],
                _spread(each["cpu_s_per_million"], ",.1f"),
                _spread(each["cpu_of_hand_loop"], ".2f"),
                _spread(each["events_per_s"], ",.0f"),
                _spread(each["cores_busy"], ".2f"),
                _spread(each["memory_peak_mb"], ",.0f"),
                {True: "yes", False: "no", None: ""}[each["rows_equal"]],
            )
            for each in comparison["contenders"]
        ),
    )


def _versions(contender: _Report) -> str:
    return ", ".join(f"{name} {version}" for name, version in contender["versions"].items())


def _spread(values: Mapping[str, float] | None, form: str) -> str:
    if values is None:
        return "unknown"
    text = f"{values['median']:{form}}"
    if values["min"] != values["max"]:
        text += f" ({values['min']:{form}} to {values['max']:{form}})"
    return text


def _table(titles: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = (titles, ("---",) * len(titles), *rows)
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)
