"""Topics: what is declared, what the broker has, and making the second like the first."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourceType,
)

from streamflow.errors import ConfigurationError
from streamflow.kafka.clients import admin, kafka_errors
from streamflow.settings import Settings
from streamflow.stream import Stream, TopicSpec

_TIMEOUT = 15.0  # seconds


class Drift(NamedTuple):
    """One way in which a topic differs from its specification."""

    topic: str
    what: str
    declared: str
    found: str | None


def declared_topics(settings: Settings, streams: Iterable[Stream]) -> tuple[TopicSpec, ...]:
    """The topics of all streams, each once.

    Raises:
        ConfigurationError: two streams share a topic but declare it differently.
    """
    specs: dict[str, TopicSpec] = {}
    for stream in streams:
        for spec in stream.topic_specs(settings.kafka_min_isr):
            if specs.setdefault(spec.name, spec) != spec:
                raise ConfigurationError(
                    f"topic {spec.name} is declared differently by two streams: give one of them "
                    "a topic of its own"
                )
    return tuple(specs.values())


def drifts(settings: Settings, specs: Sequence[TopicSpec]) -> list[Drift]:
    """How the broker's topics differ from their specifications.

    Raises:
        Unavailable: the broker does not answer.
    """
    return _drifts(admin(settings), specs)


def _drifts(client: AdminClient, specs: Sequence[TopicSpec]) -> list[Drift]:
    with kafka_errors():
        existing = client.list_topics(timeout=_TIMEOUT).topics
        present = [spec for spec in specs if spec.name in existing]
        resources = [ConfigResource(ResourceType.TOPIC, spec.name) for spec in present]
        described = (
            {
                resource.name: future.result(_TIMEOUT)
                for resource, future in client.describe_configs(resources).items()
            }
            if resources
            else {}
        )
    found: list[Drift] = []
    for spec in specs:
        if spec.name not in existing:
            found.append(Drift(spec.name, "topic", "exists", None))
            continue
        partitions = len(existing[spec.name].partitions)
        if partitions != spec.partitions:
            found.append(Drift(spec.name, "partitions", str(spec.partitions), str(partitions)))
        for name, declared in spec.config.items():
            entry = described[spec.name].get(name)
            value = entry.value if entry else None
            if value != declared:
                found.append(Drift(spec.name, name, declared, value))
    return found


def provision(settings: Settings, streams: Iterable[Stream]) -> list[Drift]:
    """Creates and alters topics until the broker has what is declared; returns what it mended.

    Partitions are only ever added: a key's events would change partition, and records in a removed
    partition would be lost.

    Raises:
        ConfigurationError: a topic has more partitions than declared.
        Unavailable: the broker does not answer.
    """
    specs = {spec.name: spec for spec in declared_topics(settings, streams)}
    client = admin(settings)
    found = _drifts(client, list(specs.values()))
    for drift in found:
        if drift.what == "partitions" and int(drift.found or 0) > int(drift.declared):
            raise ConfigurationError(
                f"topic {drift.topic} has {drift.found} partitions, {drift.declared} are declared: "
                "Kafka cannot remove partitions; raise the declaration"
            )
    with kafka_errors():
        _create(client, settings, [specs[each.topic] for each in found if each.what == "topic"])
        _add_partitions(client, [each for each in found if each.what == "partitions"])
        _alter(client, [each for each in found if each.what not in ("topic", "partitions")])
    return found


def _create(client: AdminClient, settings: Settings, specs: list[TopicSpec]) -> None:
    if not specs:
        return
    wanted = [
        NewTopic(
            spec.name,
            num_partitions=spec.partitions,
            replication_factor=settings.kafka_replication_factor,
            config=spec.config,
        )
        for spec in specs
    ]
    for name, future in client.create_topics(wanted, operation_timeout=_TIMEOUT).items():
        try:
            future.result(_TIMEOUT)
        except KafkaException as error:
            code = error.args[0].code()
            if code == KafkaError.INVALID_REPLICATION_FACTOR:
                raise ConfigurationError(
                    f"topic {name}: fewer brokers than replicas; lower "
                    "STREAMFLOW_KAFKA_REPLICATION_FACTOR or start more brokers"
                ) from error
            if code != KafkaError.TOPIC_ALREADY_EXISTS:
                raise


def _add_partitions(client: AdminClient, found: list[Drift]) -> None:
    if found:
        wanted = [NewPartitions(drift.topic, int(drift.declared)) for drift in found]
        for future in client.create_partitions(wanted).values():
            future.result(_TIMEOUT)


def _alter(client: AdminClient, found: list[Drift]) -> None:
    resources: dict[str, list[ConfigEntry]] = {}
    for drift in found:
        resources.setdefault(drift.topic, []).append(
            ConfigEntry(drift.what, drift.declared, incremental_operation=AlterConfigOpType.SET)
        )
    if resources:
        changes = [
            ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
            for topic, entries in resources.items()
        ]
        for future in client.incremental_alter_configs(changes).values():
            future.result(_TIMEOUT)
