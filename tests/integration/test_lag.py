"""Lag as a real broker and database show it."""

from contextlib import closing

import pytest
from confluent_kafka import Consumer, TopicPartition

import pipeline
from streamflow.kafka import offsets
from streamflow.kafka.clients import admin
from streamflow.lag.measure import LagReader, group_lags
from streamflow.registry import load_streams
from streamflow.settings import Settings

pytestmark = pytest.mark.integration


def test_a_partition_without_a_position_is_behind_from_its_first_offset(
    stack_settings: Settings,
) -> None:
    streams = load_streams(stack_settings)
    pipeline.produce(stack_settings, "user-events", pipeline.events(60)[0])
    topic = streams[0].topic
    client = admin(stack_settings)
    ends = {
        partition: end
        for partition, (_, end) in offsets.bounds(
            client, offsets.partitions_of(client, [topic])
        ).items()
    }
    assert sum(ends.values()) == 60
    assert sum(end > 0 for end in ends.values()) > 1
    assert group_lags(stack_settings, streams)["notification-group"] is None

    read = max(ends, key=lambda partition: ends[partition])
    group = stack_settings.group("validator")
    consumer = Consumer({"bootstrap.servers": stack_settings.bootstrap, "group.id": group})
    consumer.commit(offsets=[TopicPartition(*read, ends[read])], asynchronous=False)
    consumer.close()
    with closing(LagReader(stack_settings, streams)) as reader:
        sample = reader()
        loader = reader({}).groups[stack_settings.group("loader")]
    assert sample.lags(group) == ends | {read: 0}
    assert sample.lag(group) == 60 - ends[read]
    assert (sample.groups[group].members, sample.groups[group].owned) == (0, frozenset())
    # The database holds no position of the loader, so it starts at the first offset everywhere.
    assert {place: at for place, at in loader.positions.items() if place[0] == topic} == (
        dict.fromkeys(ends, 0)
    )
