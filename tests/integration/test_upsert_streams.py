"""Upsert streams from the declaration to the audit: real workers, tombstones, Debezium, a killed loader."""

import json
import sys
from pathlib import Path

import orjson
import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, OffsetSpec, ResourceType

from faults import wait_until
from loads import execute, rows
from pipeline import WorkerProcess, count, stored_values, streamflow, workers
from streamflow.kafka import clients
from streamflow.kafka.producing import produce_all
from streamflow.records import OutRecord
from streamflow.settings import Settings

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("exact_row_counts")]

MODULE = """
from streamflow import Debezium, EpochMillis, Event, Notification, Stream, Timestamp, Topics
from streamflow import TumblingWindow

ONE = Topics(
    partitions=1, analytics="up-analytics", notifications="up-notes", dead_letters="up-letters"
)


class Customer(Event):
    id: int
    name: str
    at: Timestamp


class Product(Event):
    sku: str
    shop: int
    price: int
    changed: EpochMillis


CUSTOMERS = Stream(
    name="up-customers", contract=Customer, table="up_customers", key="id", event_time="at",
    mode="upsert", primary_key=("id",), topics=ONE, windows=TumblingWindow("10s"),
    notify=lambda customer: Notification(f"{customer.name} changed", customer.id, "u"),
)
PRODUCTS = Stream(
    name="up-products", contract=Product, table="up_products", key=lambda each: f"{each.shop}/{each.sku}",
    event_time="changed", mode="upsert", primary_key=("shop", "sku"), topics=ONE,
    unknown_fields="ignore", decode=Debezium(),
)
"""
AT = 1_772_366_400_000


def customer(key: int, name: str) -> tuple[bytes, bytes]:
    return str(key).encode(), orjson.dumps(
        {"id": key, "name": name, "at": "2026-03-01T12:00:00.000Z"}
    )


def change(operation: str, sku: str, price: int | None) -> tuple[bytes, bytes]:
    row = {"sku": sku, "shop": 1, "price": price or 0, "changed": AT, "more": None}
    before, after = (row, None) if operation == "d" else (None, row)
    envelope = {"op": operation, "before": before, "after": after, "source": {"lsn": 1}}
    return json.dumps({"sku": sku, "shop": 1}).encode(), json.dumps(envelope).encode()


def send(settings: Settings, topic: str, pairs: list[tuple[bytes | None, bytes | None]]) -> None:
    client = clients.producer(settings)
    produce_all(
        client, (OutRecord(settings.prefix + topic, key, value, []) for key, value in pairs)
    )
    assert client.flush(60) == 0


