"""Fills a stage as months of traffic would: rows, positions and topics whose records retention has removed.

For a stack of its own, with nothing in it and no workers running::

    cd benchmarks/scale
    export PYTHONPATH=$PWD
    export STREAMFLOW_STREAMS=streamflow.streams.user_events:USER_EVENTS,scale_streams:MEASUREMENTS
    streamflow up --detach --without validator --without analytics --without loader --without bridge
    eval "$(streamflow env)"
    python fill.py --events 5000000

Positions, ends of topics and what is kept beside the rows fit each other, so the workers go on where it ends.
"""

import argparse
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Final

from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition

from streamflow.kafka.clients import admin, producer
from streamflow.kafka.topic_ids import topic_ids
from streamflow.kafka.topics import provision
from streamflow.postgres import row_counts
from streamflow.postgres.connections import Connection, session
from streamflow.postgres.owned_topics import TopicsTable
from streamflow.postgres.schema import upgrade
from streamflow.postgres.windows.tables import WindowTable, window_tables
from streamflow.registry import load_streams
from streamflow.settings import Settings, load_process_settings
from streamflow.stream import Stream, reads
from streamflow_bench.filling import PARTITIONS, USER_EVENTS, Stage

_WINDOW_SHARE: Final = 10  # one measurement for so many user events
_GROUPS: Final = ("validator", "analytics", "loader")
_AT_ONCE: Final = 10_000

_MEASUREMENTS = """
INSERT INTO measurements (device, room, watts, timestamp, origin_topic, origin_partition, origin_offset,
                          appended_at, loaded_at)
SELECT 'device-' || abs(hashint8(n)) %% 500, 'room-' || abs(hashint8(n)) %% 40, n %% 3000, at,
       %(topic)s, n %% {partitions}, n / {partitions}, at + interval '5 ms', at + interval '50 ms'
  FROM (SELECT n, %(since)s + n * %(step)s::interval AS at
          FROM generate_series(0::bigint, %(number)s - 1) AS n) AS made
"""
_NOTIFICATIONS = """
INSERT INTO notifications (message, "time", event_id, "user", origin_topic, origin_partition, origin_offset,
                           record_topic, record_partition, record_offset, appended_at, loaded_at)
SELECT 'something happened', timestamp, id, "user", origin_topic, origin_partition, origin_offset,
       %(derived)s, origin_partition,
       %(first)s + row_number() OVER (PARTITION BY origin_partition ORDER BY origin_offset) - 1,
       appended_at, loaded_at
  FROM events
"""
_WINDOW_COUNTS = """
INSERT INTO window_counts (window_start, window_end, event_type, count, partition, late, first_offset,
                           last_offset, origin_topic, record_topic, record_partition, record_offset,
                           appended_at, loaded_at)
SELECT began, began + interval '10 s', type, number, part, false, first_offset, last_offset, %(topic)s,
       %(derived)s, part,
       %(first)s + row_number() OVER (PARTITION BY part ORDER BY began, first_offset) - 1,
       began + interval '15 s', began + interval '15 s'
  FROM (SELECT date_bin('10 s', timestamp, 'epoch') AS began, type, origin_partition AS part,
               count(*) AS number, min(origin_offset) AS first_offset, max(origin_offset) AS last_offset
          FROM events GROUP BY 1, 2, 3) AS counted
"""
_PARTS = """
INSERT INTO {table} (window_start, window_end, {by}, measured, watts{most}, counted, too_late, partition,
                     late, first_offset, last_offset, origin_topic, record_topic, record_partition,
                     record_offset, appended_at, loaded_at)
SELECT began, began + interval '1 min', {by}, number, total{most}, number, 0, part, first_offset %% 50 = 0,
       first_offset, last_offset, %(topic)s, %(derived)s, part,
       %(first)s + row_number() OVER (PARTITION BY part ORDER BY began, first_offset) - 1,
       began + interval '65 s', began + interval '65 s'
  FROM (SELECT date_bin('1 min', timestamp, 'epoch') AS began, {by}, origin_partition AS part,
               count(*) AS number, sum(watts) AS total, max(watts) AS most,
               min(origin_offset) AS first_offset, max(origin_offset) AS last_offset
          FROM measurements GROUP BY 1, 2, 3) AS counted
"""
_DEAD_LETTERS = """
INSERT INTO dead_letters (source_topic, source_partition, source_offset, origin_topic, origin_partition,
                          origin_offset, record_topic, record_partition, record_offset, error_code, stage,
                          group_name, exception, message, attempt, redacted, failed_at, status, value,
                          headers, appended_at, loaded_at)
SELECT %(topic)s, n %% {partitions}, %(from)s + n / {partitions}, %(topic)s, n %% {partitions},
       %(from)s + n / {partitions}, %(derived)s, n %% {partitions}, %(first)s + n / {partitions},
       (ARRAY['SCHEMA_VIOLATION', 'INVALID_JSON', 'CLEAR_TEXT_PII', 'UNSTORABLE_VALUE'])[1 + n * 7 %% 4],
       CASE WHEN n %% 2 = 0 THEN 'validator' ELSE 'loader' END, 'a group', 'an exception', 'a message', 0,
       false, at, CASE WHEN n %% 10 = 0 THEN 'quarantined' ELSE 'open' END,
       decode(repeat('7b7d', 100), 'hex'), '[]', at, at
  FROM (SELECT n, %(since)s + n * %(step)s::interval AS at
          FROM generate_series(0::bigint, %(number)s - 1) AS n) AS made
"""
_DUPLICATES = """
INSERT INTO duplicates (topic, partition, "offset", origin_topic, origin_partition, origin_offset, table_name)
SELECT %(derived)s, n %% {partitions}, %(first)s + n / {partitions}, %(topic)s, n %% {partitions},
       n / {partitions}, 'notifications'
  FROM generate_series(0::bigint, %(number)s - 1) AS n
"""
_REPLAYS = """
WITH replay AS (
    INSERT INTO replays (transactional_id, requested_by, selection, options, state, finished_at)
    SELECT 'replay-' || n, 'fill.py', '{{}}', '{{"max_attempts": 3}}', 'finished', now()
      FROM generate_series(1, 30) AS n RETURNING id)
INSERT INTO replay_records (replay_id, source_topic, source_partition, source_offset, letter_status, attempt,
                            outcome, code)
SELECT id, %(topic)s, n %% {partitions}, %(from)s + n / {partitions}, 'open', 0, 'fails', 'SCHEMA_VIOLATION'
  FROM replay, generate_series(0::bigint, %(number)s - 1) AS n
"""
_POSITION = """
INSERT INTO loader_positions AS kept (group_name, topic, partition, next_offset, records, rejected, topic_id)
VALUES (%s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (group_name, topic, partition) DO UPDATE
   SET next_offset = excluded.next_offset, records = excluded.records, rejected = excluded.rejected,
       topic_id = excluded.topic_id
"""


