"""A list of dead letters stands still, and a plan is asked for just what it shows."""

from datetime import UTC, datetime, timedelta

import pytest

from streamflow.dead_letters.select import DeadLetterSummary, Selection, Status
from streamflow.privacy import Hasher
from streamflow.records import Origin
from streamlit_app.access.replaying import scope
from streamlit_app.records.pinned import DeadLetterFilter, PinnedList
from streamlit_app.records.queries import DeadLetters

ABOVE = "the filter above"
NEWEST = "of which the newest 200 are shown"
NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)


def letter(offset: int, status: str = "open") -> DeadLetterSummary:
    place = Origin("user-events", 0, offset)
    return DeadLetterSummary(
        place, place, "EMPTY_VALUE", status, 0, "validator", "empty", NOW, 0, b""
    )


def content(*offsets: int) -> DeadLetters:
    return DeadLetters(tuple(map(letter, offsets)), {Status.OPEN: len(offsets)}, NOW)


def pinned(selection: Selection | None = None) -> PinnedList:
    return PinnedList(DeadLetterFilter(), selection or Selection(), content(9, 8, 7))


def asked_for(each: PinnedList) -> tuple[str, ...]:
    return each.request(repairs=[], canary=10, rate=500.0).ids


def test_ticks_are_ids_and_not_positions() -> None:
    chosen = pinned()
    chosen.tick([0, 2, 99])
    assert chosen.ticked == ("user-events/0/9", "user-events/0/7")
    chosen.content = content(11, 10, 9, 8, 7)
    assert chosen.positions() == [2, 4]
    assert asked_for(chosen) == ("user-events/0/9", "user-events/0/7")


def test_without_ticks_a_plan_is_of_what_the_filter_matched() -> None:
    selection = DeadLetterFilter(
        codes=("EMPTY_VALUE",), span=60.0, text="ann@example.com"
    ).selection(Hasher(), NOW)
    request = pinned(selection).request(repairs=["add_zone"], canary=3, rate=7.0)
    assert request.ids == ()
    assert request.codes == ("EMPTY_VALUE",)
    assert request.texts == (Hasher().hash("ann@example.com"),)
    assert request.since == (NOW - timedelta(seconds=60)).isoformat()
    assert request.loaded_until == NOW.isoformat()
    assert (request.repairs, request.canary, request.rate) == (("add_zone",), 3, 7.0)


def test_a_request_is_equal_only_to_the_same() -> None:
    chosen = pinned()
    before = chosen.request(repairs=[], canary=10, rate=500.0)
    assert chosen.request(repairs=[], canary=10, rate=500.0) == before
    assert chosen.request(repairs=["add_zone"], canary=10, rate=500.0) != before
    assert chosen.request(repairs=[], canary=0, rate=500.0) != before
    assert chosen.request(repairs=[], canary=10, rate=1.0) != before
    chosen.tick([1])
    assert chosen.request(repairs=[], canary=10, rate=500.0) != before


@pytest.mark.parametrize(
    ("ticked", "counts", "shown", "text", "possible"),
    [
        ((), {Status.OPEN: 340}, 200,
         f"Plans all 340 dead letters that match {ABOVE}, {NEWEST}", True),
        ((), {Status.OPEN: 1}, 1, f"Plans the 1 dead letter that matches {ABOVE}", True),
        ((), {Status.OPEN: 2, Status.REPLAYED: 5}, 7,
         f"Plans the 2 open ones of the 7 dead letters that match {ABOVE}", True),
        ((), {Status.REPLAYED: 5}, 5,
         "No open dead letter matches the filter above, and only open ones are replayed", False),
        ((), {Status.REPLAYED: 100_001}, 200,
         f"Plans all open ones of the more than 100,000 dead letters that match {ABOVE}, {NEWEST}",
         True),
        ((), {}, 0,
         "No open dead letter matches the filter above, and only open ones are replayed", False),
        (("open",) * 12, {Status.OPEN: 340}, 200, "Plans the 12 selected dead letters", True),
        (("open",), {Status.OPEN: 340}, 200, "Plans the 1 selected dead letter", True),
        (("open", "replayed"), {}, 2,
         "Plans the 2 selected dead letters, of which 1 can be replayed", True),
        (("replayed",), {}, 1,
         "Plans the 1 selected dead letter, of which 0 can be replayed", False),
    ],
)  # fmt: skip
def test_the_form_says_what_would_be_planned(
    ticked: tuple[str, ...], counts: dict[Status, int], shown: int, text: str, possible: bool
) -> None:
    found = scope(ticked, counts, shown)
    assert (found.text, found.possible) == (text, possible)
