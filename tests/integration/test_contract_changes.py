"""Contracts that change over data: each row of the table in docs/streams.md."""

from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal

import pytest
from pydantic import AliasChoices, Field, create_model

from loads import execute, value
from releases import Installation
from streamflow import Event, Hashed, Stream, Timestamp, TumblingWindow
from streamflow.errors import StreamsRefused
from streamflow.postgres import schema
from streamflow.postgres.against import changes_for
from streamflow.postgres.connections import session
from streamflow.postgres.evolution import Level
from streamflow.settings import Settings
from streamflow_dagster.catalog import catalog_of
from streamflow_dagster.defs import content_checks
from streamflow_dagster.verdicts import CheckResult

pytestmark = pytest.mark.integration

KINDS = Literal["placed", "cancelled"]
MORE_KINDS = Literal["placed", "cancelled", "returned"]
FIELDS: dict[str, Any] = {
    "kind": (KINDS, ...),
    "customer": (str, ...),
    "total": (Annotated[int, Field(ge=0, le=1000)], ...),
    "at": (Timestamp, ...),
}
AT_ONCE = TumblingWindow("10s", by="kind", idle="0s")
OPEN = TumblingWindow("10s", by="kind", idle="1h")
FOR_LATER = {"total": 5000}  # of a contract to come, or that was


def orders(
    *without: str, event_time: str = "at", windows: TumblingWindow = AT_ONCE, **changes: Any
) -> Stream:
    """A version of the stream's declaration."""
    declared = {name: changes.pop(name, kind) for name, kind in FIELDS.items()}
    declared |= {name: changes.pop(name) for name in list(changes) if type(changes[name]) is tuple}
    for name in without:
        del declared[name]
    contract = changes.pop("contract", None) or create_model("Order", __base__=Event, **declared)
    return Stream(
        name="orders", contract=contract, table="orders", key=changes.pop("key", "customer"),
        event_time=event_time, windows=windows, **changes,
    )  # fmt: skip


def order(second: int, *without: str, **changes: Any) -> dict[str, Any]:
    event = {
        "kind": "placed", "customer": "ann", "total": second, "at": f"2026-03-01T12:00:{second:02d}.000Z"
    } | changes  # fmt: skip
    return {name: content for name, content in event.items() if name not in without}


@pytest.fixture
def shop(database: Settings) -> Iterator[Installation]:
    """With three events, and a dead letter that a wider contract would accept."""
    made = Installation(database, orders())
    made.send(order(0), order(1, kind="cancelled"), order(30), order(2, **FOR_LATER))
    made.run()
    assert [letter[0] for letter in made.dead_letters()] == [3]
    assert made.counts() == {"placed": 2, "cancelled": 1}
    made.assert_closed()
    yield made
    made.stop()


def judged(
    shop: Installation, judge: Callable[..., CheckResult], *rest: Any, **more: Any
) -> CheckResult:
    entry = catalog_of(shop.settings, [shop.stream]).table("orders")
    with session(shop.settings, "test") as connection:
        return judge(connection, entry, *rest, **more)


def contract_check(shop: Installation) -> CheckResult:
    return judged(shop, content_checks._compare, 10_000)


def clear_text_check(shop: Installation) -> CheckResult:
    from streamflow.registry import hasher_for

    hasher = hasher_for(shop.settings, [shop.stream])
    return judged(shop, content_checks._look_for_addresses, hasher, all_rows=False)


def test_an_optional_field_is_added(shop: Installation) -> None:
    with_note = order(3, note="blue")
    # Producer first: a dead letter until the release is there.
    shop.send(with_note)
    shop.run()
    assert shop.dead_letters()[1] == (
        4, "SCHEMA_VIOLATION", "the record: holds a field that is not declared"
    )  # fmt: skip
    assert shop.release(orders(note=(str | None, None))) == ["column orders.note"]
    shop.send(order(4), order(5, note="red"))
    shop.run()
    assert [outcome.outcome for outcome in shop.replay()] == ["fails", "passes"]
    assert shop.rows("note") == [(None,), (None,), (None,), ("blue",), (None,), ("red",)]
    assert contract_check(shop).passed
    shop.assert_closed()


