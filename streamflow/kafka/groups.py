"""Who is in a consumer group."""

from collections.abc import Sequence

from confluent_kafka.admin import AdminClient

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
