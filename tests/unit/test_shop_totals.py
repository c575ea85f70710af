"""What `make windows` compares with knows none of the product's code, and sees each value that is wrong."""

import sys
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from oracle_imports import imported
from shop_events import LATE, Shop
from shop_totals import Answers, Row, differences

TESTS = Path(__file__).parents[1]
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
START = int(NOON.timestamp()) * 1_000_000
KEY = (START, "DE")


def order(number: int, total: str, weight: float, second: int) -> Row:
    return {
        "id": number, "kind": "placed", "created_at": f"2026-03-01T12:00:{second:02d}.000001Z",
        "country": "DE", "address": {"city": None}, "customer": f"customer {number}", "email": "0" * 64,
        "total": total, "weight": weight, "quantity": None, "source": number % 2, "position": number,
    }  # fmt: skip


ORDERS = [order(0, "0.10", 0.1, 7), order(1, "0.20", 0.2, 1), order(2, "12.34", 0.3, 9)]
SHOWN: dict[str, Any] = {
    "orders": 3, "counted": 3, "revenue": Decimal("12.640"), "placed": Decimal("12.64"),
    "mean_total": Decimal("4.2133333333333333"), "weight": 0.6, "cheapest": Decimal("0.1"),
    "dearest": Decimal("12.34"), "last_name": "customer 2", "opened_by": "customer 1",
    "closed_by": "customer 2",
}  # fmt: skip


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Answers:
    return Answers(ORDERS, [], tmp_path_factory.mktemp("answers"))


def test_what_is_right_agrees(answers: Answers) -> None:
    assert [*differences("orders_10s", {KEY: SHOWN}, answers.of("orders_10s"))] == []


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("orders", 4),
        ("revenue", Decimal("12.65")),
        ("placed", None),
        ("mean_total", Decimal("4.21333333334")),
        ("weight", 0.1 + 0.2 + 0.3),  # rounded twice
        ("opened_by", "customer 0"),
    ],
)
def test_a_value_that_is_wrong_is_named(answers: Answers, column: str, value: Any) -> None:
    wrong = {KEY: SHOWN | {column: value}}
    [found] = differences("orders_10s", wrong, answers.of("orders_10s"))
    assert found.startswith(f"orders_10s {KEY}: {column} is {value!r}")


def test_a_window_too_many_or_too_few_is_named(answers: Answers) -> None:
    moved = (START + 10_000_000, "DE")
    found = [*differences("orders_10s", {moved: SHOWN}, answers.of("orders_10s"))]
    assert [each.split(":")[0] for each in found] == [
        f"orders_10s has {moved}, and there is no such event",
        f"orders_10s has no {KEY}",
    ]


@pytest.mark.parametrize(("value", "agrees"), [(1.0, False), (490.0, True), (560.0, False)])
def test_a_quantile_of_many_values_has_about_its_rank(
    tmp_path: Path, value: float, *, agrees: bool
) -> None:
    many = Answers([order(each, f"{each}", 0.5, 3) for each in range(1_000)], [], tmp_path)
    [(key, wanted)] = many.of("orders_overall").items()
    right = {"customers": 1_000, "some": 900, "people": 1, "order_value_p99": 990.0,
             "weights_p0": 0.5, "weights_p90": 0.5, "counted": 1_000}  # fmt: skip
    found = differences("orders_overall", {key: {**right, "order_value_p50": value}}, {key: wanted})
    assert (not [*found]) is agrees


def test_events_are_those_of_their_seed() -> None:
    made = Shop(3, NOON).events(2_000)
    assert made == Shop(3, NOON).events(2_000)
    assert made != Shop(4, NOON).events(2_000)
    hopeless = [each for each in made if each.valid is None]
    broken = [each for each in made if each.broken]
    times = [each.valid["at"] for each in made if each.valid and each.stream == "readings"]
    assert len(hopeless) > 5
    assert len(broken) > 20
    assert min(times) < (NOON - max(LATE) / 2).timestamp() * 1000
    assert times != sorted(times)


@pytest.mark.parametrize("name", ["shop_events.py", "shop_questions.py", "shop_totals.py"])
def test_it_imports_nothing_of_the_product(name: str) -> None:
    own = {"shop_questions", "duckdb", "datasketches", "numpy", "orjson"}
    assert imported(TESTS / name) <= own | sys.stdlib_module_names