def test_upsert_streams(stack_settings: Settings, tmp_path: Path) -> None:
    settings = stack_settings
    (tmp_path / "up_streams.py").write_text(MODULE)
    own = {
        "STREAMFLOW_STREAMS": "up_streams:CUSTOMERS,up_streams:PRODUCTS",
        "PYTHONPATH": ":".join([str(tmp_path), *sys.path]),
    }
    done = streamflow(settings, "init", **own)
    assert done.returncode == 0, done.stderr
    send(settings, "up-customers", [
        customer(1, "ann"), customer(2, "bob"), (b"3", b'{"id": 3, "name": 3}'), customer(1, "anna"),
        (b"2", None), (b"three", None), (None, None), (b"3", b""), customer(3, "cleo"), (b"4", None),
    ])  # fmt: skip
    send(settings, "up-products", [
        change("r", "a", 10), change("c", "b", 20), change("u", "a", 11), change("d", "b", None),
        (change("d", "b", None)[0], None), change("c", "c", 30),
    ])  # fmt: skip
    with workers(settings, tmp_path, **own) as running:
        wait_until(lambda: count(settings, "SELECT count(*) FROM up_customers_changes") == 6, 60)
        wait_until(lambda: count(settings, "SELECT count(*) FROM dead_letters") == 4, 60)
        wait_until(lambda: count(settings, "SELECT count(*) FROM up_products_changes") == 5, 60)
        # While it stores more, the loader is killed; another one goes on.
        send(settings, "up-customers", [customer(n % 50 + 10, f"n{n}") for n in range(5_000)])
        wait_until(lambda: count(settings, "SELECT count(*) FROM up_customers_changes") > 6, 60)
        running["loader"].kill()
        send(settings, "up-customers", [(str(n).encode(), None) for n in range(10, 30)])
        running["loader"] = WorkerProcess(
            settings,
            "loader",
            tmp_path / "again.log",
            "--instance",
            f"{settings.prefix}loader",
            **own,
        )
        wait_until(
            lambda: count(settings, "SELECT count(*) FROM up_customers_changes") == 5_026, 60
        )
        assert count(settings, "SELECT count(*) FROM up_customers") == 32
        assert dict(rows(settings, "SELECT id, name FROM up_customers WHERE id < 10")) == {
            1: "anna", 3: "cleo"
        }  # fmt: skip
        assert rows(settings, "SELECT shop, sku, price FROM up_products ORDER BY sku") == [
            (1, "a", 11), (1, "c", 30)
        ]  # fmt: skip
        assert dict(rows(settings, "SELECT error_code, count(*) FROM dead_letters GROUP BY 1")) == {
            "SCHEMA_VIOLATION": 3, "EMPTY_VALUE": 1,
        }  # fmt: skip
        # The record that broke its contract is mended, and older than what its key has since.
        execute(settings, "UPDATE dead_letters SET value = convert_to("
                          "'{\"id\":3,\"name\":\"old\",\"at\":\"2026-03-01T12:00:00Z\"}', 'UTF8')"
                          " WHERE source_offset = 2 AND stage = 'validator'")  # fmt: skip
        replayed = streamflow(
            settings,
            "dlq",
            "replay",
            "--id",
            f"{settings.prefix}up-customers/0/2",
            "--apply",
            **own,
        )
        assert replayed.returncode == 0, replayed.stdout + replayed.stderr
        wait_until(lambda: count(settings, "SELECT count(*) FROM replayed_events") == 1, 60)
        audit = streamflow(settings, "audit", **own)
        assert audit.returncode == 0, audit.stdout + audit.stderr
        assert dict(rows(settings, "SELECT id, name FROM up_customers WHERE id < 12")) == {
            1: "anna", 3: "cleo"
        }  # fmt: skip
        execute(settings, "UPDATE up_products_state SET price = 12 WHERE sku = 'a'")
        audit = streamflow(settings, "audit", **own)
        assert audit.returncode == 1
        assert (
            "its row in up_products_state is not what it is in up_products_changes" in audit.stdout
        )


SHARED = """
from streamflow import Event, Notification, Stream, Timestamp, Topics, TumblingWindow


class Price(Event):
    sku: str
    price: int
    at: Timestamp


PRICES = Stream(
    name="their-prices", contract=Price, table="their_prices", key="sku", event_time="at",
    topics=Topics(managed=False), windows=TumblingWindow("10s", by="sku"),
    notify=lambda price: Notification(price.sku, price.price, "u"),
)
"""


def end_of(client: AdminClient, topic: str) -> int:
    """Offset behind the newest record of its only partition."""
    only = TopicPartition(topic, 0)
    [asked] = client.list_offsets({only: OffsetSpec.latest()}).values()
    return int(asked.result(20).offset)


