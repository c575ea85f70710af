"""What the Windows page shows of windows with aggregates, compared with the view of their totals and with
plain Python over the events."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

import session_streams
from loads import FakeRecord, Load, execute, rows
from session_streams import CITIES, CUSTOMERS, PURCHASES, purchase
from streamflow.groups import group_text
from streamflow.postgres import schema
from streamflow.postgres.connections import Connection
from streamflow.postgres.sessions.compute import (
    EVERYTHING,
    SessionSql,
    collect_changed,
    lock,
    recompute,
)
from streamflow.postgres.windows.tables import window_tables
from streamflow.records import Origin
from streamflow.settings import Settings
from streamlit_app.records import window_totals as limits
from streamlit_app.records.session_totals import session_totals
from streamlit_app.records.traces import trace
from streamlit_app.records.window_choice import aggregates_of
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

FIVE_MINUTES, TEN_MINUTES = timedelta(minutes=5), timedelta(minutes=10)
END = NOON + TEN_MINUTES
TABLES = {table.name: table for table in window_tables(ORDERS)}


@pytest.fixture
def placed(database: Settings) -> list[Placed]:
    """Events of ten minutes, in windows of both tables."""
    made = orders(900)
    store(database, [part for name in TABLES for part in parts_of(made, name)])
    return made


def store(settings: Settings, parts: Sequence[dict[str, Any]]) -> None:
    schema.upgrade(settings, [ORDERS])
    load = Load(settings, [ORDERS])
    try:
        load.load([record(offset, part) for offset, part in enumerate(parts)])
        assert load.delivered == []
    finally:
        load.sink.close()


def asked(
    settings: Settings, name: str, aggregate: str, span: timedelta, end: datetime | None = END
) -> WindowTotals:
    chosen = aggregates_of(TABLES[name])[aggregate]
    return window_totals(settings, TABLES[name], chosen, span, end)


def label(*group: Any) -> str:
    return " · ".join(map(group_text, group))


def rounded(values: Sequence[Any]) -> tuple[Any, ...]:
    """A mean has more digits than Python's."""
    return tuple(round(value, 10) if isinstance(value, Decimal) else value for value in values)


def cells(found: WindowTotals) -> dict[tuple[datetime, str], Any]:
    made = {(cell.start, cell.group): (rounded(cell.values), cell.counted) for cell in found.cells}
    assert len(made) == len(found.cells)
    return made


def of_view(name: str, aggregate: str, view: dict[Any, dict[str, Any]]) -> dict[Any, Any]:
    """What cells must be, by rows of the view."""
    columns = aggregates_of(TABLES[name])[aggregate].columns
    return {
        (start, label(*group)): (rounded([row[column] for column in columns]), row["counted"])
        for (start, *group), row in view.items()
    }


@pytest.mark.usefixtures("placed")
def test_windows_are_those_of_the_view(database: Settings) -> None:
    view = shown(database, TUMBLING)
    for aggregate in aggregates_of(TABLES[TUMBLING]):
        found = asked(database, TUMBLING, aggregate, TEN_MINUTES)
        assert found.step == timedelta(seconds=10)
        expected = of_view(TUMBLING, aggregate, view)
        assert others_apart(found) == others_in(found, expected), aggregate


def test_windows_that_are_put_together_are_of_all_their_events(
    database: Settings, placed: list[Placed]
) -> None:
    """Thirteen hours have more windows of ten seconds than a chart has points."""
    expected = totals(placed, TUMBLING, FIVE_MINUTES)
    whole = totals(placed, TUMBLING, timedelta(days=1))
    for aggregate in aggregates_of(TABLES[TUMBLING]):
        found = asked(database, TUMBLING, aggregate, timedelta(hours=13))
        assert found.step == FIVE_MINUTES
        rows = of_view(TUMBLING, aggregate, expected)
        assert others_apart(found) == others_in(found, rows), aggregate
        day = {group: row for (_, group), row in of_view(TUMBLING, aggregate, whole).items()}
        for total in found.totals:
            if not total.is_others:
                assert (rounded(total.values), total.counted) == day[total.group], aggregate
        assert sum(total.counted for total in found.totals) == len(placed)


@pytest.mark.parametrize(("hours", "step"), [(1, 60), (5, 120), (24, 600)])
def test_windows_that_overlap_are_whole_or_left_out(
    database: Settings, placed: list[Placed], hours: int, step: int
) -> None:
    complete = {
        key: row
        for key, row in shown(database, HOPPING).items()
        if (key[0] - NOON) % timedelta(seconds=step) == timedelta(0)
        and key[0] + FIVE_MINUTES <= END
    }
    for aggregate in aggregates_of(TABLES[HOPPING]):
        found = asked(database, HOPPING, aggregate, timedelta(hours=hours))
        assert found.step == timedelta(seconds=step)
        assert others_apart(found) == others_in(found, of_view(HOPPING, aggregate, complete))
        # Of the totals no event is in two.
        assert sum(total.counted for total in found.totals) == len(placed)


