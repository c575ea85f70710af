"""Draws what `streamflow bench --growth` found: growth_chart.py REPORT.json CHART.png."""

import json
import sys
from itertools import groupby
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt

COLORS = {"loader": "#0b6e4f", "analytics": "#c2571a", "validator": "#4059ad"}


def draw(axes: Any, growths: list[dict[str, Any]]) -> None:
    """One dimension: a line for each part."""
    for growth in growths:
        known = [step for step in growth["steps"] if step["cpu_us_per_event"]]
        costs = [step["cpu_us_per_event"]["median"] for step in known]
        names = [f"{step['step']:,}" for step in known]
        axes.plot(names, costs, "o-", color=COLORS[growth["part"]], label=growth["part"])
    axes.set_title(growths[0]["unit"], loc="left", fontsize=11)
    axes.set_ylim(bottom=0)
    axes.spines[["top", "right"]].set_visible(False)


def main(report: Path, chart: Path) -> None:
    found = json.loads(report.read_text())["growth"]
    dimensions = [list(each) for _, each in groupby(found, lambda growth: growth["dimension"])]
    columns = min(3, len(dimensions))
    rows = -(-len(dimensions) // columns)
    figure, places = plt.subplots(
        rows, columns, figsize=(3.7 * columns, 2.6 * rows), squeeze=False, layout="constrained"
    )
    flat = list(places.flat)
    for axes, growths in zip(flat, dimensions, strict=False):
        draw(axes, growths)
    for axes in flat[len(dimensions) :]:
        axes.set_axis_off()
    flat[0].legend(frameon=False, fontsize=9)
    figure.supylabel("µs of processor time for an event", fontsize=10)
    figure.savefig(chart, dpi=120)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
