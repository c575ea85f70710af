"""The fixtures that come with the distribution, as a project's own tests use them."""

import re
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import psycopg
import pytest
from confluent_kafka.admin import AdminClient

from streamflow import InvalidEvent, UsageError
from streamflow_pytest.kafka import Kafka
from streamflow_pytest.plugin import StackFactory

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]


def test_a_database_of_its_own_is_empty(postgres: str) -> None:
    with psycopg.connect(postgres) as connection:
        connection.execute("CREATE TABLE same_name (id int)")
        tables = connection.execute("SELECT FROM pg_tables WHERE schemaname = 'public'").fetchall()
    assert len(tables) == 1


def test_the_next_test_has_another_database(postgres: str) -> None:
    test_a_database_of_its_own_is_empty(postgres)


SEEN: list[Kafka] = []


@pytest.mark.parametrize("turn", [1, 2])
def test_topics_of_an_earlier_test_are_gone(kafka: Kafka, turn: int) -> None:
    client = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    topics = client.list_topics(timeout=30).topics
    for earlier in SEEN:
        assert earlier.prefix != kafka.prefix
        assert earlier.bootstrap_servers == kafka.bootstrap_servers
        assert not [name for name in topics if name.startswith(earlier.prefix)]
    assert len(SEEN) == turn - 1
    kafka.create_topic("mine")
    SEEN.append(kafka)


ORDERS = "order_streams:ORDERS"
ORDER = {
    "type": "ORDER_PLACED",
    "customer": "ann",
    "amount_cents": 250,
    "items": [],
    "timestamp": "2026-03-01T12:00:00Z",
}


def test_events_become_rows(streamflow_stack: StackFactory) -> None:
    stack = streamflow_stack(ORDERS)
    contract = stack.stream().contract
    stack.produce(ORDER, contract.model_validate(ORDER | {"customer": "bob"}), b"{")
    rows = stack.wait_for_rows("SELECT customer, amount_cents FROM orders ORDER BY 1", count=2)
    assert rows == [
        {"customer": "ann", "amount_cents": 250},
        {"customer": "bob", "amount_cents": 250},
    ]
    [dead] = stack.wait_for_rows("SELECT error_code FROM dead_letters")
    assert dead == {"error_code": "INVALID_JSON"}
    assert stack.audit().closed
    with pytest.raises(InvalidEvent, match="SCHEMA_VIOLATION: amount_cents"):
        stack.produce(ORDER | {"amount_cents": Decimal("0.5")})


def test_a_worker_that_has_ended_fails_the_wait_at_once(streamflow_stack: StackFactory) -> None:
    stack = streamflow_stack(ORDERS)
    loader = stack._children[-1]
    loader.kill()
    with pytest.raises(AssertionError, match="the loader was ended by SIGKILL; its log ends"):
        stack.wait_for_rows("SELECT FROM orders", timeout=60)


def test_several_streams_are_told_apart(streamflow_stack: StackFactory) -> None:
    stack = streamflow_stack("streamflow.streams.user_events:USER_EVENTS", ORDERS)
    with pytest.raises(UsageError, match=r"say which: stream= one of user-events, orders"):
        stack.produce(ORDER)
    stack.produce(ORDER, stream="orders")
    stack.wait_for_rows("SELECT FROM orders WHERE customer = %s", "ann")


def test_the_plugin_costs_other_projects_nothing() -> None:
    code = (
        "import pytest, sys; before = {*sys.modules}; import streamflow_pytest.plugin; "
        "print(*{name.partition('.')[0] for name in {*sys.modules} - before} - sys.stdlib_module_names)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["streamflow_pytest"]


def test_a_new_project_passes_its_own_test_and_those_on_the_page(tmp_path: Path) -> None:
    def run(name: str, *arguments: str, folder: Path) -> str:
        program = Path(sys.executable).with_name(name)
        done = subprocess.run(
            [program, *arguments], cwd=folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run("streamflow", "new", "shop", folder=tmp_path)
    shop = tmp_path / "shop"
    assert (shop / ".gitignore").read_text() == ".streamflow/\n"
    assert (shop / "README.md").read_text().startswith("# shop\n")
    page = (ROOT / "docs" / "testing.md").read_text()
    [block] = re.findall(r"```python\n(.+?)```", page, re.DOTALL)
    (shop / "test_page.py").write_text(block)
    assert "4 passed" in run("pytest", "-q", "-W", "error", folder=shop)
