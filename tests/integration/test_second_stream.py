"""A stream of one's own, as the tutorial shows it: one file, one variable, and nothing else."""

import re
import sys
from contextlib import AbstractContextManager
from pathlib import Path

import dagster as dg
import orjson
import psycopg
import pytest

from faults import wait_until
from loads import execute, rows
from orchestration import Orchestration, broken, metadata_of, orchestrated
from pipeline import WorkerProcess, count, event, events, produce, stored_values, streamflow
from streamflow.kafka.clients import admin
from streamflow.kafka.topics import provision
from streamflow.postgres import schema
from streamflow.registry import load_streams
from streamflow.settings import Settings
from streaming_workers.drain import drain

pytestmark = pytest.mark.integration

# What a stream may bring beside its contract: a simulator, and a rollup of its own.
HOOKS = """
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from streamflow import DailyRollup, Simulated

def simulate(hasher, *, seed, invalid_ratio):
    for number in count(seed or 0):
        moment = datetime.now(UTC).isoformat()
        order = (
            f'{{"type":"ORDER_PLACED","customer":"c{number}","country":"DE","amount_cents":7,'
            f'"timestamp":"{moment}"}}'
        )
        yield Simulated(b"key", order.encode(), None)

BIG_SPENDERS = DailyRollup(
    table="big_spenders",
    description="Customers by what they spent.",
    columns={"customer": "text not null", "cents": "bigint not null"},
    query="SELECT customer, sum(amount_cents)::bigint FROM {table} WHERE timestamp >= %(start)s"
    " AND timestamp < %(end)s GROUP BY 1 HAVING sum(amount_cents) >= %(least)s",
    parameters=lambda settings: {"least": settings.burst_failures_overall},
    order="cents DESC",
)
SHOP = replace(ORDERS, simulate=simulate, rollups=(BIG_SPENDERS,))
"""
ALL_COUNTED = "SELECT coalesce(sum(count), 0)::int FROM window_counts"
TUTORIAL = Path(__file__).parents[2] / "docs/tutorial.md"
STREAMS = "streamflow.streams.user_events:USER_EVENTS,my_streams:ORDERS"


def own_module(folder: Path, streams: str, more: str = "") -> dict[str, str]:
    """Writes the tutorial's module, and returns the environment that makes its streams known."""
    found = re.search(r"```python\n(# my_streams\.py\n.*?)```", TUTORIAL.read_text(), re.DOTALL)
    assert found is not None
    (folder / "my_streams.py").write_text(found[1] + more)
    return {"STREAMFLOW_STREAMS": streams, "PYTHONPATH": ":".join([str(folder), *sys.path])}


