"""What the tables and the topics of the shop have, beside DuckDB's answers over the same events."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
from confluent_kafka import Consumer, TopicPartition
from psycopg.rows import dict_row
from shop_rig import ShopRig

from pipeline import stored_values, topic_bounds
from shop_events import Sent
from shop_totals import QUESTIONS, Answers, Row, differences

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
# Columns of the groups, by table.
GROUPS = {
    "orders_10s": ("country",), "orders_5min_by_1min": ("country", "address_city"), "orders_overall": (),
    "orders_sessions_30s": ("customer",), "readings_1min": ("device",), "readings_2min_by_30s": ("device",),
    "readings_sessions_3s": ("device",), "orders_1min": ("country",), "window_counts": ("event_type",),
    "orders_strict": ("kind",),
}  # fmt: skip


def differences_of(rig: ShopRig, events: Sequence[Sent]) -> Iterator[str]:
    """All that is not as DuckDB has it, in words."""
    accepted: dict[str, list[Row]] = {}
    for stream in ("orders", "readings"):
        documents = {
            each.number: each.valid for each in events if each.valid and each.stream == stream
        }
        placed = places(rig, stream)
        doubled = [number for number, where in placed.items() if len(where) > 1]
        if doubled or placed.keys() != documents.keys():
            yield f"the topic {stream} has {doubled} more than once, or not all events"
        accepted[stream] = [
            {**documents[number], "source": partition, "position": offset}
            for number, [(partition, offset), *_] in placed.items()
        ]
    answers = Answers(accepted["orders"], accepted["readings"], rig.directory)
    answers.set("since", rig.since())
    answers.set("now", (datetime.now(UTC) - EPOCH) // MICROSECOND)
    for table in QUESTIONS:
        found, wanted = shown(rig, table), answers.of(table)
        yield from differences(table, found, wanted)
        if "sessions" not in table:
            yield from _records_differ(rig, table, wanted)
    if not any(row["too_late"] for row in shown(rig, "orders_strict").values()):
        yield "no event came too late, so nothing is shown of such"


def places(rig: ShopRig, stream: str) -> dict[int, list[tuple[int, int]]]:
    """Partition and offset of each valid event in its topic, by its number."""
    found: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for partition, offset, value in _log(rig, stream):
        try:
            document = json.loads(value)
        except ValueError:
            continue
        is_broken = str(document.get("total")).endswith(" EUR") or isinstance(
            document.get("at"), str
        )
        if not is_broken:
            found[document["id"]].append((partition, offset))
    return found


def _log(rig: ShopRig, topic: str) -> Iterator[tuple[int, int, bytes]]:
    reader = Consumer(
        {
            "bootstrap.servers": rig.settings.bootstrap,
            "group.id": "shop-checks",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
        }
    )
    for (name, partition), (first, end) in topic_bounds(rig.settings, topic).items():
        reader.assign([TopicPartition(name, partition, first)])
        while reader.position([TopicPartition(name, partition)])[0].offset < end:
            for message in reader.consume(1_000, 1.0):
                assert message.error() is None, message.error()
                yield partition, message.offset() or 0, message.value() or b""
    reader.close()


def shown(rig: ShopRig, table: str) -> dict[Any, Row]:
    """What the view has, or the table where there is none."""
    query = f"SELECT * FROM {table}_totals"
    if "sessions" in table:
        query = f"SELECT *, session_start AS window_start, session_end AS until FROM {table}"
    elif table == "window_counts":
        query = (
            "SELECT window_start, event_type, sum(count)::bigint AS counted"
            " FROM window_counts GROUP BY 1, 2"
        )
    found = {}
    with psycopg.connect(rig.settings.database, row_factory=dict_row) as connection:
        connection.execute("SET timezone = 'UTC'")
        for row in connection.execute(query.encode()):
            key = (_us(row["window_start"]), *(row[column] for column in GROUPS[table]))
            assert key not in found
            if "until" in row:
                row["until"] = _us(row["until"])
            if table == "orders_strict":
                pieces, counted = row["pieces"] or 0, row["counted"]
                row |= {"pieces": pieces, "least_pieces": pieces, "least_counted": counted}
                row["counted"] += row["too_late"]
            found[key] = row
    return found


def _us(moment: datetime) -> int:
    return (moment - EPOCH) // MICROSECOND


def _records_differ(rig: ShopRig, table: str, wanted: dict[Any, Row]) -> Iterator[str]:
    """Whether records of the analytics topic, added up by hand, are those of DuckDB."""
    topic = "reading-windows" if table.startswith("readings") else "order-windows"
    counted: Counter[Any] = Counter()
    revenue: dict[Any, Decimal] = defaultdict(Decimal)
    for value in stored_values(rig.settings, topic):
        body = json.loads(value or b"")
        if body.get("window", "window_counts") != table:
            continue
        start = _us(datetime.fromisoformat(body["window_start"]))
        length = _us(datetime.fromisoformat(body["window_end"])) - start
        group = body["by"].values() if "by" in body else [body["event_type"]]
        for hop in range(HOPS.get(table, 1)):
            key = (start - hop * length, *group)
            counted[key] += body["counted"] + body["too_late"] if "by" in body else body["count"]
            revenue[key] += Decimal(body.get("aggregates", {}).get("revenue") or 0)
    if counted != {key: row["counted"] for key, row in wanted.items()}:
        yield f"records of {table} count other events than DuckDB"
    if any(row.get("revenue", revenue[key]) != revenue[key] for key, row in wanted.items()):
        yield f"records of {table} have another revenue than DuckDB"


HOPS = {"orders_5min_by_1min": 5, "readings_2min_by_30s": 4}
