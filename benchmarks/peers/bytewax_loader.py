"""Bytewax: a flow into COPY. Without its recovery store it starts from the beginning after a crash."""

from collections.abc import Iterator
from typing import Any

import bytewax.operators as op
import psycopg
from bytewax.connectors.kafka import KafkaSource
from bytewax.dataflow import Dataflow
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.run import cli_main
from login_events import CONSUMER, COPY, DATABASE, KAFKA, TOPIC, line, read

BATCH = 10_000


class CopyPartition(StatelessSinkPartition[str]):
    def __init__(self) -> None:
        self._database = psycopg.connect(DATABASE, autocommit=True)

    def write_batch(self, items: list[str]) -> None:
        with (
            self._database.transaction(),
            self._database.cursor() as cursor,
            cursor.copy(COPY) as copy,
        ):
            copy.write("".join(items))


class CopySink(DynamicSink[str]):
    def build(self, _step: str, _worker: int, _workers: int) -> CopyPartition:
        return CopyPartition()


def rows(messages: list[Any]) -> Iterator[str]:
    for message in messages:
        try:
            event = read(message.value)
        except ValueError:
            continue
        yield line(event, message.partition, message.offset)


flow = Dataflow("loader")
source = KafkaSource(
    [KAFKA["bootstrap.servers"]],
    [TOPIC],
    batch_size=BATCH,
    add_config={key: str(value) for key, value in CONSUMER.items()},
)
op.output("table", op.flat_map_batch("rows", op.input("events", flow, source), rows), CopySink())

if __name__ == "__main__":
    cli_main(flow)
