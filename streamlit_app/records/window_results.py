"""What the Windows page shows of windows with aggregates."""

from datetime import datetime, timedelta
from typing import Any, NamedTuple

from streamflow.errors import ConfigurationError
from streamflow.postgres.connections import Connection
from streamflow.postgres.partitions import table_exists
from streamflow.postgres.windows.kept_declaration import require_same
from streamflow.windows.results import EPOCH
from streamlit_app.records.window_choice import AggregateTable


class Cell(NamedTuple):
    """Of one group in one or more adjacent windows: an aggregate, how many events it is of, and how many of
    them came late. `values` are as the aggregate's columns."""

    start: datetime
    end: datetime
    group: str
    values: tuple[Any, ...]
    counted: int
    late: int


class GroupTotal(NamedTuple):
    """Of one group in all windows that are shown.

    Attributes:
        number: of sessions.
        is_others: it is all groups that have no place of their own.
    """

    group: str
    values: tuple[Any, ...]
    counted: int
    late: int
    number: int = 0
    is_others: bool = False


class WindowTotals(NamedTuple):
    """An aggregate of windows in a span of time.

    Attributes:
        cells: by time, then group.
        totals: of the groups, the most frequent one first, those that are put together last.
        step: what a cell stands for, or how far apart overlapping windows are that are shown.
        since: the beginning of what is shown, of windows that overlap that of the first one.
        end: of the span; None where there is no window at all.
        is_cut: whether less is shown than was asked for, as there is too much.
        ahead: windows that have not begun yet, of events with future times; at most `MOST_AHEAD`.
        too_late: events that came after `late_after`, and are in no aggregate.
        sessions: the newest ones, newest first, also of groups that have no place among the totals.
        computed_at: when the newest session was computed.
        refusal: why the table cannot be read; empty if it can.
    """

    cells: tuple[Cell, ...] = ()
    totals: tuple[GroupTotal, ...] = ()
    step: timedelta = timedelta(0)
    since: datetime | None = None
    end: datetime | None = None
    is_cut: bool = False
    ahead: int = 0
    too_late: int = 0
    sessions: tuple[Cell, ...] = ()
    computed_at: datetime | None = None
    refusal: str = ""


def refusal_of(connection: Connection, table: AggregateTable) -> str:
    """Why the table of windows cannot be read; empty if it can."""
    if not table_exists(connection, table.name):
        return f"there is no table {table.name} yet: run `streamflow db upgrade`, which creates it"
    try:
        require_same(connection, table)
    except ConfigurationError as error:
        return str(error)
    return ""


def floor(moment: datetime, step: timedelta) -> datetime:
    """The last multiple of a step since the epoch."""
    return moment - (moment - EPOCH) % step


def ceiling(moment: datetime, step: timedelta) -> datetime:
    """The next multiple of a step since the epoch."""
    return moment + (EPOCH - moment) % step
