"""Raw limits: how fast broker, database and client library are without our code.

They are timed as the workers are: from the end of the first step to the end, without connecting or
joining.
"""

import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from itertools import cycle, islice
from typing import Any, Final

from confluent_kafka import Consumer, Producer, TopicPartition
from psycopg import sql

from streamflow.errors import Unavailable
from streamflow.kafka import clients, offsets
from streamflow.kafka.producing import produce
from streamflow.kafka.transactions import transactional_producer
from streamflow.postgres.connections import session
from streamflow.postgres.partitions import DayPartitions
from streamflow.postgres.schema import upgrade
from streamflow.postgres.tables import event_table
from streamflow.records import OutRecord
from streamflow.settings import Settings
from streamflow.stream import Stream
from streamflow_bench.sources import Keyed

BARE_TABLE: Final = "bare_events"

_TIMEOUT: Final = 60.0  # seconds
_BATCH: Final = 50_000
_TURN: Final = 0.2  # seconds
_TRANSACTION: Final = 10_000  # records: as many as the validator takes
_SAMPLE: Final = 50_000  # records
_PIECE: Final = 1_000_000  # bytes


def bare_produce(settings: Settings, topic: str, records: Iterable[Keyed]) -> float:
    """Returns the acknowledged records a second. Raises as `send_all`."""
    client = clients.producer(settings)
    records = iter(records)
    send_all(client, topic, islice(records, 1))
    began = time.monotonic()
    count = send_all(client, topic, records)
    return count / (time.monotonic() - began)


def send_all(client: Producer, topic: str, records: Iterable[Keyed]) -> int:
    """Returns the number of records, once all are acknowledged; raises Unavailable if they are not."""
    count = 0
    for key, value in records:
        count += 1
        try:
            client.produce(topic, value, key)
        except BufferError:
            produce(client, OutRecord(topic, key, value, []))
    if client.flush(_TIMEOUT):
        raise Unavailable(f"Kafka did not acknowledge all records within {_TIMEOUT:g} s")
    return count


def bare_consume(settings: Settings, topic: str, total: int) -> float | None:
    """Consumes a topic that holds `total` records; returns records a second, None if the first call
    returned them all."""
    with closing(reader_of(settings, topic)) as consumer:
        first = done = len(_consumed(consumer))
        began = time.monotonic()
        while done < total:
            done += len(_consumed(consumer))
        seconds = time.monotonic() - began
    return (done - first) / seconds if done > first else None


def reader_of(settings: Settings, topic: str) -> Consumer:
    """A consumer of a whole topic, configured as the workers'."""
    partitions = offsets.partitions_of(clients.admin(settings), [topic])
    consumer = clients.assigned_consumer(
        settings, settings.prefix + "bare", **{"enable.partition.eof": False}
    )
    consumer.assign([TopicPartition(*partition, 0) for partition in partitions])
    return consumer


def _consumed(consumer: Consumer) -> list[Any]:
    deadline = time.monotonic() + _TIMEOUT
    while True:
        with clients.kafka_errors():
            messages = consumer.consume(_BATCH, _TURN)
        for message in messages:
            if message.error() is not None:
                raise Unavailable(f"Kafka: {message.error()}")
        if messages:
            return messages
        if time.monotonic() > deadline:
            raise Unavailable(f"Kafka sent no record for {_TIMEOUT:g} s")


def sample_of(settings: Settings, topic: str, total: int) -> list[OutRecord]:
    """The first records of a topic, to be produced again; at most 50,000."""
    wanted = min(total, _SAMPLE)
    records: list[OutRecord] = []
    with closing(reader_of(settings, topic)) as consumer:
        while len(records) < wanted:
            records += [
                OutRecord(topic, message.key(), message.value(), message.headers() or [])
                for message in _consumed(consumer)
            ]
    return records[:wanted]


def bare_transactions(
    settings: Settings, topic: str, sample: list[OutRecord], total: int
) -> float | None:
    """Produces `total` records, repeating the sample, in transactions as large as the validator's; returns
    records a second, None if one transaction held all."""
    client = transactional_producer(settings, settings.prefix + "bare")
    records = islice(cycle(sample), total)
    _transact(client, topic, records)
    began = time.monotonic()
    count = 0
    while done := _transact(client, topic, records):
        count += done
    return count / (time.monotonic() - began) if count else None


def _transact(client: Producer, topic: str, records: Iterator[OutRecord]) -> int:
    with clients.kafka_errors():
        client.begin_transaction()
        count = 0
        for _, key, value, headers, _ in islice(records, _TRANSACTION):
            count += 1
            client.produce(topic, value, key, headers=headers)  # type: ignore[arg-type]
        client.commit_transaction(_TIMEOUT)
    return count


def bare_copy(settings: Settings, stream: Stream) -> float | None:
    """Copies the rows of a stream's table into a new table with the same partitions and indexes, in one
    COPY; returns rows a second, None if there are none."""
    columns = sql.SQL(", ").join(map(sql.Identifier, event_table(stream).columns))
    upgrade(settings, [replace(stream, table=BARE_TABLE)])
    with session(settings, "bench") as connection, tempfile.TemporaryFile() as file:
        source, target = sql.Identifier(stream.event_table), sql.Identifier(BARE_TABLE)
        days = connection.execute(
            sql.SQL("SELECT DISTINCT (timestamp AT TIME ZONE 'UTC')::date FROM {}").format(source)
        ).fetchall()
        DayPartitions(BARE_TABLE).prepare(connection, [day for (day,) in days])
        copy_out = sql.SQL("COPY (SELECT {} FROM {}) TO STDOUT").format(columns, source)
        copy_in = sql.SQL("COPY {} ({}) FROM STDIN").format(target, columns)
        cursor = connection.cursor()
        with cursor.copy(copy_out) as rows:
            file.writelines(map(bytes, rows))
        file.seek(0)
        began = time.monotonic()
        with cursor.copy(copy_in) as rows:
            while piece := file.read(_PIECE):
                rows.write(piece)
        seconds = time.monotonic() - began
        return cursor.rowcount / seconds if cursor.rowcount else None
