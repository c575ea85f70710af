"""Pieces of HTML. Every value is escaped here, so that no record can write into a page. Pure."""

from collections.abc import Iterable, Sequence
from enum import StrEnum
from html import escape
from typing import Final

from streamflow.lag.verdicts import TROUBLE, LagVerdict


class Tone(StrEnum):
    """What something means; each has a sign as well as a colour."""

    GOOD = "good"
    WARN = "warn"
    BAD = "bad"
    IDLE = "idle"


SIGNS: Final = {Tone.GOOD: "✓", Tone.WARN: "▲", Tone.BAD: "✕", Tone.IDLE: "○"}

VERDICT_TONES: Final = {
    LagVerdict.UNKNOWN: Tone.IDLE,
    LagVerdict.OK: Tone.GOOD,
    LagVerdict.WARN: Tone.WARN,
    **dict.fromkeys(TROUBLE, Tone.BAD),
}

_NARROW: Final = 2  # columns that fit a phone


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


def text(value: object) -> str:
    return value if isinstance(value, Html) else escape(str(value))


def mark(tone: Tone, words: str, title: str = "") -> Html:
    """A sign and words in one colour; `title` appears on hovering."""
    return Html(
        f'<span class="sf-mark sf-{tone}" title="{escape(title)}"><span aria-hidden="true">'
        f"{SIGNS[tone]}</span>{escape(words)}</span>"
    )


def chip(tone: Tone, words: str, title: str = "") -> Html:
    """A sign and a word in a frame."""
    return Html(
        f'<span class="sf-chip sf-{tone}" title="{escape(title)}">{SIGNS[tone]} {escape(words)}</span>'
    )


def soft(words: str) -> Html:
    """Less important words."""
    return Html(f'<span class="sf-soft">{escape(words)}</span>')


def code(words: str) -> Html:
    return Html(f"<code>{escape(words)}</code>")


def line(*pieces: object, data: str = "") -> Html:
    """Pieces one after the other; `data` are attributes for tests."""
    return Html(f'<div class="sf" {data}>{" ".join(map(text, pieces))}</div>')


def link(url: str, words: str) -> Html:
    """A link that opens in a new tab."""
    if not url.startswith(("http://", "https://", "/")):
        return Html(escape(words))
    return Html(f'<a href="{escape(url)}" target="_blank" rel="noopener">{escape(words)}</a>')


def table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], numbers: Sequence[int] = ()
) -> Html:
    """A table; the columns in `numbers` are aligned right. On a phone each row of more than two cells
    becomes a paragraph, in which each cell names its column."""
    kinds = ["sf-num" if index in numbers else "" for index in range(len(columns))]
    head = "".join(
        f'<th class="{kind}">{escape(name)}</th>' for kind, name in zip(kinds, columns, strict=True)
    )
    body = "".join(
        "<tr>"
        + "".join(
            f'<td class="{kind}" data-column="{escape(name)}">{text(cell)}</td>'
            for kind, name, cell in zip(kinds, columns, row, strict=True)
        )
        + "</tr>"
        for row in rows
    )
    wide = " sf-wide" if len(columns) > _NARROW else ""
    return Html(
        f'<div class="sf sf-scroll"><table class="sf-table{wide}"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def banner(tone: Tone, title: str, detail: str) -> Html:
    """A message in a coloured frame."""
    return Html(
        f'<div class="sf sf-banner sf-{tone}" role="alert"><div aria-hidden="true">{SIGNS[tone]}'
        f"</div><div><b>{escape(title)}</b><span>{escape(detail)}</span></div></div>"
    )


def empty(title: object, next_step: str) -> Html:
    """Nothing is here, and what to do about it."""
    return Html(f'<div class="sf sf-empty"><b>{text(title)}</b>{escape(next_step)}</div>')


def timeline(steps: Iterable[tuple[Tone, str, object]]) -> Html:
    items = "".join(
        f'<li><span class="sf-dot sf-{tone}" aria-hidden="true">{SIGNS[tone]}</span>'
        f"<b>{escape(title)}</b><div>{text(detail)}</div></li>"
        for tone, title, detail in steps
    )
    return Html(f'<ul class="sf sf-timeline">{items}</ul>')
