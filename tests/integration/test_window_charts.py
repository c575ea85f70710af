"""What the Windows page shows of windows with aggregates, compared with the view of their totals and with plain
Python over the events."""

from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from loads import Load, execute
from streamflow import Stream
from streamflow.groups import group_text
from streamflow.postgres import schema
from streamflow.postgres.windows.tables import WindowTable, window_tables
from streamflow.settings import Settings
from streamlit_app.records import window_totals as queries
from streamlit_app.records.window_choice import ChosenAggregate, aggregates_of
from streamlit_app.records.window_results import WindowTotals
from streamlit_app.records.window_totals import window_totals
from window_parts import (
    HOPPING,
    NOON,
    ORDERS,
    TUMBLING,
    Placed,
    orders,
    parts_of,
    record,
    shown,
    totals,
)

pytestmark = pytest.mark.integration

TEN_MINUTES = timedelta(minutes=10)
END = NOON + TEN_MINUTES
TABLES = {table.name: table for table in window_tables(ORDERS)}


@pytest.fixture
def placed(database: Settings) -> Iterator[list[Placed]]:
    """Events of ten minutes, in windows of both tables."""
    schema.upgrade(database, [ORDERS])
    made = orders(900)
    contents = [part for name in TABLES for part in parts_of(made, name)]
    load = Load(database, [ORDERS])
    try:
        load.load([record(offset, part) for offset, part in enumerate(contents)])
        assert load.delivered == []
    finally:
        load.sink.close()
    yield made


def asked(
    settings: Settings,
    name: str,
    aggregate: str,
    *,
    end: datetime | None = END,
    span: timedelta = TEN_MINUTES,
) -> WindowTotals:
    chosen = aggregates_of(TABLES[name])[aggregate]
    return window_totals(settings, TABLES[name], chosen, span, end)


def values_of(name: str, row: dict[str, Any], aggregate: str) -> tuple[Any, ...]:
    """The values of an aggregate in a row of the view."""
    columns = aggregates_of(TABLES[name])[aggregate].columns
    return tuple(row[column] for column in columns)


def rounded(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """A mean has more digits than Python's."""
    return tuple(round(value, 10) if isinstance(value, Decimal) else value for value in values)


def label(*group: Any) -> str:
    return " · ".join(map(group_text, group))


@pytest.mark.parametrize("aggregate", aggregates_of(TABLES[TUMBLING]))
def test_windows_are_those_of_the_view(
    database: Settings, placed: list[Placed], aggregate: str
) -> None:
    found = asked(database, TUMBLING, aggregate)

    assert found.step == timedelta(seconds=10)
    assert {(c.start, c.group): rounded(c.values) for c in found.cells} == {
        (start, label(country)): rounded(values_of(TUMBLING, row, aggregate))
        for (start, country), row in shown(database, TUMBLING).items()
    }
    assert sum(cell.counted for cell in found.cells) == len(placed)


@pytest.mark.parametrize("aggregate", aggregates_of(TABLES[TUMBLING]))
def test_coarser_windows_are_of_all_their_events(
    database: Settings, placed: list[Placed], aggregate: str
) -> None:
    """Ten seconds are put together to minutes: 24 hours have more windows than a chart has points."""
    found = asked(database, TUMBLING, aggregate, span=timedelta(hours=8))

    step = timedelta(minutes=5)
    assert found.step == step
    assert {(c.start, c.group): rounded(c.values) for c in found.cells} == {
        (start, label(country)): rounded(values_of(TUMBLING, row, aggregate))
        for (start, country), row in totals(placed, TUMBLING, step).items()
    }
    whole = totals(placed, TUMBLING, timedelta(days=1))
    assert {t.group: rounded(t.values) for t in found.totals} == {
        label(country): rounded(values_of(TUMBLING, row, aggregate))
        for (_, country), row in whole.items()
    }


@pytest.mark.parametrize("aggregate", aggregates_of(TABLES[HOPPING]))
@pytest.mark.parametrize("hours", [1, 5, 24])
def test_overlapping_windows_are_whole_or_left_out(
    database: Settings, placed: list[Placed], aggregate: str, hours: int
) -> None:
    found = asked(database, HOPPING, aggregate, span=timedelta(hours=hours))

    expected = {
        (start, label(*group)): rounded(values_of(HOPPING, row, aggregate))
        for (start, *group), row in shown(database, HOPPING).items()
        if (start - NOON) % found.step == timedelta(0) and start + timedelta(minutes=5) <= END
    }
    assert {1: 60, 5: 120, 24: 600}[hours] == found.step.total_seconds()
    assert {(c.start, c.group): rounded(c.values) for c in found.cells} == expected
    assert all(cell.end - cell.start == timedelta(minutes=5) for cell in found.cells)
    # Of the totals no event is in two.
    assert sum(total.counted for total in found.totals) == len(placed)
