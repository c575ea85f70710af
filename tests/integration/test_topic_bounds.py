"""What a declaration may say of its topics is what Kafka takes."""

from dataclasses import replace

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import NewTopic

from services import BrokerService
from streamflow import Topics
from streamflow.declarations import problems
from streamflow.kafka.clients import admin
from streamflow.settings import Settings
from streamflow.stream_topics import MOST_PARTITIONS, TopicSpec
from streamflow.streams.user_events import USER_EVENTS

pytestmark = pytest.mark.integration
LARGEST = Topics(
    partitions=MOST_PARTITIONS,
    retention="999999999d",
    derived_retention="1ms",
    max_record_bytes=2**31 - 1,
)


def test_kafka_takes_what_is_at_the_bounds(broker: BrokerService) -> None:
    client = admin(Settings(KAFKA_BOOTSTRAP_SERVERS=broker.bootstrap))

    def judge(spec: TopicSpec) -> None:
        topic = NewTopic(
            f"bounds-{spec.name}", spec.partitions, replication_factor=1, config=spec.config
        )
        [future] = client.create_topics([topic], validate_only=True).values()
        future.result()

    stream = replace(USER_EVENTS, topics=LARGEST)
    assert problems(stream) == []
    specs = stream.topic_specs()
    for spec in specs:
        judge(spec)
    with pytest.raises(KafkaException, match="excessively large batch"):
        judge(replace(specs[0], partitions=10_000))