def fill_rows(stage: Stage, streams: Sequence[Stream], arguments: argparse.Namespace) -> None:
    logins, measurements = streams
    topic, notes, letters = logins.topic, logins.notifications_topic, logins.dead_letter_topic
    for stream in streams:
        for name in (stream.event_table, *(each.name for each in window_tables(stream))):
            stage.prepare_days(name)
    stage.moved(topic, stage.fill(USER_EVENTS, topic, number=arguments.events))
    rows = stage.fill(_NOTIFICATIONS, topic, notes)
    stage.moved(notes, rows)
    stage.moved(logins.analytics_topic, stage.fill(_WINDOW_COUNTS, topic, logins.analytics_topic))
    number = arguments.events // _WINDOW_SHARE
    stage.moved(measurements.topic, stage.fill(_MEASUREMENTS, measurements.topic, number=number))
    for table in window_tables(measurements):
        stage.moved(measurements.analytics_topic, _fill_parts(stage, table))
    number = arguments.dead_letters
    stage.moved(letters, stage.fill(_DEAD_LETTERS, topic, letters, number=number))
    stage.fill(_REPLAYS, topic, number=number // 30)
    stage.moved(topic, 0, others=number)
    stage.moved(notes, 0, others=stage.fill(_DUPLICATES, topic, notes, number=number))


def _fill_parts(stage: Stage, table: WindowTable) -> int:
    [by] = table.by
    most = ", most" if "most" in table.spec.aggregates else ""
    stream = table.stream
    return stage.fill(
        _PARTS, stream.topic, stream.analytics_topic, table=table.name, by=by.name, most=most
    )


def fill_topics(settings: Settings, ends: Mapping[str, int]) -> dict[str, str]:
    """Moves the logs to where they end, empty: produces and removes. Returns the topics' ids."""
    sender = producer(settings, **{"linger.ms": 100})
    began = time.monotonic()
    for topic, end in ends.items():
        for partition in range(PARTITIONS):
            for first in range(0, end, _AT_ONCE):
                batch = [{"value": b"{}"}] * min(_AT_ONCE, end - first)
                while left := len(batch) - sender.produce_batch(topic, batch, partition):
                    batch = batch[-left:]
                    sender.poll(0.1)
        sender.flush()
        print(f"{time.monotonic() - began:.1f} s  {topic} ends at {end:,}", flush=True)
    client = admin(settings)
    places = [
        TopicPartition(topic, partition, end)
        for topic, end in ends.items()
        for partition in range(PARTITIONS)
    ]
    for future in client.delete_records(places).values():
        future.result()
    for worker in _GROUPS:
        read = reads(worker, load_streams(settings))
        own = [place for place in places if place.topic in read]
        group = ConsumerGroupTopicPartitions(settings.group(worker), own)
        for future in client.alter_consumer_group_offsets([group]).values():
            future.result()
    return topic_ids(client, ends)


def keep_positions(
    connection: Connection, group: str, stage: Stage, ids: Mapping[str, str]
) -> None:
    for topic, end in stage.ends.items():
        for partition in range(PARTITIONS):
            first = partition == 0
            stored, others = (stage.stored[topic], stage.others[topic]) if first else (0, 0)
            rejected = 0 if topic.endswith("notifications") else others  # those are duplicates
            values = [group, topic, partition, end, stored + others, rejected, ids.get(topic)]
            connection.execute(_POSITION, values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--events", type=int, default=5_000_000)
    parser.add_argument("--dead-letters", type=int, default=200_000)
    parser.add_argument("--days", type=int, default=5)
    parser.add_argument("--no-topics", action="store_true", help="fill the database alone")
    arguments = parser.parse_args()
    settings = load_process_settings()
    streams = load_streams(settings)
    upgrade(settings, streams)
    ids: dict[str, str] = {}
    with session(settings, "fill") as connection:
        connection.execute("SET synchronous_commit = off")
        connection.execute("SET work_mem = '256MB'")
        stage = Stage(connection, timedelta(days=arguments.days), partial(print, flush=True))
        fill_rows(stage, streams, arguments)
        if not arguments.no_topics:
            provision(settings, streams, TopicsTable(settings))
            ids = fill_topics(settings, stage.ends)
        keep_positions(connection, settings.group("loader"), stage, ids)
        connection.execute("TRUNCATE row_counts")
        row_counts.begin(connection, row_counts.counted_tables(streams))
        connection.execute("VACUUM (ANALYZE)")


if __name__ == "__main__":
    main()
