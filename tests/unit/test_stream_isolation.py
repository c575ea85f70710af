"""One stream's fault fails what is about that stream, and nothing else."""

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal

import psycopg
import pytest
from pydantic import BaseModel, Field

from streamflow.contract import Event, Timestamp
from streamflow.stream import Stream
from streamflow.streams.user_events import USER_EVENTS
from streamflow_dagster.checks import isolated
from streamflow_dagster.defs.content_checks import rejection_of
from streamflow_dagster.failures import each_stream
from streamflow_dagster.verdicts import CheckResult

ORDERS = replace(USER_EVENTS, name="orders", table="orders")
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_a_refused_query_is_its_stream_s_failure() -> None:
    def work(stream: Stream) -> str:
        if stream is ORDERS:
            raise psycopg.errors.UndefinedColumn("x")
        return stream.name

    done, refused = each_stream([USER_EVENTS, ORDERS, USER_EVENTS], work)
    assert done == ["user-events", "user-events"]
    assert [each.startswith("stream orders (42703: ") for each in refused] == [True]


@pytest.mark.parametrize(
    "error", [psycopg.errors.AdminShutdown("x"), psycopg.OperationalError("x")]
)
def test_an_outage_is_no_stream_s_failure(error: psycopg.Error) -> None:
    def fail(*_: object) -> Any:
        raise error

    with pytest.raises(psycopg.Error):
        each_stream([USER_EVENTS], fail)
    with pytest.raises(psycopg.Error):
        isolated(fail)


def test_a_check_that_cannot_be_made_fails_and_says_why() -> None:
    def refused() -> CheckResult:
        raise psycopg.errors.InvalidTextRepresentation('invalid input: "ann@example.com"')

    found = isolated(refused)
    assert (found.passed, found.severe) == (False, True)
    assert "cannot be checked: PostgreSQL refuses the query (22P02: Invalid" in found.says
    assert "example" not in found.says
    sound = CheckResult(passed=True, says="sound")
    assert isolated(lambda: sound) is sound


class Country(Enum):
    DE = "DE"


class Item(BaseModel):
    sku: str


class Placed(Event):
    type: Literal["placed"]
    timestamp: Timestamp
    customer: Annotated[str, Field(alias="customerId", max_length=5)]
    land: Country | None = None
    items: list[Item] = Field(default_factory=list)
    total: Decimal | None = None


class Cancelled(Event):
    type: Literal["cancelled"]
    timestamp: Timestamp
    why: str | None


SHOP = Stream(
    name="shop",
    contract=Annotated[Placed | Cancelled, Field(discriminator="type")],
    table="shop",
    key=lambda _: "x",
)
PLACED: dict[str, Any] = {
    "type": "placed", "timestamp": NOON, "customer": "ann", "land": "DE", "items": [{"sku": "a"}],
    "total": None, "why": None,
}  # fmt: skip


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (PLACED, None),
        (PLACED | {"total": Decimal("7.50")}, None),
        (PLACED | {"land": None}, None),
        (PLACED | {"land": "XX"}, "land"),
        (PLACED | {"customer": "somebody"}, "customerId"),
        (PLACED | {"items": [{"sku": 7}]}, "items"),
        (PLACED | {"items": None, "type": "cancelled", "customer": None, "land": None}, None),
        (PLACED | {"type": "returned"}, "UNKNOWN_TYPE"),
    ],
)
def test_a_stored_row_is_judged_by_its_model_under_its_names_in_json(
    row: dict[str, Any], words: str | None
) -> None:
    columns = {"origin_topic": "shop", "origin_partition": 0, "origin_offset": 7, "loaded_at": NOON}
    found = rejection_of(SHOP, row | columns)
    if words is None:
        assert found is None
    else:
        assert found is not None
        assert words in f"{found.code}: {found.message}"