def test_a_required_field_is_added(shop: Installation) -> None:
    newer = orders(note=(str, ...))
    assert shop.release(newer) == ["column orders.note"]
    # Consumer first: what older producers send is a dead letter.
    shop.send(order(3), order(4, note="red"))
    shop.run()
    assert shop.dead_letters()[1] == (4, "SCHEMA_VIOLATION", "note: is required")
    assert shop.rows("note") == [(None,), (None,), (None,), ("red",)]
    assert schema.pending(shop.settings, [newer]) == []
    # The rows of before were accepted under their contract, for which the check does not blame them …
    assert contract_check(shop).passed
    _pass_an_hour(shop, "note IS NULL")
    assert contract_check(shop).passed
    # … and it does blame those of today's.
    execute(shop.settings, "UPDATE orders SET note = NULL")
    broken = contract_check(shop)
    assert not broken.passed
    assert "1 of 1 row: first orders/0/5: SCHEMA_VIOLATION: note: " in broken.says
    execute(shop.settings, "UPDATE orders SET note = 'red' WHERE origin_offset = 5")
    shop.assert_closed()


def _pass_an_hour(shop: Installation, loaded_before: str) -> None:
    """As if the contract had changed an hour ago, and these rows had been loaded before."""
    execute(
        shop.settings, f"UPDATE orders SET loaded_at = now() - interval '2 h' WHERE {loaded_before}"
    )
    execute(
        shop.settings,
        "UPDATE quality_scans SET loaded_through = now() - interval '1 h' WHERE scan ~ '^contract '",
    )


def test_a_required_field_is_added_over_open_windows(database: Settings) -> None:
    shop = Installation(database, orders(windows=OPEN))
    shop.send(order(0), order(1), order(2, kind="cancelled"))
    shop.run()
    assert shop.counts() == {}
    # The workers hand over what they have counted: the newer contract judges none of it again.
    shop.release(orders(windows=OPEN, note=(str, ...)))
    shop.send(order(3), order(4, note="red"), order(59, note="later"), order(5, note="late"))
    shop.run()
    assert shop.counts() == {"placed": 4, "cancelled": 1}
    assert len(shop.dead_letters()) == 1
    shop.assert_closed()
    # Once more, in the other direction.
    shop.release(orders(windows=OPEN))
    shop.send(order(58), order(59))
    shop.run()
    shop.release(orders(windows=OPEN))
    assert shop.counts() == {"placed": 7, "cancelled": 1}
    shop.stop()


def test_a_field_is_dropped(shop: Installation) -> None:
    # At once it is refused: the next row would have no value for it.
    with pytest.raises(StreamsRefused, match="no field total, but every row of orders must"):
        shop.release(orders("total"))
    # In two steps: optional first, and producers leave it out; then it goes.
    optional = orders(total=(int | None, None))
    assert shop.release(optional) == ["column orders.total may be null"]
    shop.send(order(3, "total"), order(4))
    shop.run()
    assert shop.release(orders("total")) == []
    shop.send(order(5, "total"), order(6))
    shop.run()
    # A producer that still sends it: the step before accepts it again.
    assert shop.dead_letters()[1][0] == 7
    assert shop.rows("total") == [(0,), (1,), (30,), (None,), (4,), (None,)]
    assert contract_check(shop).passed
    shop.assert_closed()
    shop.release(optional)
    assert [outcome.outcome for outcome in shop.replay()] == ["passes", "passes"]
    assert len(shop.rows("total")) == 8
    shop.assert_closed()


def test_a_contract_becomes_wider(shop: Installation) -> None:
    assert shop.release(orders(total=(int, ...))) == []
    shop.send(order(3, **FOR_LATER))
    shop.run()
    # The dead letter of the older contract is an event now, in its place and in its window.
    assert [outcome.outcome for outcome in shop.replay()] == ["passes"]
    assert shop.rows("origin_offset::int, total::int") == [
        (0, 0),
        (1, 1),
        (2, 30),
        (3, 5000),
        (4, 5000),
    ]
    assert shop.counts() == {"placed": 4, "cancelled": 1}
    shop.assert_closed()


def test_a_contract_becomes_narrower(shop: Installation) -> None:
    assert shop.release(orders(total=(Annotated[int, Field(ge=0, le=10)], ...))) == []
    shop.send(order(3), order(30))
    shop.run()
    [(_, code, message)] = [letter for letter in shop.dead_letters() if letter[0] == 5]
    assert (code, message) == ("SCHEMA_VIOLATION", "total: should be less than or equal to 10")
    # A dead letter of the older contract fails again, in words of today's.
    assert {(outcome.outcome, outcome.message) for outcome in shop.replay()} == {
        ("fails", "total: should be less than or equal to 10")
    }
    # The row with 30 was accepted under the older one.
    assert contract_check(shop).passed
    assert shop.counts() == {"placed": 3, "cancelled": 1}
    shop.assert_closed()