@pytest.mark.chaos  # a minute; the test of the tutorial does as much
def test_the_tutorial_s_stream_is_loaded_counted_and_audited(
    stack_settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = own_module(tmp_path, STREAMS)
    done = streamflow(stack_settings, "init", **own)
    assert done.returncode == 0, done.stderr

    orders = [
        orjson.dumps(
            {
                "type": "ORDER_PLACED" if number % 3 else "ORDER_CANCELLED",
                "customer": f"customer-{number % 7}",
                "country": "DE" if number % 3 else "FR",
                "amount_cents": number,
                "timestamp": f"2026-03-01T12:00:{number % 60:02d}.000Z",
            }
        )
        for number in range(90)
    ]
    produce(stack_settings, "orders", [*orders, b'{"type": "ORDER_LOST"}'])
    produce(stack_settings, "user-events", events(40)[0])
    workers = [
        WorkerProcess(stack_settings, name, tmp_path / f"{name}.log", **own)
        for name in ("validator", "analytics", "loader")
    ]
    try:
        wait_until(lambda: count(stack_settings, "SELECT count(*) FROM orders") == 90, 60)
        audit = streamflow(stack_settings, "audit", "--json", **own)
        assert audit.returncode == 0, audit.stdout + audit.stderr
        topics = {each["topic"] for each in orjson.loads(audit.stdout)["partitions"]}
        assert f"{stack_settings.prefix}orders" in topics

        def totals() -> list[tuple[str, int, int]]:
            return rows(
                stack_settings,
                "SELECT country, sum(orders)::int, sum(revenue)::int FROM orders_10s_totals"
                " GROUP BY 1 ORDER BY 1",
            )

        of_france = sum(range(0, 90, 3))
        wait_until(
            lambda: totals() == [("DE", 60, sum(range(90)) - of_france), ("FR", 30, of_france)], 60
        )
        wait_until(lambda: count(stack_settings, ALL_COUNTED) == 40, 60)
        assert count(stack_settings, "SELECT count(*) FROM dead_letters") == 1
        # Also the last notification, which the audit of above need not have seen.
        wait_until(lambda: streamflow(stack_settings, "audit", "--json", **own).returncode == 0, 60)
    finally:
        for worker in workers:
            worker.kill()
    # The table is of the stream's contract.
    with psycopg.connect(stack_settings.database) as connection:
        row = connection.execute(
            "SELECT sum(amount_cents)::int, count(DISTINCT customer) FROM orders"
        ).fetchone()
    assert row == (sum(range(90)), 7)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_streams", raising=False)
    with dg.DagsterInstance.ephemeral() as instance:
        settings = orchestrated(stack_settings, STREAMFLOW_STREAMS=STREAMS)
        one_stream_s_fault_turns_one_stream_red(Orchestration(instance, settings))


def one_stream_s_fault_turns_one_stream_red(one: Orchestration) -> None:
    def verdicts() -> dict[str, str]:
        streams = one.platform.audit(one.settings).streams
        return {name: str(part.verdict) for name, part in streams.items()}

    def green(table: str) -> set[str]:
        """Checks of a stream's table that pass."""
        names = ("ledger_closes", "columns_keep_contract", "few_dead_letters")
        return {name for name in names if one.check(f"postgres/{table}", name).passed}

    def without(table: str, topic: str) -> AbstractContextManager[None]:
        """Inside, a row of this origin is missing."""
        row = f"FROM {table} WHERE origin_topic = '{one.settings.prefix}{topic}'"
        return broken(
            one.settings,
            f"CREATE TABLE kept AS SELECT * {row} LIMIT 1",
            f"DELETE {row} AND origin_offset = (SELECT origin_offset FROM kept)"
            " AND origin_partition = (SELECT origin_partition FROM kept)",
            mend=[f"INSERT INTO {table} SELECT * FROM kept", "DROP TABLE kept"],
        )

    every = {"ledger_closes", "columns_keep_contract", "few_dead_letters"}
    assert verdicts() == {"user-events": "closed", "orders": "closed"}
    with without("orders", "orders"):
        assert verdicts() == {"user-events": "closed", "orders": "open"}
        assert green("events") == every
        assert green("orders") == every - {"ledger_closes"}
    # The topic of the notifications is shared: the missing record says whose it was.
    with without("notifications", "user-events"):
        assert verdicts() == {"user-events": "open", "orders": "closed"}
    # A query that fails because of one table keeps nobody else from an answer.
    with broken(
        one.settings,
        "ALTER TABLE orders RENAME COLUMN timestamp TO moment",
        mend=["ALTER TABLE orders RENAME COLUMN moment TO timestamp"],
    ):
        assert verdicts() == {"user-events": "closed", "orders": "open"}
        report = one.platform.audit(one.settings).of_stream("orders")
        assert "cannot be audited: PostgreSQL refuses the query (42703: column" in str(
            report.problems[0]
        )
        assert green("events") == every
        assert green("orders") == {"few_dead_letters"}
        hour = "2026-03-01-12:00"
        rolled = one.materialize("rollups/hourly_events", partition=hour)
        assert not rolled.success
        rolled_up = "SELECT stream, sum(events)::int FROM hourly_events GROUP BY 1"
        assert rows(one.settings, rolled_up) == [("user-events", 40)]
    assert verdicts() == {"user-events": "closed", "orders": "closed"}


def test_streams_that_cannot_work_stop_no_other_and_go_on_where_they_were(
    stack_settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One's declaration breaks, the other's table was changed by hand. Mended, nothing of theirs is lost."""
    own = own_module(tmp_path, f"{STREAMS},broken_streams:SHOP")
    module = tmp_path / "broken_streams.py"
    sound = (
        "from dataclasses import replace\nfrom my_streams import ORDERS\n"
        "SHOP = replace(ORDERS, name='shop', table='shop')\n"
    )
    module.write_text(sound)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("my_streams", "broken_streams"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    paths = tuple(own["STREAMFLOW_STREAMS"].split(","))
    settings = stack_settings.model_copy(update={"streams": paths})
    streams = load_streams(settings)
    tables = {stream.topic: stream.table for stream in streams}
    schema.upgrade(settings, streams)
    provision(settings, streams)

    def send(numbers: range) -> None:
        for topic in ("orders", "shop"):
            orders = (
                {
                    "type": "ORDER_PLACED",
                    "customer": f"customer-{number}",
                    "country": "DE",
                    "amount_cents": number,
                    "timestamp": "2026-03-01T12:00:00.000Z",
                }
                for number in numbers
            )
            produce(settings, topic, [orjson.dumps(order) for order in orders])
        produce(settings, "user-events", [event(number) for number in numbers])

    def stored() -> dict[str, int]:
        return {
            table: count(settings, f"SELECT count(*) FROM {table}") for table in tables.values()
        }

    send(range(10))
    drain(settings, streams, tables, patience=0)
    assert stored() == {"events": 10, "orders": 10, "shop": 10}

    module.write_text(f"{sound}S = (\n")
    execute(settings, "ALTER TABLE orders RENAME amount_cents TO cents")
    done = streamflow(settings, "init", **own)
    why = f"broken_streams:SHOP does not start: {module}, line 4: '(' was never closed"
    assert done.returncode == 1
    assert f"warning: {why}" in done.stderr
    assert "error: stream orders: the contract has no field cents" in done.stderr
    send(range(10, 20))
    logs = {name: tmp_path / f"{name}.log" for name in ("loader", "validator")}
    running = [WorkerProcess(settings, name, log, **own) for name, log in logs.items()]
    try:
        notified = "SELECT count(*) FROM notifications"
        wait_until(lambda: (stored()["events"], count(settings, notified)) == (20, 20), 60)
        assert [worker.stop() for worker in running] == [0, 0]
    finally:
        for worker in running:
            worker.kill()
    assert stored() == {"events": 20, "orders": 10, "shop": 10}
    assert all('"stream failed"' in log.read_text() for log in logs.values())
    assert '"stream not loaded"' in logs["loader"].read_text()
    _require_audited(settings, own, why)

    module.write_text(sound)
    execute(settings, "ALTER TABLE orders RENAME cents TO amount_cents")
    drain(settings, streams, tables, patience=0)
    assert stored() == {"events": 20, "orders": 20, "shop": 20}
    for topic, table in tables.items():
        # Each record once.
        query = f"SELECT DISTINCT origin_topic, origin_partition, origin_offset FROM {table}"
        assert {origin for origin, _, _ in rows(settings, query)} == {topic}
        assert len(rows(settings, query)) == 20


def _require_audited(settings: Settings, own: dict[str, str], why: str) -> None:
    """All streams but the one that cannot start, and one alone."""
    audit = streamflow(settings, "audit", "--wait", "0", **own)
    assert (audit.returncode, why in audit.stderr) == (1, True)
    assert audit.stdout.endswith("Not audited: broken_streams:SHOP, which cannot start.\n")
    alone = streamflow(settings, "audit", "--wait", "0", "--stream", "user-events", "--json", **own)
    assert list(orjson.loads(alone.stdout)["streams"]) == ["user-events"]
    unknown = streamflow(settings, "audit", "--stream", "user-event", **own)
    assert (unknown.returncode, "did you mean user-events?" in unknown.stderr) == (2, True)


def test_each_stream_is_simulated_into_its_own_topic(
    stack_settings: Settings, tmp_path: Path
) -> None:
    own = own_module(tmp_path, STREAMS)
    assert streamflow(stack_settings, "init", **own).returncode == 0

    def sent_to(topic: str) -> list[bytes | None]:
        return stored_values(stack_settings, topic)

    one = ("produce", "--stream", "orders", "--rate", "1000", "--invalid-ratio", "0.5", "--json")
    done = streamflow(stack_settings, *one, "--count", "40", **own)
    assert done.returncode == 0, done.stderr
    said = orjson.loads(done.stdout)
    assert (said["sent"], len(sent_to("orders"))) == (40, 40)
    assert 0 < said["valid"] < 40
    assert sent_to("user-events") == []

    done = streamflow(stack_settings, "produce", "--all", "--count", "7", "--rate", "1000", **own)
    assert done.returncode == 0, done.stderr
    assert "sent 14 events" in done.stdout
    events = [orjson.loads(value or b"") for value in sent_to("user-events")]
    assert {event["type"].partition("_")[0] for event in events} == {"USER"}
    orders = sent_to("orders")
    assert (len(events), len(orders)) == (7, 47)
    assert not any(b"USER_" in (value or b"") for value in orders)

    # A topic that is missing stops no other stream.
    client, topic = admin(stack_settings), f"{stack_settings.prefix}orders"
    client.delete_topics([topic])[topic].result(20)
    wait_until(lambda: topic not in client.list_topics(timeout=10).topics, 20)
    done = streamflow(stack_settings, "produce", "--all", "--count", "1", "--rate", "1000", **own)
    assert done.returncode == 0, done.stderr
    assert f"warning: topic {topic} does not exist: run `streamflow init`" in done.stderr
    assert len(sent_to("user-events")) == 8


def test_a_stream_brings_its_simulator_and_its_rollup(
    stack_settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = own_module(tmp_path, "my_streams:SHOP", HOOKS)
    assert streamflow(stack_settings, "init", **own).returncode == 0
    done = streamflow(stack_settings, "produce", "--count", "5", "--rate", "1000", **own)
    assert done.returncode == 0, done.stderr
    loader = WorkerProcess(stack_settings, "loader", tmp_path / "loader.log", **own)
    try:
        wait_until(lambda: count(stack_settings, "SELECT count(*) FROM orders") == 5, 60)
    finally:
        loader.kill()

    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_streams", raising=False)
    with dg.DagsterInstance.ephemeral() as instance:
        settings = orchestrated(stack_settings, STREAMFLOW_STREAMS="my_streams:SHOP")
        one = Orchestration(instance, settings)
        assets = {key.to_user_string() for key in one.definitions.resolve_all_asset_keys()}
        assert "rollups/big_spenders" in assets
        # Those of the example are not there.
        assert not {"rollups/login_failure_bursts", "rollups/daily_active_users"} & assets
        for least, spenders in ((7, 5), (8, 0)):
            one.change(burst_failures_overall=least)
            # Only days with newly loaded rows are computed again.
            execute(stack_settings, "DELETE FROM rollup_progress")
            result = one.run("roll_days")
            assert result.success
            assert metadata_of(result, "rollups/big_spenders")["rows"] == spenders
            found = rows(stack_settings, "SELECT stream, customer, cents FROM big_spenders")
            assert len(found) == spenders
            assert {(stream, cents) for stream, _, cents in found} <= {("orders", 7)}
