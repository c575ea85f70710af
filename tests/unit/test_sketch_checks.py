"""Sketches that windows make are taken for ones, whatever their size; others are not."""

import random
from collections import Counter

import pytest

from streamflow.aggregates.distinct import NO_THETA, Distinct
from streamflow.aggregates.quantiles import Quantiles
from streamflow.audit.windows.sketch_checks import DistinctCheck, QuantilesCheck


@pytest.mark.parametrize("lg_k", [5, 8, 14])
@pytest.mark.parametrize("number", [0, 1, 32, 33, 256, 257, 3_000, 40_000])
def test_sketches_of_distinct_values(lg_k: int, number: int) -> None:
    check = DistinctCheck()
    values = [f"v{each % number}" for each in range(2 * number)] if number else []
    for part in (values[::3], values[1::3], values[2::3]):
        state = Distinct("n", lg_k=lg_k).state()
        state.update(part)
        kept = state.json()
        check.merge(kept["theta"], kept["hashes"])
    for value in values:
        check.add(value, 1)
    assert check.fault is None
    assert check.difference(0) is None


def test_a_theta_that_is_the_hash_of_no_value() -> None:
    state = Distinct("n", lg_k=5).state()
    state.update([*range(1_000)])
    kept = state.json()
    for theta in (kept["theta"], kept["theta"] - 1, kept["theta"] + 1, NO_THETA // 2):
        check = DistinctCheck()
        check.merge(theta, kept["hashes"])
        for value in range(1_000):
            check.add(value, 1)
        assert check.fault is None
        assert (check.difference(0) is None) is (theta == kept["theta"])


@pytest.mark.parametrize("k", [8, 11, 200, 4_096])
@pytest.mark.parametrize("number", [0, 1, 9, 50, 235, 9_999])
def test_sketches_of_numbers(k: int, number: int) -> None:
    check, rng = QuantilesCheck(), random.Random(number)
    values = [rng.choice([rng.random(), 0.5]) for _ in range(number)]
    for part in (values[::2], values[1::2]):
        state = Quantiles("n", k=k).state()
        state.update(part)
        kept = state.json()
        check.merge(kept["values"], kept["weights"])
    for value, times in sorted(Counter(values).items()):
        check.add(value, times)
    assert check.fault is None
    assert check.difference(0) is None


@pytest.mark.parametrize(
    ("values", "weights"),
    [
        ([1.0], []),
        ([1.0], [0]),
        ([1.0], [-1]),
        ([1.0, 2.0], [3, 3]),
        ([1.0, 2.0, 3.0], [2, 2, 2]),
        ([float("nan")], [1]),
        ([None], [1]),
        ([1.0], [None]),
    ],
)
def test_what_is_no_sketch_of_numbers(values: list[float], weights: list[int]) -> None:
    check = QuantilesCheck()
    check.merge(values, weights)
    assert check.fault


@pytest.mark.parametrize(
    ("theta", "hashes"),
    [
        (NO_THETA, [3, 3]),
        (NO_THETA, [0]),
        (NO_THETA, [None]),
        (NO_THETA, [*range(1, 2**14 + 2)]),
        (NO_THETA + 1, [1]),
        (100, [*range(1, 32)]),
        (32, [*range(1, 33)]),
        (0, []),
    ],
)
def test_what_is_no_sketch_of_distinct_values(theta: int, hashes: list[int]) -> None:
    check = DistinctCheck()
    check.merge(theta, hashes)
    assert check.fault
