"""Words and figures of audited windows, and which values rows tell."""

from collections import Counter
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated
from uuid import UUID

import pytest
from pydantic import BaseModel, Field, HttpUrl

from streamflow import Count, Event, Hashed, Stream, Timestamp, TumblingWindow
from streamflow.audit.progress import _not_begun
from streamflow.audit.report import AuditReport, PendingKind
from streamflow.audit.windows.reconciliation import Reconciliation
from streamflow.audit.windows.values import value_sql
from streamflow.audit.windows.words import group_of, shown
from streamflow.windows.plans import plans_of
from streamflow.windows.progress import Progress, WindowProgress


def test_groups_have_words_of_their_own() -> None:
    columns = ("country", "address_city")
    groups = [
        ("DE", "Köln"),
        ("DE", None),
        ("DE", "(null)"),
        ("DE", ""),
        ("DE address_city=Köln", None),
        ("DE", 'a"b'),
        ("DE", "a b"),
        (None, None),
    ]
    words = [group_of(columns, group, blurred=False) for group in groups]
    assert len(set(words)) == len(words)
    assert words[:2] == ["country=DE address_city=Köln", "country=DE address_city=(null)"]
    assert group_of(columns, (None, None), blurred=True) == "(all)"
    assert group_of((), (None,), blurred=False) == ""
    numbers = group_of("ab", (Decimal("1.50"), UUID(int=1)), blurred=False)
    assert numbers == "a=1.5 b=00000000-0000-0000-0000-000000000001"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "null"),
        (Decimal("1E-7"), "0.0000001"),
        (datetime(2026, 3, 1, tzinfo=UTC), "2026-03-01T00:00:00.000000Z"),
        (date(2026, 3, 1), "2026-03-01"),
        ("x" * 200, "x" * 100 + "…"),
    ],
)
def test_values_are_shown_short_and_without_exponents(value: object, said: str) -> None:
    assert shown(value) == said


class Inner(BaseModel):
    city: Annotated[str, Field(max_length=10, alias="Stadt")]
    when: Timestamp
    link: HttpUrl


class Visit(Event):
    at: Timestamp
    visitor: Hashed
    inner: Inner | None
    price: Annotated[Decimal, Field(max_digits=8, decimal_places=2)]
    note: str


VISITS = Stream(
    name="visits", contract=Visit, table="visits", key="note", event_time="at",
    windows=[TumblingWindow("10s"), TumblingWindow("10s", by="note", visits=Count())],
)  # fmt: skip


def test_what_rows_do_not_tell() -> None:
    told = {
        path: value_sql(VISITS, path)
        for path in ("visitor", "inner.when", "inner.link", "inner.city", "price", "at", "note")
    }
    assert [path for path, value in told.items() if value is None] == [
        "visitor",
        "inner.when",
        "inner.link",
    ]
    texts = {path: value.as_string() for path, value in told.items() if value is not None}
    assert texts["inner.city"] == """("e"."inner" #>> '{Stadt}')::text"""
    assert texts["price"] == '"e"."price"'
    assert "char_length" in texts["note"]


def test_windows_that_an_older_release_does_not_count_are_not_yet() -> None:
    plans = {"visits": plans_of(VISITS)}
    old = Progress.of_counts(5, 5, None, 0)
    [pending] = _not_begun({("visits", 0): old, ("visits", 1): old}, plans)
    assert (pending.kind, pending.windows) == (PendingKind.NOT_BEGUN, ("visits_10s",))
    assert str(pending).startswith(
        "analytics has not begun to count the windows visits_10s in visits[0], visits[1]"
    )
    [_, plan] = plans["visits"]
    other = WindowProgress(None, 0, digest="another")
    assert _not_begun({("visits", 0): Progress(5, 5, {**old.windows, plan.name: other})}, plans)
    same = WindowProgress(None, 0, digest=plan.digest)
    assert not _not_begun({("visits", 0): Progress(5, 5, {**old.windows, plan.name: same})}, plans)


def test_an_event_in_several_open_windows_is_one() -> None:
    windows = {
        ("visits", 0, "window_counts"): Reconciliation(open=Counter(a=2, b=1)),
        ("visits", 0, "visits_10s"): Reconciliation(open=Counter({"(all)": 2})),
        ("visits", 1, "visits_10s"): Reconciliation(open=Counter({"(all)": 4})),
    }
    report = AuditReport(partitions=[], windows=windows)
    assert report.in_open_windows == 7
    assert list(report.as_dict()["windows"]) == [
        "visits[0]",
        "visits[0] visits_10s",
        "visits[1] visits_10s",
    ]