def test_a_field_is_renamed_in_json(shop: Installation) -> None:
    both = AliasChoices("customerId", "customer")
    shop.release(
        orders(customer=(str, Field(validation_alias=both, serialization_alias="customerId")))
    )
    shop.send(order(3), order(4, "customer", customerId="ben"))
    shop.run()
    new_alone = orders(customer=(str, Field(alias="customerId")))
    [change] = changes_for(shop.settings, new_alone)[0]
    assert change.level is Level.STEP
    assert change.what.startswith("`customer` is no longer read from `customer`: events")
    assert "let the producers send `customerId`" in change.way
    shop.release(new_alone)
    assert changes_for(shop.settings, new_alone)[0] == []
    shop.send(order(5, "customer", customerId="cas"), order(6))
    shop.run()
    # The column keeps its name; what is sent under the old one now is a dead letter.
    assert shop.rows("customer") == [("ann",), ("ann",), ("ann",), ("ann",), ("ben",), ("cas",)]
    assert [letter[0] for letter in shop.dead_letters()] == [3, 7]
    assert contract_check(shop).passed
    shop.assert_closed()


def test_a_field_is_renamed_in_python(shop: Installation) -> None:
    """Another column: the old one must not be left without a value."""
    renamed = orders("customer", key="buyer", buyer=(str, Field(alias="customer")))
    with pytest.raises(StreamsRefused, match="the contract has no field customer"):
        shop.release(renamed)
    execute(shop.settings, "ALTER TABLE orders RENAME COLUMN customer TO buyer")
    assert shop.release(renamed) == []
    shop.send(order(3, customer="ben"))
    shop.run()
    assert shop.rows("buyer") == [("ann",), ("ann",), ("ann",), ("ben",)]
    assert contract_check(shop).passed
    shop.assert_closed()


def test_a_kind_is_added(shop: Installation) -> None:
    shop.send(order(3, kind="returned"))
    shop.run()
    assert shop.dead_letters()[1][1] == "SCHEMA_VIOLATION"
    assert shop.release(orders(kind=(MORE_KINDS, ...))) == []
    shop.send(order(4, kind="returned"))
    shop.run()
    assert [outcome.outcome for outcome in shop.replay()] == ["fails", "passes"]
    assert shop.counts() == {"placed": 2, "cancelled": 1, "returned": 2}
    shop.assert_closed()


def test_a_model_is_added(shop: Installation) -> None:
    placed = create_model("Order", __base__=Event, **FIELDS)
    refund = create_model(
        "Refund",
        __base__=Event,
        kind=(Literal["refunded"], ...),
        customer=(str, ...),
        reason=(str, ...),
        at=(Timestamp, ...),
    )
    both = orders(contract=Annotated[placed | refund, Field(discriminator="kind")])
    # Fields that one of the models lacks are null in its rows.
    assert shop.release(both) == ["column orders.total may be null", "column orders.reason"]
    shop.send(order(3), order(4, "total", kind="refunded", reason="late"))
    shop.run()
    assert shop.rows("total, reason")[3:] == [(3, None), (None, "late")]
    assert shop.counts() == {"placed": 3, "cancelled": 1, "refunded": 1}
    assert contract_check(shop).passed
    shop.assert_closed()


def test_the_key_is_changed(shop: Installation) -> None:
    """Only records to come have another key; Kafka keeps no order between the two."""
    newer = orders(key="kind")
    assert shop.release(newer) == []
    event = newer.read(shop.topics["orders"][0])
    assert isinstance(event, Event)
    assert newer.encode(event)[0] == b"placed"
    shop.send(order(3))
    shop.run()
    shop.assert_closed()


def test_the_event_time_is_changed(shop: Installation) -> None:
    with pytest.raises(StreamsRefused, match="partitioned by at, and the event time is due now"):
        shop.release(orders(due=(Timestamp, ...), event_time="due"))
    shop.release(orders())
    shop.assert_closed()


