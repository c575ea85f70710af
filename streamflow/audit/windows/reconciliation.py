"""What the comparison of one source partition's windows with its events has found."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, NamedTuple

from streamflow.audit.gap_ledger import Range
from streamflow.audit.problems import MOST_LISTED, Problem, ProblemKind
from streamflow.audit.window_ledger import Cell, CellDifference, cell_difference
from streamflow.flow import Partition
from streamflow.units import counted
from streamflow.windows.progress import COUNTS

_ADVICE: Final = (
    '; once you know why (docs/audit.md, "Differing windows"), run `streamflow audit --acknowledge`'
)
_BEGUN_ANEW: Final = " (these windows began anew at offset {:,})"
# The windows of a source partition: its topic, its number, and the table that they are counted into.
WindowsOf = tuple[str, int, str]


def words_of(windows: WindowsOf) -> str:
    """Such as ``orders[0]`` of those without aggregates, and ``orders[0] orders_10s`` of others."""
    topic, partition, table = windows
    return f"{topic}[{partition}]" if table == COUNTS else f"{topic}[{partition}] {table}"


@dataclass(kw_only=True)
class Reconciliation:
    """Window counts of one source partition compared with its events, by type.

    Attributes:
        events: by type, from the events.
        counted: by type, from the windows.
        open: events by type that were read but whose windows are still open.
        cells: number of (window, type) cells that were emitted.
        too_late: events that came after `late_after`, and are in no aggregate.
        lost: events that are uncounted because of acknowledged gaps.
        acknowledged: the differences that were acknowledged and are as they were, by window and type.
        overdue: whether the watermark has passed a window that is still open.
        first_end: of the windows that are still open, in milliseconds since the epoch.
        differences: the cells that differ, by window and type; at most a thousand.
        differing: the number of all cells that differ.
        uncounted: for each cell with too low a count, the range of its events' offsets.
        differing_cells: all cells that differ.
    """

    events: Counter[str] = field(default_factory=Counter)
    counted: Counter[str] = field(default_factory=Counter)
    open: Counter[str] = field(default_factory=Counter)
    cells: int = 0
    too_late: int = 0
    lost: int = 0
    acknowledged: dict[Cell, int] = field(default_factory=dict)
    overdue: bool = False
    first_end: float = math.inf
    differences: list[Problem] = field(default_factory=list)
    differing: int = 0
    uncounted: list[Range] = field(default_factory=list)
    differing_cells: list[CellDifference] = field(default_factory=list)

    @property
    def difference(self) -> int:
        """The number of events, without that of those that were counted."""
        return self.events.total() - self.counted.total()

    @property
    def window_differences(self) -> int:
        """Events in acknowledged differences, counted too few or too many."""
        return sum(map(abs, self.acknowledged.values()))

    def note(self, problem: Problem) -> None:
        """Counts a difference, and lists it unless there are too many."""
        self.differing += 1
        if len(self.differences) < MOST_LISTED:
            self.differences.append(problem)


class CellFigures(NamedTuple):
    """Numbers of one cell: a window, and a group in it.

    Attributes:
        events: that were emitted, as the events tell.
        counted: as the windows tell.
        in_gap: of the events, those in acknowledged gaps.
        still_open: events that were read, and are not emitted yet.
        latest: how far the events let the watermark come, in milliseconds since the epoch.
        offsets: of the first and the last of the events.
        unproved: of the events and of what was counted, those that no audit has proved.
        span: first and end offset of the events, or of what was counted.
    """

    events: int
    counted: int
    in_gap: int
    still_open: int
    latest: int | None
    offsets: tuple[int | None, int | None]
    unproved: Sequence[int]
    span: Sequence[int]


@dataclass(kw_only=True, slots=True)
class CellJudge:
    """Compares the counts of cells, one after the other.

    Attributes:
        table: of the windows, in words; empty for those without aggregates.
        acknowledged: differences that were acknowledged.
        begun: the offset at which the windows began, perhaps anew.
    """

    partition: Partition
    table: str = ""
    begun: int = 0
    acknowledged: Mapping[Cell, int]
    compared: Reconciliation = field(default_factory=Reconciliation)
    latest: float = -math.inf
    first_open: float = math.inf

    def judge(self, start: datetime, group: str, figures: CellFigures, by: str) -> bool:
        """Whether each event of a cell is counted. Totals are kept `by` a type, or all together."""
        compared = self.compared
        if figures.latest is not None:
            self.latest = max(self.latest, figures.latest)
        if figures.still_open:
            compared.open[by] += figures.still_open
            self.first_open = min(self.first_open, start.timestamp() * 1000)
        if not (figures.events or figures.counted):
            return False
        compared.cells += 1
        compared.events[by] += figures.events
        compared.counted[by] += figures.counted
        known, difference = (
            self.acknowledged.get((start, group), 0),
            figures.events - figures.counted,
        )
        more = difference
        if known and not 0 <= more <= figures.in_gap:
            more -= known
        if 0 <= more <= figures.in_gap:
            compared.lost += more
            if more != difference:
                compared.acknowledged[start, group] = known
        else:
            self._note(start, group, figures, known)
        return not difference

    def _note(self, start: datetime, group: str, figures: CellFigures, known: int) -> None:
        compared, (low, high) = self.compared, figures.offsets
        difference = figures.events - figures.counted
        if difference > 0 and low is not None and high is not None:
            compared.uncounted.append((low, high + 1))
        found = cell_difference(
            (start, group), difference, known, figures.in_gap, figures.unproved, figures.span
        )
        compared.differing_cells.append(found)
        advice = _ADVICE if found.acknowledgeable else ""
        if difference > 0 and low is not None and low < self.begun:
            advice = _BEGUN_ANEW.format(self.begun) + advice
        self.note(
            start,
            group,
            figures,
            f"{counted(figures.events, 'event')}, {figures.counted} counted{advice}",
            difference - known if known else difference,
        )

    def note(
        self, start: datetime, group: str, figures: CellFigures, what: str, count: int
    ) -> None:
        topic, partition = self.partition
        low, high = figures.offsets
        table = f"{self.table} " if self.table else ""
        window = f"window {table}{start:%Y-%m-%dT%H:%M:%SZ}"
        of_group = f" {group}" if group else ""
        problem = Problem(
            kind=ProblemKind.WINDOW_DIFFERS,
            topic=topic,
            partition=partition,
            offset=low,
            end_offset=None if high is None else high + 1,
            count=abs(count),
            detail=f"{window}{of_group}: {what}",
            without_values=f"{window}: `streamflow audit` says what differs" if self.table else "",
        )
        self.compared.note(problem)

    def note_elsewhere(self, number: int, what: str) -> None:
        """Notes parts that are of none of the stream's partitions."""
        parts = f"{self.table} has {counted(number, 'part')}"
        problem = Problem(
            kind=ProblemKind.WINDOW_DIFFERS,
            topic=self.partition[0],
            count=number,
            detail=f"{parts} {what}, which the stream does not read or write, and the totals count them",
        )
        self.compared.note(problem)

    def finish(self, size_ms: int, grace_ms: float) -> Reconciliation:
        """Once all cells were judged."""
        compared = self.compared
        compared.first_end = self.first_open + size_ms
        compared.overdue = compared.first_end + grace_ms <= self.latest
        return compared
