"""With a real Kafka and a real PostgreSQL, which the fixtures of StreamFlow start."""

from datetime import UTC, datetime

from my_streams import Order

from streamflow_pytest.plugin import StackFactory

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def test_orders_become_rows_and_windows(streamflow_stack: StackFactory) -> None:
    stack = streamflow_stack("my_streams:ORDERS")
    order = Order(
        type="ORDER_PLACED", customer="ann", country="DE", amount_cents=250, timestamp=NOON
    )
    stack.produce(order, order.model_copy(update={"customer": "bob"}), b"not JSON")

    rows = stack.wait_for_rows("SELECT customer FROM orders ORDER BY customer", count=2)
    assert [row["customer"] for row in rows] == ["ann", "bob"]
    [dead_letter] = stack.wait_for_rows("SELECT error_code FROM dead_letters")
    assert dead_letter["error_code"] == "INVALID_JSON"
    [window] = stack.wait_for_rows("SELECT country, orders, revenue FROM orders_10s_totals")
    assert window == {"country": "DE", "orders": 2, "revenue": 500}
    assert stack.audit().closed
