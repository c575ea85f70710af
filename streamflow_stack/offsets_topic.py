"""Keeps small what a node loads of consumer groups when it starts again.

After SIGKILL a single node first believes that it still leads `__consumer_offsets`, loads the groups, loses
the leadership, regains it within a second, and loads them again. If the first load is still running then,
its end is taken for the end of the second: the coordinator works on half of a group, writes what
contradicts the rest, and never loads that group again (seen with Apache Kafka 4.3 on a busy machine, with
8,000 commits to load). Compaction makes the load short, but only takes closed segments, and Kafka closes
these after a week or 100 MB.
"""

from collections.abc import Collection
from typing import Final

from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
)

TOPIC: Final = "__consumer_offsets"
PARTITIONS: Final = 5
_CONFIG: Final = {"segment.ms": "10000"}
_TIMEOUT: Final = 5.0  # seconds


def keep_small(admin: AdminClient, topics: Collection[str]) -> None:
    """Lets segments of committed offsets be closed early, so that they are compacted, in a cluster of
    one node. If `TOPIC` is not among its topics, it is created as the broker would.

    Raises:
        KafkaException: the broker refuses, or does not answer.
    """
    if TOPIC not in topics:
        config = {"cleanup.policy": "compact", "compression.type": "producer", **_CONFIG}
        new = NewTopic(TOPIC, PARTITIONS, 1, config=config)
        [future] = admin.create_topics([new], request_timeout=_TIMEOUT).values()
    else:
        entries = [
            ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
            for name, value in _CONFIG.items()
        ]
        resource = ConfigResource(ResourceType.TOPIC, TOPIC, incremental_configs=entries)
        [future] = admin.incremental_alter_configs([resource], request_timeout=_TIMEOUT).values()
    future.result(2 * _TIMEOUT)
