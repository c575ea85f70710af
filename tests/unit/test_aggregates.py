"""Each aggregate is what a plain computation over all values gives, however they come: in any order, in any
parts, through JSON, merged in any order."""

import math
import random
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamflow import Count, Distinct, First, Last, Max, Mean, Min, Quantiles, Sum
from streamflow.aggregates.base import Aggregate, Part
from streamflow.aggregates.values import (
    bounded_decimal,
    bounded_integer,
    distinct_text,
    json_value,
    shortened,
)

DECIMALS = st.decimals(allow_nan=False, allow_infinity=False, places=None).filter(
    lambda number: bounded_decimal(number) is not None
)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
INTEGERS = st.integers(-(10**40), 10**40)
NUMBERS = st.one_of(*(st.lists(each, max_size=40) for each in (DECIMALS, FLOATS, INTEGERS)))
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=4)
SEED = st.randoms(use_true_random=False)
START = datetime(2026, 1, 1, tzinfo=UTC)


def computed(aggregate: Aggregate, values: Sequence[Any], rng: random.Random) -> tuple[Any, ...]:
    """The finished values of parts that were cut, counted, written, read and merged at random."""
    states: list[tuple[int, Any]] = [
        (partition, aggregate.state()) for partition in range(rng.randint(1, 4))
    ]
    rest = list(values)
    rng.shuffle(rest)
    while rest:
        size = rng.randint(1, len(rest))
        rng.choice(states)[1].update(rest[:size])
        del rest[:size]
    parts: list[Part] = [
        (partition, orjson.loads(orjson.dumps(state.json()))) for partition, state in states
    ]
    while len(parts) > 1:
        rng.shuffle(parts)
        size = rng.randint(2, len(parts))
        parts = [(0, aggregate.merge(parts[:size])), *parts[size:]]
    return aggregate.finish(aggregate.merge(parts))


@given(NUMBERS, SEED)
def test_sums_and_means_are_exact(values: list[Any], rng: random.Random) -> None:
    exact = sum(map(Fraction, values), Fraction())
    [total] = computed(Sum("n"), values, rng)
    assert (None if total is None else Fraction(total)) == (exact if values else None)
    [mean] = computed(Mean("n"), values, rng)
    assert mean == (exact / len(values) if values else None)
    assert computed(Count(), values, rng) == (len(values),)


def test_a_sum_of_doubles_may_be_no_double() -> None:
    largest = 1.7976931348623157e308
    state = Sum("n").state()
    state.update([largest, largest, 5e-324])
    state.update([-largest, 1.0])
    assert Fraction(str(state.json())) == Fraction(largest) + 1 + Fraction(5e-324)


VALUES = st.one_of(
    *(
        st.lists(each, max_size=30)
        for each in (
            st.text(max_size=5), FLOATS, st.integers(-(2**63), 2**63 - 1),
            st.datetimes(timezones=st.just(UTC)), st.dates(), st.times(), DECIMALS,
        )
    )
)  # fmt: skip


@given(VALUES)
def test_extremes(values: list[Any]) -> None:
    for aggregate, pick in ((Min("v"), min), (Max("v"), max)):
        state = aggregate.state()
        for size in range(0, len(values), 3):
            state.update(values[size : size + 3])
        assert state.json() == (json_value(pick(values)) if values else None)


@given(st.lists(st.text(max_size=3), max_size=30), SEED)
def test_extremes_of_parts(values: list[str], rng: random.Random) -> None:
    assert computed(Min("v"), values, rng) == (min(values, default=None),)
    assert computed(Max("v"), values, rng) == (max(values, default=None),)


@given(st.lists(st.tuples(st.integers(0, 5), st.text(max_size=3)), max_size=30), SEED)
def test_the_first_and_the_last_by_time_then_offset(
    events: list[tuple[int, str]], rng: random.Random
) -> None:
    entries = [
        (START + timedelta(microseconds=moment), offset, text)
        for offset, (moment, text) in enumerate(events)
    ]
    for aggregate, pick in ((First("v"), min), (Last("v"), max)):
        state = aggregate.state()
        rng.shuffle(entries)
        for entry in entries:
            state.update([entry])
        expected = pick(entries, default=None)
        assert aggregate.finish(state.json()) == (expected and expected[2],)


def test_at_one_time_the_partition_decides() -> None:
    parts = [
        (
            partition,
            {"value": str(partition), "time": "2026-01-01T00:00:00.000000Z", "offset": offset},
        )
        for partition, offset in ((1, 5), (0, 9), (2, 1))
    ]
    assert First("v").finish(First("v").merge(parts)) == ("0",)
    assert Last("v").finish(Last("v").merge([*parts, (3, None)])) == ("2",)


@given(st.lists(TEXTS | st.none(), max_size=60), SEED)
def test_few_distinct_values_are_counted(texts: list[str | None], rng: random.Random) -> None:
    values = [text for text in texts if text is not None][:32]
    assert computed(Distinct("v", lg_k=5), values, rng) == (len({*values}),)


@pytest.mark.parametrize("seed", range(20))
def test_many_distinct_values_are_estimated(seed: int) -> None:
    rng = random.Random(seed)
    number = rng.randint(3_000, 30_000)
    values = [f"{seed}-{each}" for each in range(number)]
    [estimate] = computed(Distinct("v", lg_k=8), values * 2, rng)
    assert abs(estimate - number) <= 5 * number / math.sqrt(2**8)
    assert estimate != number  # or the others would be no estimates


