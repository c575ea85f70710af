"""Bytewax: tumbling windows by type, over all partitions. Its Kafka source commits nothing by itself: offsets
are committed as read, for the bench to see its progress."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import bytewax.operators as op
import bytewax.operators.windowing as w
import orjson
from bytewax.connectors.kafka import KafkaSink, KafkaSinkMessage, KafkaSource
from bytewax.dataflow import Dataflow
from bytewax.run import cli_main
from login_events import CONSUMER, GRACE, KAFKA, OUTPUT, PRODUCER, TOPIC, WINDOW, LoginEvent, read

BATCH = 10_000


def by_type(messages: list[Any]) -> Iterator[tuple[str, LoginEvent]]:
    for message in messages:
        try:
            event = read(message.value)
        except ValueError:
            continue
        yield event.type, event


def record(counted: tuple[str, tuple[int, int]]) -> KafkaSinkMessage[bytes, bytes]:
    kind, (window, count) = counted
    body = {"window_start": window * WINDOW, "event_type": kind, "count": count}
    return KafkaSinkMessage(kind.encode(), orjson.dumps(body))


flow = Dataflow("analytics")
shown = {"enable.auto.commit": "true", "auto.commit.interval.ms": "100"}
source = KafkaSource(
    [KAFKA["bootstrap.servers"]],
    [TOPIC],
    tail=False,
    batch_size=BATCH,
    add_config={key: str(value) for key, value in CONSUMER.items()} | shown,
)
events = op.flat_map_batch("by-type", op.input("events", flow, source), by_type)
counts = w.count_window(
    "count",
    events,
    w.EventClock(
        ts_getter=lambda keyed: keyed[1].timestamp,
        wait_for_system_duration=timedelta(seconds=GRACE),
    ),
    w.TumblingWindower(length=timedelta(seconds=WINDOW), align_to=datetime.fromtimestamp(0, UTC)),
    key=lambda keyed: keyed[0],
)
sink = KafkaSink([KAFKA["bootstrap.servers"]], OUTPUT, PRODUCER)
op.output("windows", op.map("record", counts.down, record), sink)

if __name__ == "__main__":
    cli_main(flow)