def others_apart(found: WindowTotals) -> dict[Any, Any]:
    """The cells of groups that are shown by themselves."""
    return {key: cell for key, cell in cells(found).items() if "more groups" not in key[1]}


def others_in(found: WindowTotals, expected: dict[Any, Any]) -> dict[Any, Any]:
    named = {total.group for total in found.totals}
    return {key: cell for key, cell in expected.items() if key[1] in named}


def test_groups_without_a_colour_are_one_group_of_all_their_events(
    database: Settings, placed: list[Placed]
) -> None:
    """There are ten; the median of the others is that of their events, not a mean of medians."""
    by_events: dict[str, list[Placed]] = {}
    for each in placed:
        by_events.setdefault(label(each.order.country, each.order.address.city), []).append(each)
    most = sorted(by_events, key=lambda group: -len(by_events[group]))
    for aggregate in aggregates_of(TABLES[HOPPING]):
        found = asked(database, HOPPING, aggregate, timedelta(days=1))
        *named, others = found.totals
        number = len(by_events) - len(named)
        assert (others.group, others.is_others) == (f"{number} more groups", True)
        assert sorted(len(by_events[total.group]) for total in named) == sorted(
            len(by_events[group]) for group in most[: len(named)]
        )
        rest = [
            each._replace(order=each.order.model_copy(update={"country": "rest"}))
            for each in placed
            if label(each.order.country, each.order.address.city)
            not in {total.group for total in named}
        ]
        assert others.counted == len(rest)
        if aggregate in TABLES[TUMBLING].spec.aggregates:
            whole = totals(rest, TUMBLING, timedelta(days=1))
            [(values, _)] = of_view(TUMBLING, aggregate, whole).values()
            assert rounded(others.values) == values[: len(others.values)], aggregate


@pytest.mark.usefixtures("placed")
def test_windows_that_overlap_have_totals_of_all_that_is_in_them(database: Settings) -> None:
    """The last events came three minutes before."""
    found = asked(database, HOPPING, "orders", timedelta(minutes=1), END + timedelta(minutes=3))
    assert {cell.start for cell in found.cells} == {END - timedelta(minutes=2)}
    assert {cell.group for cell in found.cells} == {total.group for total in found.totals}


