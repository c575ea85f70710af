"""Draws what `streamflow bench --peers` found: chart.py REPORT.json CHART.png."""

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt

COLORS = {"StreamFlow": "#0b6e4f", "hand loop": "#6b7280"}
OTHER = "#b8c4d6"
TITLES = {
    "produce": "Produce a file, addresses hashed",
    "loader": "Events into PostgreSQL",
    "analytics": "Events into 10 s windows",
    "validator": "Events into notifications and dead letters",
}


def draw(axes: Any, comparison: dict[str, Any]) -> None:
    measured = [each for each in comparison["contenders"] if each["cpu_s_per_million"]]
    measured.sort(key=lambda each: -each["cpu_s_per_million"]["median"])
    names = [each["name"] for each in measured]
    spreads = [each["cpu_s_per_million"] for each in measured]
    medians = [spread["median"] for spread in spreads]
    errors = [
        [spread["median"] - spread["min"] for spread in spreads],
        [spread["max"] - spread["median"] for spread in spreads],
    ]
    colors = [COLORS.get(name, OTHER) for name in names]
    axes.barh(names, medians, xerr=errors, color=colors, ecolor="#374151", capsize=2)
    for place, (spread, median) in enumerate(zip(spreads, medians, strict=True)):
        axes.annotate(
            f"{median:.1f}",
            (spread["max"], place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
        )
    axes.set_title(TITLES[comparison["path"]], loc="left", fontsize=11)
    axes.margins(x=0.15)
    axes.spines[["top", "right"]].set_visible(False)


def main(report: Path, chart: Path) -> None:
    comparisons = json.loads(report.read_text())["peers"]
    rows = (len(comparisons) + 1) // 2
    columns = min(2, len(comparisons))
    figure, places = plt.subplots(
        rows, columns, figsize=(5.5 * columns, 2.6 * rows), squeeze=False, layout="constrained"
    )
    flat = list(places.flat)
    for axes, comparison in zip(flat, comparisons, strict=False):
        draw(axes, comparison)
    for axes in flat[len(comparisons) :]:
        axes.set_axis_off()
    figure.supxlabel("seconds of processor time for a million events (less is better)", fontsize=10)
    figure.savefig(chart, dpi=120)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