# The log cleaner takes its time; how an audit counts what is gone is in `test_audit.py`.
@pytest.mark.chaos
def test_a_compacted_topic_of_another_team(stack_settings: Settings, tmp_path: Path) -> None:
    """What its compaction removes after it was read stays stored and counted, and is no fault."""
    settings, topic = stack_settings, f"{stack_settings.prefix}their-prices"
    config = {
        "cleanup.policy": "compact", "segment.ms": "100", "min.cleanable.dirty.ratio": "0.01",
    }  # fmt: skip
    client = clients.admin(settings)
    client.create_topics([NewTopic(topic, 1, 1, config=config)])[topic].result(20)
    (tmp_path / "their_prices.py").write_text(SHARED)
    own = {
        "STREAMFLOW_STREAMS": "their_prices:PRICES",
        "PYTHONPATH": ":".join([str(tmp_path), *sys.path]),
    }

    def price(sku: str, cents: int) -> tuple[bytes, bytes]:
        value = {"sku": sku, "price": cents, "at": "2026-03-01T12:00:00Z"}
        return sku.encode(), orjson.dumps(value)

    done = streamflow(settings, "init", **own)
    assert done.returncode == 0, done.stderr
    sent = [*(price(f"s{number % 3}", number) for number in range(30)), (b"s1", b"not JSON")]
    send(settings, "their-prices", sent)
    newest = sorted((sent[27][1], sent[29][1], b"not JSON"))
    with workers(settings, tmp_path, **own):
        wait_until(lambda: count(settings, "SELECT count(*) FROM their_prices") == 30, 60)
        wait_until(lambda: count(settings, "SELECT count(*) FROM dead_letters") == 1, 60)
        proved = streamflow(settings, "audit", **own)
        assert proved.returncode == 0, proved.stdout + proved.stderr

        def is_compacted() -> bool:
            # Only what stands before the newest segment is.
            send(settings, "their-prices", [price("new", 1)])
            left = [value or b"" for value in stored_values(settings, "their-prices")]
            return sorted(value for value in left if b"new" not in value) == newest

        wait_until(is_compacted, 90)
        # Not even a record that would pass now is appended to it.
        mended = price("s1", 1)[1].decode()
        execute(settings, f"UPDATE dead_letters SET value = convert_to('{mended}', 'UTF8')")
        before = end_of(client, topic)
        for options in ((), ("--apply",)):
            replay = streamflow(settings, "dlq", "replay", *options, **own)
            assert replay.returncode == 1, replay.stdout + replay.stderr
            text = " ".join(replay.stdout.split())
            assert "NOT_OURS" in text
            assert "Topics(managed=False, replays=True)" in text
        assert end_of(client, topic) == before
        assert count(settings, "SELECT count(*) FROM dead_letters WHERE status = 'open'") == 1
        audit = streamflow(settings, "audit", "--json", **own)
    found = orjson.loads(audit.stdout)
    assert (audit.returncode, found["verdict"]) == (0, "closed"), audit.stdout
    [ledger] = [each for each in found["partitions"] if each["topic"] == topic]
    assert ledger["compacted"] >= 28
    assert ledger["stored"] == count(settings, "SELECT count(*) FROM their_prices")
    described = client.describe_configs([ConfigResource(ResourceType.TOPIC, topic)])
    [settled] = [future.result(20) for future in described.values()]
    assert {name: settled[name].value for name in config} == config


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ("CUSTOMERS", "APPENDED", 'mode was "upsert" and is "append" now, and up_customers is a view'),
        ("APPENDED", "CUSTOMERS", 'mode was "append" and is "upsert" now, and up_customers is the table'),
    ],
)  # fmt: skip
def test_the_audit_of_another_mode_says_what_check_says(
    before: str, after: str, says: str, stack_settings: Settings, tmp_path: Path
) -> None:
    settings = stack_settings
    (tmp_path / "up_streams.py").write_text(
        f"{MODULE}\nfrom dataclasses import replace\n"
        'APPENDED = replace(CUSTOMERS, mode="append", primary_key=())\n'
    )
    path = ":".join([str(tmp_path), *sys.path])
    own, other = (
        {"STREAMFLOW_STREAMS": f"up_streams:{name}", "PYTHONPATH": path} for name in (before, after)
    )
    done = streamflow(settings, "init", **own)
    assert done.returncode == 0, done.stderr
    send(settings, "up-customers", [customer(1, "ann"), customer(2, "bob")])
    with workers(settings, tmp_path, **own):
        closed = streamflow(settings, "audit", "--wait", "60", **own)
        assert closed.returncode == 0, closed.stdout
        report = json.loads(streamflow(settings, "audit", "--json", "--wait", "0", **other).stdout)
        assert report["verdict"] == "open"
        [problem] = report["problems"]
        assert problem["kind"] == "not_auditable"
        assert says in problem["detail"]
        # Nothing that was proved is forgotten.
        assert streamflow(settings, "audit", "--wait", "60", **own).returncode == 0