@pytest.mark.usefixtures("placed")
def test_what_is_too_much_to_read_is_left_out(
    database: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = asked(database, TUMBLING, "orders", TEN_MINUTES)
    monkeypatch.setattr(limits, "MOST_PARTS", 200)
    found = asked(database, TUMBLING, "orders", TEN_MINUTES)

    assert found.is_cut
    assert found.since is not None
    assert NOON < found.since < END
    # What is shown is complete, and its totals are of what is shown.
    since = found.since
    assert cells(found) == {key: cell for key, cell in cells(whole).items() if key[0] >= since}
    assert sum(total.counted for total in found.totals) == sum(c.counted for c in found.cells)

    # Side by side there are as many as may be read.
    monkeypatch.setattr(limits, "MOST_PARTS", 400)
    overlapping = asked(database, HOPPING, "orders", timedelta(hours=1))
    assert (overlapping.is_cut, overlapping.step) == (True, FIVE_MINUTES)
    assert overlapping.cells
    last = {
        key: row for key, row in shown(database, HOPPING).items() if key[0] == END - FIVE_MINUTES
    }
    assert others_apart(overlapping) == others_in(overlapping, of_view(HOPPING, "orders", last))


def test_corrections_and_what_came_too_late_are_counted(database: Settings) -> None:
    part = next(parts_of(orders(1), TUMBLING))
    late = part | {
        "late": True, "first_offset": 5, "last_offset": 9, "counted": 2, "too_late": 3,
    }  # fmt: skip
    store(database, [part | {"late": False}, late])

    found = asked(database, TUMBLING, "orders", TEN_MINUTES)
    assert [(cell.counted, cell.late) for cell in found.cells] == [(3, 2)]
    assert (found.too_late, found.totals[0].late) == (3, 2)


@pytest.mark.usefixtures("placed")
def test_it_follows_the_newest_window_that_has_begun(database: Settings) -> None:
    ahead = next(parts_of(orders(1, partitions=1), TUMBLING))
    ahead |= {"window_start": "2126-03-01T00:00:00Z", "window_end": "2126-03-01T00:00:10Z"}
    store(database, [ahead | {"partition": 9}])

    found = asked(database, TUMBLING, "orders", TEN_MINUTES, None)
    newest = max(start for start, _ in shown(database, TUMBLING) if start < END)
    assert (found.end, found.ahead) == (newest + timedelta(seconds=10), 1)


def test_tables_that_are_not_there_or_of_other_windows_are_refused_in_words(
    database: Settings,
) -> None:
    assert "run `streamflow db upgrade`" in asked(database, TUMBLING, "orders", TEN_MINUTES).refusal
    schema.upgrade(database, [ORDERS])
    assert asked(database, TUMBLING, "orders", TEN_MINUTES, None) == WindowTotals()
    execute(
        database,
        "UPDATE window_tables SET declaration = jsonb_set(declaration, '{aggregates}', '{}')"
        f" WHERE table_name = '{TUMBLING}'",
    )
    refusal = asked(database, TUMBLING, "orders", TEN_MINUTES).refusal
    assert "revenue" in refusal
    assert "give the windows another name" in refusal


MADE = [
    purchase(number, number % 7 * 4_000 + number, f"c{number % 9}", total=number, weight=number / 8)
    for number in range(200)
]


@pytest.fixture
def sessions(database: Settings, connection: Connection) -> list[dict[str, Any]]:
    schema.upgrade(database, [PURCHASES])
    session_streams.insert(connection, MADE)
    with connection.transaction():
        parts = SessionSql(CUSTOMERS)
        lock(connection, parts)
        collect_changed(connection, parts, EVERYTHING)
        recompute(connection, parts)
    return session_streams.expected(MADE, CUSTOMERS)


def test_sessions_add_up_or_are_shown_one_by_one(
    database: Settings, sessions: list[dict[str, Any]]
) -> None:
    span = timedelta(days=1)
    for name, chosen in aggregates_of(CUSTOMERS).items():
        found = session_totals(database, CUSTOMERS, chosen, span, None)
        assert found.computed_at is not None
        assert sum(total.number for total in found.totals) == len(sessions)
        if chosen.adds_up:
            [column] = chosen.columns
            wanted = sum(row[column] or 0 for row in sessions)
            assert sum(cell.values[0] or 0 for cell in found.cells) == pytest.approx(wanted)
            assert sum(total.values[0] or 0 for total in found.totals) == pytest.approx(wanted)
            continue
        shown_ones = {(c.start, c.end, c.group): c.values for c in found.cells}
        assert shown_ones == {
            (row["session_start"], row["session_end"], row["customer"]): tuple(
                row[column] for column in chosen.columns
            )
            for row in sessions
        }, name


@pytest.mark.usefixtures("sessions")
def test_an_event_is_traced_to_its_sessions(database: Settings) -> None:
    event = MADE[20]
    found = trace(database, [PURCHASES], event.origin)
    [session] = found.parts[CUSTOMERS.name]
    assert (session.group, session.start <= event.event.at < session.end) == ("c2", True)
    assert found.parts[CITIES.name] == ()  # not computed yet


def traced_event(settings: Settings, placed: list[Placed]) -> Placed:
    """An event of whose window and group there are parts with other offsets only, too."""
    offsets = rows(
        settings,
        f"SELECT partition, window_start, country, array_agg(first_offset), array_agg(last_offset)"
        f" FROM {TUMBLING} GROUP BY 1, 2, 3 HAVING count(*) > 1 AND country = 'DE'",
    )
    for partition, start, country, first, last in offsets:
        for each in placed:
            if (
                (each.partition, each.order.country) == (partition, country)
                and start <= each.order.at < start + timedelta(seconds=10)
                and not all(a <= each.offset <= b for a, b in zip(first, last, strict=True))
            ):
                return each
    raise AssertionError("choose another seed")


def test_an_event_is_traced_to_its_windows(database: Settings, placed: list[Placed]) -> None:
    each = traced_event(database, placed)
    load = Load(database, [ORDERS])
    try:
        load.load(
            [
                FakeRecord(
                    each.offset, ORDERS.encode(each.order)[1], topic=ORDERS.topic,
                    partition=each.partition,
                )
            ]
        )  # fmt: skip
    finally:
        load.sink.close()
    found = trace(database, [ORDERS], Origin(ORDERS.topic, each.partition, each.offset))
    for name, table in TABLES.items():
        parts = found.parts[name]
        assert parts
        for part in parts:
            assert part.start <= each.order.at < part.end
            own = [each.order.country, each.order.address.city][: len(table.by)]
            assert part.group == label(*own)
    # Of the same group and window, but of other offsets, are none.
    own_group = (
        f"SELECT count(*) FILTER (WHERE {each.offset} BETWEEN first_offset AND last_offset), count(*)"
        f" FROM {TUMBLING} WHERE partition = {each.partition} AND window_start <= '{each.order.at}'"
        f" AND window_end > '{each.order.at}' AND country = '{each.order.country}'"
    )
    [(wanted, every)] = rows(database, own_group)
    assert len(found.parts[TUMBLING]) == wanted < every
