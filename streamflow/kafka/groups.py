"""Who is in a consumer group."""

from collections.abc import Sequence

from confluent_kafka.admin import AdminClient

from streamflow.flow import Partition
from streamflow.kafka.clients import kafka_errors

_TIMEOUT = 5.0  # seconds


def member_counts(client: AdminClient, groups: Sequence[str]) -> dict[str, int]:
    """How many members each group has; none for a group that does not exist.

    Raises:
        Unavailable: the broker does not answer.
    """
    with kafka_errors():
        futures = client.describe_consumer_groups(list(groups), request_timeout=_TIMEOUT)
        return {name: len(future.result(_TIMEOUT).members) for name, future in futures.items()}


def assignments(client: AdminClient, group: str) -> list[frozenset[Partition]]:
    """What each member of a group has, in no order.

    Raises:
        Unavailable: the broker does not answer, or there is no such group.
    """
    with kafka_errors():
        [future] = client.describe_consumer_groups([group], request_timeout=_TIMEOUT).values()
        members = future.result(_TIMEOUT).members
    return [
        frozenset((each.topic, each.partition) for each in member.assignment.topic_partitions)
        for member in members
    ]
