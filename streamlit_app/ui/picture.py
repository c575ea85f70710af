"""The flow as a picture: SVG with live figures, in the colours of the theme. Pure but for `draw`."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from html import escape
from typing import Any, Final

import streamlit as st

from streamlit_app.ui.markup import SIGNS, Tone


@dataclass(frozen=True, slots=True)
class Box:
    """A part of the flow at a place of the picture; `kind` is topic, worker or store."""

    name: str
    kind: str
    x: int
    y: int
    tone: Tone
    lines: tuple[str, str]


@dataclass(frozen=True, slots=True)
class Edge:
    """What flows from one box to another; its label is `at` 0 to 1 along the line."""

    start: str
    end: str
    label: str
    tone: Tone
    flows: bool
    at: float


WIDTH: Final = 166
HEIGHT: Final = 66


def svg(boxes: Mapping[str, Box], edges: list[Edge], width: int, height: int, title: str) -> str:
    """The picture as markup; everything in it is escaped."""
    lines = "".join(_edge(boxes[edge.start], boxes[edge.end], edge) for edge in edges)
    shapes = "".join(_box(box) for box in boxes.values())
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}">'
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7"'
        ' orient="auto-start-reverse"><path d="M0 0L8 4L0 8z" class="tip"/></marker></defs>'
        f"{lines}{shapes}</svg>"
    )


def _box(box: Box) -> str:
    radius = {"topic": 8, "worker": 33, "store": 3}[box.kind]
    texts = "".join(
        f'<text x="{box.x + WIDTH / 2}" y="{box.y + 41 + 15 * number}" class="line">'
        f"{escape(line)}</text>"
        for number, line in enumerate(box.lines)
    )
    return (
        f'<g class="box {box.kind} {box.tone}"><title>{escape(box.name)}: {escape(box.kind)}</title>'
        f'<rect x="{box.x}" y="{box.y}" width="{WIDTH}" height="{HEIGHT}" rx="{radius}"/>'
        f'<text x="{box.x + WIDTH / 2}" y="{box.y + 22}" class="name">'
        f'<tspan class="sign">{SIGNS[box.tone]}</tspan> {escape(box.name)}</text>{texts}</g>'
    )


def _edge(start: Box, end: Box, edge: Edge) -> str:
    x1, y1, x2, y2 = _ends(start, end)
    if start.x == end.x:
        path = f"M{x1} {y1}L{x2} {y2}"
    else:
        middle = (x1 + x2) / 2
        path = f"M{x1} {y1}C{middle} {y1} {middle} {y2} {x2} {y2}"
    flow = " flows" if edge.flows else ""
    x, y = x1 + (x2 - x1) * edge.at, y1 + (y2 - y1) * edge.at
    wide = 7.1 * len(edge.label) + 12
    return (
        f'<g class="edge {edge.tone}{flow}"><path d="{path}" marker-end="url(#tip)"/>'
        f'<rect class="plate" x="{x - wide / 2:.0f}" y="{y - 10:.0f}" width="{wide:.0f}" height="19"'
        f' rx="9"/><text x="{x:.0f}" y="{y + 4:.0f}" class="label">{escape(edge.label)}</text></g>'
    )


def _ends(start: Box, end: Box) -> tuple[float, float, float, float]:
    """From the side of one box to the near side of the other."""
    if start.x == end.x:
        down = end.y > start.y
        x = start.x + WIDTH / 2
        return (x, start.y + HEIGHT, x, end.y - 2) if down else (x, start.y, x, end.y + HEIGHT + 2)
    forward = end.x > start.x
    x1, x2 = (start.x + WIDTH, end.x - 2) if forward else (start.x, end.x + WIDTH + 2)
    return x1, start.y + HEIGHT / 2, x2, end.y + HEIGHT / 2


# Colours are those of `style`, which reach into the component.
_STYLE: Final = """
svg { width: 100%; min-width: 780px; height: auto; display: block; font-family: inherit; }
.wrap { overflow-x: auto; color-scheme: inherit; --idle: light-dark(#8b97a3, #66727e);
  --fill: light-dark(#f6f8fa, #1a242e); }
.good { --tone: var(--sf-good); } .warn { --tone: var(--sf-warn); }
.bad { --tone: var(--sf-bad); } .idle { --tone: var(--idle); }
.box rect { fill: var(--fill); stroke: var(--tone); stroke-width: 1.6; }
.box.store rect { stroke-width: 2.4; }
text { fill: var(--sf-text); text-anchor: middle; font-variant-numeric: tabular-nums; }
.name { font-size: 14px; font-weight: 600; } .sign { fill: var(--tone); }
.line { font-size: 12px; fill: var(--sf-soft); }
.label { font-size: 12px; } .plate { fill: var(--sf-card); }
.edge path { fill: none; stroke: var(--idle); stroke-width: 1.7; }
.edge.warn path, .edge.bad path { stroke: var(--tone); }
.edge.flows path { stroke: var(--sf-accent); stroke-dasharray: 7 5;
  animation: flow 1.1s linear infinite; }
.tip { fill: var(--sf-soft); stroke: none; }
@keyframes flow { from { stroke-dashoffset: 12; } to { stroke-dashoffset: 0; } }
@media (prefers-reduced-motion: reduce) { .edge.flows path { animation: none; } }
"""

_SCRIPT: Final = """
export default function ({ data, parentElement }) {
  const place = parentElement.querySelector(".wrap");
  const holder = document.createElement("template");
  holder.innerHTML = data.markup;
  const next = holder.content.firstElementChild;
  const now = place.firstElementChild;
  if (!now || now.querySelectorAll("*").length !== next.querySelectorAll("*").length) {
    place.replaceChildren(next);
    return;
  }
  // The same picture with other figures: only those change, so that nothing flickers.
  const olds = now.querySelectorAll("*"), news = next.querySelectorAll("*");
  for (let i = 0; i < news.length; i++) {
    for (const { name, value } of news[i].attributes)
      if (olds[i].getAttribute(name) !== value) olds[i].setAttribute(name, value);
    if (!news[i].children.length && olds[i].textContent !== news[i].textContent)
      olds[i].textContent = news[i].textContent;
  }
}
"""


@cache
def _component() -> Any:
    return st.components.v2.component(
        "streamflow_picture", html='<div class="wrap"></div>', css=_STYLE, js=_SCRIPT
    )


def draw(markup: str, key: str) -> None:
    _component()(data={"markup": markup}, key=key)
