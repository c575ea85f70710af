"""Who owns a topic. StreamFlow never alters a topic that it did not create (G13).

A topic is known by its name and its id: one that was deleted and recreated has another id (KIP-516).
"""

from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple, Protocol

from streamflow.names import POSITIONS_TOPIC
from streamflow.stream_topics import TopicSpec
from streamflow.units import either


class Owner(StrEnum):
    OURS = "ours"
    FOREIGN = "foreign"
    UNMANAGED = "unmanaged"
    UNKNOWN = "unknown"


class Drift(NamedTuple):
    """One difference between a topic and its specification."""

    topic: str
    what: str
    declared: str
    found: str | None

    @property
    def is_surplus(self) -> bool:
        """Whether the topic has more partitions than declared: workers read them all, and Kafka cannot
        remove any."""
        return self.what == "partitions" and int(self.found or 0) > int(self.declared)


class BrokerTopic(NamedTuple):
    topic_id: str
    partitions: int
    config: Mapping[str, str | None]


class OwnedTopics(Protocol):
    """Remembers which topics StreamFlow has created or adopted."""

    def ids(self) -> Mapping[str, str]:
        """The id of each, by its name.

        Raises:
            Unavailable: the store does not answer.
            ConfigurationError: the store does not exist yet.
        """

    def add(self, ids: Mapping[str, str], *, adopted: bool) -> None:
        """Remembers topics from now on. Raises as `ids`."""
        ...


def compare(specs: Sequence[TopicSpec], existing: Mapping[str, BrokerTopic]) -> list[Drift]:
    """How topics differ from their specifications; one that is missing differs in ``topic``."""
    drifts = []
    for spec in specs:
        topic = existing.get(spec.name)
        if topic is None:
            drifts.append(Drift(spec.name, "topic", "exists", None))
            continue
        if topic.partitions != spec.partitions:
            declared, partitions = str(spec.partitions), str(topic.partitions)
            drifts.append(Drift(spec.name, "partitions", declared, partitions))
        drifts += [
            Drift(spec.name, name, declared, topic.config.get(name))
            for name, declared in spec.config.items()
            if topic.config.get(name) != declared
        ]
    return drifts


def owner_of(name: str, topic: BrokerTopic, ids: Mapping[str, str]) -> Owner:
    return Owner.OURS if ids.get(name) == topic.topic_id else Owner.FOREIGN


def refusal(spec: TopicSpec, drifts: Sequence[Drift], known: Collection[str]) -> str:
    """Why a topic of another owner is not altered, and what to do, in one sentence; `known` are the names
    of the topics that are, or were, ours."""
    differences = "; ".join(
        f"{drift.what} is {drift.found}, {drift.declared} is declared" for drift in drifts
    )
    whose = (
        "was deleted and recreated by another program"
        if spec.name in known
        else "was not created by StreamFlow"
    )
    other = (
        "give the stream another topic for it in Topics(…)"
        if spec.derived
        else "declare it with Topics(managed=False) to read it as it is"
    )
    return (
        f"topic {spec.name} {whose} and is not altered, but differs ({differences}): {other}, or "
        f"adopt it with `streamflow topics --adopt {spec.name}` and then run "
        "`streamflow topics --apply`"
    )


def surplus(drifts: Sequence[Drift]) -> list[str]:
    """What cannot and need not be altered, in a sentence each."""
    return [
        f"topic {drift.topic} has {drift.found} partitions, and one is used: Kafka cannot remove the others"
        if drift.topic.endswith(POSITIONS_TOPIC)
        else f"topic {drift.topic} has {drift.found} partitions, {drift.declared} "
        f"{either(int(drift.declared), 'is', 'are')} declared: all are read, and Kafka "
        f"cannot remove any; declare Topics(partitions={drift.found})"
        for drift in drifts
        if drift.is_surplus
    ]