def test_a_sketch_does_not_depend_on_the_order() -> None:
    values = [str(each) for each in range(10_000)]
    states = []
    for seed in range(3):
        random.Random(seed).shuffle(values)
        state = Distinct("v", lg_k=6).state()
        for value in values:
            state.update([value])
        states.append(state.json())
    assert states[0] == states[1] == states[2]
    assert len(states[0]["hashes"]) == 2**6


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Decimal("1.0"), Decimal("1.00")),
        (0.0, -0.0),
        (START, START.astimezone(datetime.fromisoformat("2026-01-01T00:00+05:00").tzinfo)),
    ],
)
def test_equal_values_are_one(one: Any, other: Any) -> None:
    assert distinct_text(one) == distinct_text(other)


def test_values_that_a_millisecond_would_not_tell_apart() -> None:
    assert distinct_text(START) != distinct_text(START + timedelta(microseconds=1))
    assert distinct_text("") not in ("", distinct_text("x"))


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=150), SEED)
def test_quantiles_of_few_values_are_exact(values: list[float], rng: random.Random) -> None:
    at = (0.0, 0.25, 0.5, 0.9, 1.0)
    ordered = sorted(values)
    expected = tuple(ordered[max(0, math.ceil(share * len(values)) - 1)] for share in at)
    assert computed(Quantiles("n", at=at), values, rng) == expected


@pytest.mark.parametrize("seed", range(10))
def test_quantiles_of_many_values_are_near(seed: int) -> None:
    rng = random.Random(seed)
    values = [rng.lognormvariate(3, 2) for _ in range(20_000)]
    ordered, at = sorted(values), (0.01, 0.5, 0.9, 0.99)
    for share, found in zip(at, computed(Quantiles("n", at=at), values, rng), strict=True):
        lowest, highest = bisect_left(ordered, found), bisect_right(ordered, found)
        error = max(lowest - share * len(values), share * len(values) - highest, 0)
        assert error <= 3 * 0.0133 * len(values)


def test_a_sketch_begins_where_numbers_are_no_longer_few() -> None:
    state = Quantiles("n", k=8).state()
    state.update([3, 1.5, *range(6)])
    assert state.json() == {"values": [0, 1, 1.5, 2, 3, 3, 4, 5], "weights": [1] * 8}
    for number in range(1_000):
        state.update([number])
        state.update([])
    found = state.json()
    assert sum(found["weights"]) == 1_008
    assert len(found["values"]) < 100


def test_numbers_beyond_doubles_have_quantiles() -> None:
    state = Quantiles("n", at=(0, 1)).state()
    state.update([10**400, -(10**400), 1])
    low, high = Quantiles("n", at=(0, 1)).finish(state.json())
    assert low == -high
    assert orjson.loads(orjson.dumps(state.json()))["values"][-1] == high
    state = Quantiles("n").state()
    state.update([Decimal("1e999")])
    assert state.json() == {"values": [1.7976931348623157e308], "weights": [1]}


def test_of_nothing() -> None:
    assert Quantiles("n").finish(Quantiles("n").state().json()) == (None, None, None)
    assert Distinct("n").finish(Distinct("n").state().json()) == (0,)
    assert Sum("n").state().json() is None
    assert Mean("n").finish(Mean("n").state().json()) == (None,)
    for aggregate in (Min("n"), Max("n"), First("n"), Last("n")):
        assert aggregate.finish(aggregate.state().json()) == (None,)
        assert aggregate.merge([]) is None


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (2**63, "9223372036854775808"),
        (2**63 - 1, 2**63 - 1),
        (Decimal("12.300"), "12.3"),
        (True, True),
        (START + timedelta(microseconds=7), "2026-01-01T00:00:00.000007Z"),
        (date(2026, 1, 2), "2026-01-02"),
        (time(1, 2, 3, 4), "01:02:03.000004"),
        (timedelta(days=-1, seconds=5), "-1 days 5.000000 seconds"),
    ],
)
def test_values_as_json_has_them(value: Any, written: Any) -> None:
    assert json_value(value) == written
    assert orjson.loads(orjson.dumps(json_value(value))) == written


def test_what_would_make_a_record_large_is_short() -> None:
    assert shortened("x" * 256) == "x" * 256
    assert shortened("") == ""
    assert len(shortened("x" * 100_000)) == 217
    assert shortened("x" * 300 + "a") != shortened("x" * 300 + "b")
    assert bounded_integer(10**1000 - 1) is not None
    assert bounded_integer(10**1000) is bounded_integer(-(10**1000)) is None
    assert bounded_decimal(Decimal("9e999")) is not None
    assert bounded_decimal(Decimal("1e1000")) is bounded_decimal(Decimal("1e-1001")) is None


@pytest.mark.parametrize(
    "text", ["0E-1001", "0E+200000", "-0", "1." + "0" * 1_001, "10E-1001", "1E999"]
)
def test_zeros_are_no_digits(text: str) -> None:
    """In a column the number has other zeros, and is the same."""
    number = Decimal(text)
    assert bounded_decimal(number) == number


def test_a_zero_has_no_exponent() -> None:
    assert str(bounded_decimal(Decimal("0E+200000"))) == "0"
    assert bounded_decimal(Decimal("1." + "0" * 1_001 + "1")) is None


def test_the_names_of_quantiles() -> None:
    assert Quantiles("n", at=(0.5, 0.999, 1, 0.07)).results("cost") == (
        "cost_p50", "cost_p99_9", "cost_p100", "cost_p7",
    )  # fmt: skip