def test_a_type_is_changed(shop: Installation) -> None:
    as_text = orders(total=(str, ...))
    with pytest.raises(StreamsRefused, match="total became text, but the column in orders is big"):
        shop.release(as_text)
    assert shop.rows("total::text")[0] == ("0",)
    # Once its owner has converted the column, it goes on.
    execute(shop.settings, "ALTER TABLE orders ALTER COLUMN total TYPE text USING total::text")
    assert shop.release(as_text) == []
    shop.send(order(3, total="4.50 EUR"))
    shop.run()
    assert shop.rows("total") == [("0",), ("1",), ("30",), ("4.50 EUR",)]
    assert contract_check(shop).passed
    shop.assert_closed()


def test_a_field_becomes_private(shop: Installation) -> None:
    assert clear_text_check(shop).passed
    shop.release(orders(customer=(Hashed, ...), total=(int, ...)))
    shop.send(order(3), order(4, customer="a" * 64))
    shop.run()
    assert shop.dead_letters()[1][1] == "CLEAR_TEXT_PII"
    # Stored in clear before: that is told until it is hashed.
    found = clear_text_check(shop)
    assert not found.passed
    assert "3 clear-text" in found.says
    assert "orders/0/0: customer" in found.says
    execute(
        shop.settings,
        "UPDATE orders SET customer = encode(sha256(convert_to(customer, 'UTF8')), 'hex')"
        " WHERE customer !~ '^[0-9a-f]{64}$'",
    )
    assert clear_text_check(shop).passed
    # A dead letter of the older contract holds it in clear, and a repair hashes it; in one of today's it
    # was hashed at once.
    assert [(outcome.letter.id.offset, outcome.reason) for outcome in shop.replay()] == [
        (3, "CLEAR_TEXT_PII"),
        (4, ""),
    ]
    assert [outcome.outcome for outcome in shop.replay("hash_address")] == ["passes"]
    hashed = value(
        shop.settings, "SELECT count(*)::int FROM orders WHERE customer ~ '^[0-9a-f]{64}$'"
    )
    assert hashed == 6
    shop.assert_closed()


def test_a_release_is_rolled_back(shop: Installation) -> None:
    newer = orders(kind=(MORE_KINDS, ...), note=(str, ...))
    shop.release(newer)
    shop.send(order(3, kind="returned", note="blue"), order(4, note="red"))
    shop.run()
    # The older release starts, leaves the column alone, and blames no row for what it does not know.
    assert shop.release(orders()) == []
    [says] = schema.surplus(shop.settings, [shop.stream])
    assert "(note)" in says
    shop.send(order(5), order(6, kind="returned", note="green"))
    shop.run()
    assert contract_check(shop).passed
    assert shop.rows("note") == [(None,), (None,), (None,), ("blue",), ("red",), (None,)]
    assert shop.counts() == {"placed": 4, "cancelled": 1, "returned": 1}
    shop.assert_closed()
    # And the newer one again: what came in between and was rejected is an event.
    assert shop.release(newer) == []
    assert [outcome.outcome for outcome in shop.replay()] == ["fails", "passes"]
    assert shop.counts()["returned"] == 2
    shop.assert_closed()


@pytest.mark.parametrize(
    ("windows", "counted"),
    [
        (TumblingWindow("10s", by="customer", idle="0s"), {"placed": 2, "cancelled": 1, "ann": 1}),
        (TumblingWindow("1min", by="kind", idle="0s"), {"placed": 3, "cancelled": 1}),
    ],
)
def test_windows_are_changed(
    windows: TumblingWindow, counted: dict[str, int], shop: Installation
) -> None:
    """Counts of before stay as they are, and the audit says so: another stream counts otherwise."""
    assert shop.release(orders(windows=windows)) == []
    shop.send(order(40))
    shop.run()
    assert shop.counts() == counted
    assert shop.windows().differing


@pytest.mark.parametrize(
    ("newer", "event", "outcomes"),
    [
        (orders(total=(int, ...)), order(3, **FOR_LATER), ["dead_lettered", "stored"]),
        (orders(note=(str, ...)), order(3), None),
    ],
)
def test_a_record_that_two_contracts_judge_is_named_by_the_audit(
    newer: Stream, event: dict[str, Any], outcomes: list[str] | None, shop: Installation
) -> None:
    """The validator had read it under the older contract and the loader had not: why the workers must have
    caught up before a release, unless both contracts take what is being sent."""
    shop.send(event)
    shop.run_validator()
    shop.release(newer)
    found = shop.ledger().get(4)
    assert (None if found is None else sorted(found)) == outcomes
