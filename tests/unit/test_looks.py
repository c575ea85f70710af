"""Whose turn it is to be looked at again, and what may be said of the rest."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamflow.audit import looks
from streamflow.audit.looks import Look

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
FULL = Look(full_at=NOON, at=NOON)


def hours(number: int) -> datetime:
    return NOON + timedelta(hours=number)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 30)), min_size=1, max_size=40))
def test_whatever_is_said_to_be_looked_at_was(audits: list[tuple[int, int]]) -> None:
    """With retention and new records in between, each audit a given number of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(looks, "_LEAST", 7)
        look, first, proved = FULL, 0, 100
        compared = dict.fromkeys(range(proved), NOON)
        for number, (new, removed) in enumerate(audits, 1):
            first = min(proved, first + removed)
            low, high = again = look.next_range(first, proved, new)
            assert first <= low <= high <= proved
            look = look.after(again, first, proved, hours(number))
            compared |= dict.fromkeys(range(low, high), hours(number))
            compared |= dict.fromkeys(range(proved, proved + new), hours(number))
            proved += new
            assert look.at is not None
            assert all(compared[offset] >= look.at for offset in range(first, proved))
            assert look.full_at == NOON


def test_each_record_has_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looks, "_LEAST", 30)
    look, seen = FULL, []
    for number in range(1, 5):
        seen.append(look.next_range(0, 100, 1))
        look = look.after(seen[-1], 0, 100, hours(number))
    assert seen == [(0, 30), (30, 60), (60, 90), (90, 100)]
    # All since the first of them.
    assert look == Look(full_at=NOON, at=hours(1))
    assert look.next_range(0, 100, 60) == (0, 60)


def test_a_log_that_retention_has_emptied_has_nothing_to_look_at() -> None:
    again = FULL.next_range(120, 100, 5)
    assert again == (100, 100)
    assert FULL.after(again, 120, 100, hours(1)).at == hours(1)
