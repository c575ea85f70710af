"""Comparing the two sides of a cell: what its events tell, and what its parts tell. Pure."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from streamflow.audit.windows.exact import ExactAggregate
from streamflow.audit.windows.reconciliation import CellFigures, CellJudge
from streamflow.audit.windows.words import group_of, shown
from streamflow.groups import ALL

FIGURES: Final[Sequence[tuple[str, str, str]]] = (  # name, of events, of parts
    ("total", "count(*) FILTER (WHERE emitted)", "sum(counted + too_late)::bigint"),
    ("too late", "0::bigint", "sum(too_late)::bigint"),
    ("lost", "count(*) FILTER (WHERE emitted AND lost)", "0"),
    ("open", "count(*) FILTER (WHERE NOT emitted AND NOT lost)", "0"),
    (
        "latest",
        """
        floor(1000 * date_part('epoch', max(least(event_time, appended_at)) FILTER (WHERE NOT ahead)))::bigint
        """,
        "NULL",
    ),
    ("first", "min(position) FILTER (WHERE emitted)", "min(first_offset)"),
    ("last", "max(position) FILTER (WHERE emitted)", "max(last_offset)"),
    (
        "unproved",
        """
        count(*) FILTER (WHERE emitted AND NOT lost
                           AND (position >= %(proved)s OR position < %(proved_from)s))
        """,
        """
        coalesce(sum(counted + too_late)
                 FILTER (WHERE last_offset >= %(proved)s OR first_offset < %(proved_from)s), 0)::bigint
        """,
    ),
)


class _Side(NamedTuple):
    """The figures of a cell, as its events or its parts tell them."""

    total: int = 0
    too_late: int = 0
    lost: int = 0
    still_open: int = 0
    latest: int | None = None
    first: int | None = None
    last: int | None = None
    unproved: int = 0


class Comparison:
    """Compares cell by cell."""

    def __init__(
        self,
        by: Sequence[str],
        aggregates: Sequence[ExactAggregate],
        width: int,
        judge: CellJudge,
    ) -> None:
        """`by`: the columns to group by; `width`: how many stand for the group in a row."""
        self._columns = by
        self._aggregates = aggregates
        self._side = 2 + width
        self._figures = slice(self._side + 1, self._side + 1 + len(FIGURES))
        self._unknown = self._side + 1 + len(FIGURES)
        self._judge = judge

    def cell(self, key: Sequence[Any], sides: Sequence[Sequence[Any]]) -> None:
        start, blurred, *values = key
        told = {row[self._side]: row for row in sides}
        events, parts = (
            _Side(*told[side][self._figures]) if side in told else _Side() for side in (1, 0)
        )
        figures = CellFigures(
            events.total,
            parts.total,
            events.lost,
            events.still_open,
            events.latest,
            (events.first, events.last),
            (events.unproved, parts.unproved),
            _span(events, parts),
        )
        self._judge.compared.too_late += parts.too_late
        group = group_of(self._columns, values, blurred=blurred)
        complete = self._judge.judge(start, group, figures, ALL)
        if complete and (events.first, events.last) != (parts.first, parts.last):
            what = (
                f"its parts are of offsets {parts.first} to {parts.last}, the events have {events.first} to "
                f"{events.last}"
            )
            self._judge.note(start, group, figures, what, figures.events)
        if complete and not blurred and len(told) == len((0, 1)):
            self._compare(start, group, figures, told, parts.too_late)

    def _compare(
        self,
        start: datetime,
        group: str,
        figures: CellFigures,
        told: Mapping[int, Sequence[Any]],
        too_late: int,
    ) -> None:
        for each in self._aggregates:
            if each.condition is not None and told[1][self._unknown + each.condition]:
                continue
            of_events, of_parts = each.values(told[1]), each.values(told[0])
            if too_late:
                if each.within(of_events, of_parts, too_late):
                    continue
                wrong = 0
            elif (first := _first_difference(of_events, of_parts)) is None:
                continue
            else:
                wrong = first
            lost = f" without the {too_late:,} that were too late" if too_late else ""
            what = (
                f"{each.columns[wrong]} is {shown(of_parts[wrong])}, the events give "
                f"{shown(of_events[wrong])}{lost}"
            )
            self._judge.note(start, group, figures, what, figures.events)


def _first_difference(ours: Sequence[Any], theirs: Sequence[Any]) -> int | None:
    return next(
        (place for place, pair in enumerate(zip(ours, theirs, strict=True)) if pair[0] != pair[1]),
        None,
    )


def _span(events: _Side, parts: _Side) -> tuple[int, int]:
    first, last = (
        (events.first, events.last) if events.first is not None else (parts.first, parts.last)
    )
    return first or 0, (last or 0) + 1
