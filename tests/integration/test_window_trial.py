"""Samples through the windows' tables: what `streamflow check` finds, in the temporary schema."""

from collections.abc import Callable
from dataclasses import replace
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import pytest

from conftest import SettingsFactory
from loads import rows, value
from services import DatabaseService
from streamflow import (
    Count,
    Distinct,
    EpochMillis,
    Event,
    First,
    HoppingWindow,
    Last,
    Max,
    Mean,
    Min,
    Quantiles,
    SessionWindow,
    Stream,
    Sum,
    TumblingWindow,
)
from streamflow.postgres import schema
from streamflow.postgres.sessions import trial as sessions_trial
from streamflow.postgres.trial import problems_with_rows
from streamflow.postgres.windows import trial
from streamflow.postgres.windows.tables import total_columns, window_tables
from streamflow.privacy import Hasher
from streamflow.settings import Settings
from streamflow.trial import samples_of
from window_parts import ORDERS

pytestmark = pytest.mark.integration


class Colour(Enum):
    RED = 1


class Every(Event):
    """A field of every type that an aggregate takes."""

    at: EpochMillis
    text: str
    number: int
    large: int | None
    decimal: Decimal
    double: float
    flag: bool
    day: date
    clock: time
    span: timedelta | None
    id: UUID
    colour: Colour


_ORDERED = ("at", "text", "number", "large", "decimal", "double", "day", "clock", "span", "colour")
_NUMBERS = ("number", "large", "decimal", "double", "colour")
_SCALARS = (*_ORDERED, "flag", "id")


def named(fields: tuple[str, ...], *kinds: Callable[[str], Any]) -> dict[str, Any]:
    return {f"{kind.__name__.lower()}_{field}": kind(field) for kind in kinds for field in fields}


EVERY = Stream(
    name="every", contract=Every, table="every", key="text", event_time="at",
    windows=[
        TumblingWindow(
            "1h", by=("text", "number", "decimal", "flag", "day", "id", "colour"),
            aggregates=(
                named(_ORDERED, Min, Max) | named(_SCALARS, First, Last) | named(_NUMBERS, Sum, Mean)
            ),
        ),
        HoppingWindow(
            "3h", every="1h",
            aggregates={
                **{f"distinct_{name}": Distinct(name, lg_k=5) for name in _SCALARS},
                **{f"quantiles_{name}": Quantiles(name, k=8) for name in _NUMBERS},
                "large": Count("large"),
            },
        ),
    ],
)  # fmt: skip


SESSIONS = replace(
    EVERY,
    windows=[
        SessionWindow(
            "1min", by=("text", "number", "decimal", "flag", "day", "id", "colour"),
            aggregates={
                **named(_ORDERED, Min, Max), **named(_SCALARS, First, Last, Distinct),
                **named(_NUMBERS, Sum, Mean, Quantiles), "large": Count("large"),
            },
        ),
        SessionWindow("1d", by="colour", name="every_by_colour", n=Count()),
    ],
)  # fmt: skip


@pytest.mark.parametrize("stream", [EVERY, ORDERS, SESSIONS], ids=["every", "orders", "sessions"])
def test_samples_of_every_type_go_through(database: Settings, stream: Stream) -> None:
    samples = samples_of(stream, Hasher())

    assert len(samples) > 100
    assert problems_with_rows(database, stream, samples) == []
    assert value(database, "SELECT count(*) FROM pg_class WHERE relname LIKE 'every_%'") == 0


@pytest.mark.parametrize("stream", [ORDERS, EVERY], ids=["orders", "every"])
def test_the_columns_of_a_view_are_known(database: Settings, stream: Stream) -> None:
    """Or it would be dropped where it could be replaced."""
    schema.upgrade(database, [stream])
    for table in window_tables(stream):
        found = rows(
            database,
            "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute"
            f" WHERE attrelid = '{table.view}'::regclass AND attnum > 0 ORDER BY attnum",
        )
        assert found == [(column.name, column.type) for column in total_columns(table)]


def test_windows_of_the_most_panes_are_tried_with_few(database: Settings) -> None:
    """Of 1,440 panes, each sample would be added up as often, and the trial run into its time limit."""
    longest = HoppingWindow("1d", every="1min", n=Count(), sizes=Quantiles("weight"))
    shorter = replace(longest, size="12min", name="orders_1d_by_1min")
    [one], [two] = (
        [trial._of_few_panes(table) for table in window_tables(replace(ORDERS, windows=windows))]
        for windows in (longest, shorter)
    )
    assert (one.name, one.spec.size, one.columns) == (two.name, two.spec.size, two.columns)
    stream = replace(ORDERS, windows=longest)
    assert problems_with_rows(database, stream, samples_of(stream, Hasher())) == []


def test_a_part_that_is_lost_is_noticed(
    database: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "copy", lambda *_: None)

    problems = problems_with_rows(database, ORDERS, samples_of(ORDERS, Hasher()))

    assert [problem.part for problem in problems] == ["windows", "windows"]
    assert "orders_10s: their totals count 0 of" in problems[0].text


def test_sessions_are_tried_without_our_schema(
    database_server: DatabaseService, settings: SettingsFactory
) -> None:
    url = database_server.create_database("no_schema_yet")
    try:
        bare = settings(DATABASE_URL=url)
        assert problems_with_rows(bare, SESSIONS, samples_of(SESSIONS, Hasher())) == []
        assert value(bare, "SELECT count(*) FROM pg_class WHERE relname LIKE 'every%'") == 0
    finally:
        database_server.drop_database("no_schema_yet")


def test_sessions_that_cannot_be_computed_are_told(
    database: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = samples_of(SESSIONS, Hasher())
    monkeypatch.setattr(sessions_trial, "_EXACT", "pg_temp.nothing")
    [problem] = problems_with_rows(database, SESSIONS, samples)
    assert (problem.part, problem.field) == ("windows", "every_sessions_1min")
    assert "cannot compute the sessions of samples (function pg_temp.nothing" in problem.text


def test_events_that_are_in_no_session_are_told(
    database: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions_trial, "recompute", lambda *_: None)
    samples = samples_of(SESSIONS, Hasher())
    problems = problems_with_rows(database, SESSIONS, samples)
    assert [problem.field for problem in problems] == ["every_sessions_1min", "every_by_colour"]
    assert "count 0 of " in problems[0].text
