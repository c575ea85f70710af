"""Topics: what is declared, what the broker has, and how the broker gets there. All raise `Unavailable`
where the broker does not answer."""

import time
from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from typing import NamedTuple, Self

import tenacity
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

from streamflow.errors import ConfigurationError, StreamFlowError, StreamsRefused, Unavailable
from streamflow.kafka import kept_positions
from streamflow.kafka.clients import admin, kafka_errors, retry_while_unavailable
from streamflow.kafka.offsets import offsets_before, partitions_of
from streamflow.kafka.ownership import (
    BrokerTopic,
    Drift,
    OwnedTopics,
    Owner,
    compare,
    owner_of,
    refusal,
)
from streamflow.kafka.topic_changes import risk
from streamflow.kafka.topic_ids import topic_ids
from streamflow.settings import Settings
from streamflow.stream import Stream, needs
from streamflow.stream_topics import TopicSpec
from streamflow.units import counted

_TIMEOUT = 15.0  # seconds
_NO_LEADER = -1
_INIT = "run `streamflow init`"


def declared_topics(settings: Settings, streams: Iterable[Stream]) -> tuple[TopicSpec, ...]:
    """The topics of all streams that StreamFlow manages, each once."""
    specs = {
        spec.name: spec for stream in streams for spec in stream.topic_specs(settings.kafka_min_isr)
    }
    return tuple(specs.values())


def all_topics(settings: Settings, streams: Iterable[Stream]) -> tuple[TopicSpec, ...]:
    """What is created: the topics of all streams, and that of the kept positions."""
    return *declared_topics(settings, streams), kept_positions.topic_spec(settings)


def unmanaged_topics(streams: Iterable[Stream]) -> tuple[str, ...]:
    return tuple(stream.topic for stream in streams if not stream.topics.managed)


def drifts(settings: Settings, specs: Sequence[TopicSpec]) -> list[Drift]:
    """How the broker's topics differ from their specifications."""
    return compare(specs, _described(admin(settings), [spec.name for spec in specs]))


def owners(settings: Settings, specs: Sequence[TopicSpec], owned: OwnedTopics) -> dict[str, Owner]:
    """Who owns each existing topic; unknown where `owned` does not answer now."""
    existing = _described(admin(settings), [spec.name for spec in specs])
    try:
        ids = owned.ids()
    except StreamFlowError:
        return dict.fromkeys(existing, Owner.UNKNOWN)
    return {name: owner_of(name, topic, ids) for name, topic in existing.items()}


def provision(
    settings: Settings,
    streams: Iterable[Stream],
    owned: OwnedTopics | None = None,
    *,
    confirm: Callable[[Sequence[Drift]], None] | None = None,
) -> list[Drift]:
    """Creates topics, and alters ours, until the broker has what is declared; returns what differed.

    Partitions are only ever added: removing one would lose its records, and a key's events would change
    partition. A topic of ours may have more than declared (`ownership.surplus`); one of another owner is
    used if it is as declared. A stream with a topic that is refused gets none, and stops no other (G14).

    Args:
        owned: which topics are ours; without it none is, and topics are only created.
        confirm: is shown what differs, before anything is altered, and raises if a user does not agree;
            without it nothing is altered that moves or removes something (`topic_changes.postponed`).

    Raises:
        StreamsRefused: of some streams a topic that is not ours differs, or an unmanaged one does not
            exist. Everything else is done.
        ConfigurationError: the topic of the kept positions is not ours and differs; or there is no
            schema for `owned` yet.
        Unavailable: the broker, or the store of `owned`, does not answer.
    """
    streams = tuple(streams)
    found = _Differences.of(settings, all_topics(settings, streams), owned)
    why = _refused(settings, streams, found)
    specs = all_topics(settings, [stream for stream in streams if stream.name not in why])
    differences = _apply(settings, specs, found, owned, confirm)
    if why:
        raise StreamsRefused(why, differences)
    return differences


def refused(
    settings: Settings, streams: Sequence[Stream], owned: OwnedTopics | None
) -> dict[str, str]:
    """The names of the streams that `provision` refuses, and why. Raises as it does."""
    specs = declared_topics(settings, streams)
    return _refused(settings, streams, _Differences.of(settings, specs, owned))


def _refused(
    settings: Settings, streams: Sequence[Stream], differing: "_Differences"
) -> dict[str, str]:
    why = unreadable(settings, unmanaged_topics(streams)) | differing.refusals
    return {
        stream.name: f"stream {stream.name} does not start: {'; '.join(reasons)}"
        for stream in streams
        if (reasons := [why[name] for name in stream.topic_names if name in why])
    }


def without_topics(
    client: AdminClient, streams: Sequence[Stream], worker: str = "loader"
) -> dict[str, str]:
    """The names of the streams that lack a topic that a worker needs, and which. The loader needs all; others
    may have no right to see those that they do not need."""
    with kafka_errors():
        existing = client.list_topics(timeout=_TIMEOUT).topics
    unmanaged = unmanaged_topics(streams)
    return {
        stream.name: f"topic {', '.join(missing)} does not exist: "
        + ("its owner has to create it" if missing[0] in unmanaged else _INIT)
        for stream in streams
        if (missing := [name for name in needs(worker, stream) if name not in existing])
    }


def not_running(lacking: Mapping[str, str], is_refused: Mapping[str, str]) -> dict[str, str]:
    """The names of the streams that do not run as their topics are, and why: `without_topics`, `refused`."""
    sentences = {name: f"stream {name} does not run: {why}" for name, why in lacking.items()}
    return {**sentences, **is_refused}


def unreadable(settings: Settings, names: Sequence[str]) -> dict[str, str]:
    """Which unmanaged topics cannot be read, and why. Raises Unavailable if a partition has no leader."""
    if not names:
        return {}
    with kafka_errors():
        existing = admin(settings).list_topics(timeout=_TIMEOUT).topics
    for name in existing.keys() & set(names):
        partitions = existing[name].partitions
        leaderless = [number for number, known in partitions.items() if known.leader == _NO_LEADER]
        if leaderless or not partitions:
            raise Unavailable(f"topic {name}: no broker leads partitions {leaderless} now")
    return {
        name: f"topic {name} does not exist, and StreamFlow does not create it, since it is declared "
        "with Topics(managed=False): create it, or correct the stream's name"
        for name in names
        if name not in existing
    }


def provision_topics(
    settings: Settings,
    wanted: Iterable[TopicSpec],
    owned: OwnedTopics | None = None,
) -> list[Drift]:
    """As `provision`, for some topics only.

    1. Compare; where nothing differs, `owned` is not read.
    2. Refuse what may not be altered, before anything is.
    3. Create what is missing and note its id. A crash between the two leaves a topic that is as declared,
       but not noted as ours: it is used, and must be adopted before it is altered.
    4. Add partitions and alter settings, as far as that is safe or a user has agreed; wait until the
       broker shows it.
    """
    wanted = tuple(wanted)
    found = _Differences.of(settings, wanted, owned)
    return _apply(settings, wanted, found, owned, None)


def _apply(
    settings: Settings,
    wanted: Sequence[TopicSpec],
    found: "_Differences",
    owned: OwnedTopics | None,
    confirm: Callable[[Sequence[Drift]], None] | None,
) -> list[Drift]:
    """Steps 2 to 4 of `provision_topics`; `found` are the differences of these topics, and of others."""
    specs = {spec.name: spec for spec in wanted}
    client = admin(settings)
    differences = found.alterable(specs)
    if confirm is not None:
        confirm(differences)
    changes = [
        drift
        for drift in differences
        if not drift.is_surplus and (confirm is not None or risk(drift) is None)
    ]
    if not changes:
        return differences
    missing = [specs[drift.topic] for drift in changes if drift.what == "topic"]
    with kafka_errors():
        created = _create(client, settings, missing)
        if owned is not None and created:
            owned.add(retry_while_unavailable(topic_ids)(client, created), adopted=False)
        _alter(client, [drift for drift in changes if drift.what != "topic"])
    _wait_until_shown(client, list(specs.values()), changes)
    return differences


class _Differences(NamedTuple):
    """How topics differ from their specifications, and why some of them may not be altered."""

    drifts: list[Drift]
    refusals: dict[str, str]  # by topic

    @classmethod
    def of(cls, settings: Settings, wanted: Sequence[TopicSpec], owned: OwnedTopics | None) -> Self:
        specs = {spec.name: spec for spec in wanted}
        existing = _described(admin(settings), list(specs))
        differences = compare(list(specs.values()), existing)
        ids = owned.ids() if owned is not None and differences else {}
        refusals = {}
        for name, topic in existing.items():
            differing = [drift for drift in differences if drift.topic == name]
            if differing and owner_of(name, topic, ids) is not Owner.OURS:
                refusals[name] = refusal(specs[name], differing, ids)
        return cls(differences, refusals)

    def alterable(self, names: Container[str]) -> list[Drift]:
        """How these topics differ. Raises ConfigurationError if one of them is not ours."""
        for name, why in self.refusals.items():
            if name in names:
                raise ConfigurationError(why)
        return [drift for drift in self.drifts if drift.topic in names]


def costs(settings: Settings, drift: Drift) -> str | None:
    """What a change costs, counted where that is cheap; None if nothing."""
    cost = risk(drift)
    if cost is None or drift.what != "retention.ms":
        return cost
    client = admin(settings)
    moment = round(time.time() * 1000) - int(drift.declared)
    offsets = offsets_before(client, partitions_of(client, [drift.topic]), moment)
    return f"{cost}: {counted(offsets, 'offset')} now"


@tenacity.retry(
    retry=tenacity.retry_if_result(bool),
    wait=tenacity.wait_exponential(0.05, max=1),
    stop=tenacity.stop_after_delay(8),
    retry_error_callback=lambda _state: None,
)
def _wait_until_shown(
    client: AdminClient, specs: Sequence[TopicSpec], changes: Collection[Drift]
) -> bool | None:
    """Waits until the broker that answers this client knows of a change: the controller, which made it,
    is ahead. A time-out is no error: the next comparison shows what differs."""
    found = compare(specs, _described(client, [spec.name for spec in specs]))
    changed = {(drift.topic, drift.what) for drift in changes}
    return any(drift.what == "topic" or drift[:2] in changed for drift in found)


def adopt(
    settings: Settings, streams: Iterable[Stream], names: Sequence[str], owned: OwnedTopics
) -> None:
    """Takes over topics of another owner, so that `provision` may alter them. Alters nothing. Raises
    ConfigurationError if one is not declared, or declared as unmanaged, or does not exist."""
    streams = tuple(streams)
    declared = {spec.name for spec in all_topics(settings, streams)}
    existing = _described(admin(settings), names)
    for name in names:
        if name in unmanaged_topics(streams):
            raise ConfigurationError(
                f"topic {name} is declared with Topics(managed=False): remove that to adopt it"
            )
        if name not in declared:
            raise ConfigurationError(
                f"topic {name} is not declared by any stream: `streamflow topics` lists those that are"
            )
        if name not in existing:
            raise ConfigurationError(
                f"topic {name} does not exist: `streamflow topics --apply` creates it"
            )
    owned.add({name: existing[name].topic_id for name in names}, adopted=True)


def _described(client: AdminClient, names: Sequence[str]) -> dict[str, BrokerTopic]:
    """Those of the topics that exist."""
    with kafka_errors():
        existing = client.list_topics(timeout=_TIMEOUT).topics
    present = [name for name in names if name in existing]
    if not present:
        return {}
    # Brokers learn of a new topic one after the other.
    configs = retry_while_unavailable(configs_of)(client, present)
    ids = retry_while_unavailable(topic_ids)(client, present)
    return {
        name: BrokerTopic(
            ids[name],
            len(existing[name].partitions),
            configs[name],
        )
        for name in present
    }


def configs_of(client: AdminClient, names: Iterable[str]) -> dict[str, dict[str, str | None]]:
    """The settings of existing topics."""
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
    with kafka_errors():
        return {
            resource.name: {key: entry.value for key, entry in future.result(_TIMEOUT).items()}
            for resource, future in (
                client.describe_configs(resources) if resources else {}
            ).items()
        }


def compacted_topics(client: AdminClient, names: Iterable[str]) -> set[str]:
    """Those of some existing topics of which the broker keeps only the last record of each key, sooner
    or later."""
    configs = retry_while_unavailable(configs_of)(client, names)
    return {name for name, of in configs.items() if "compact" in (of["cleanup.policy"] or "")}


def _create(client: AdminClient, settings: Settings, specs: list[TopicSpec]) -> list[str]:
    """Creates topics; returns those that did not exist."""
    if not specs:
        return []
    wanted = [
        NewTopic(
            spec.name,
            num_partitions=spec.partitions,
            replication_factor=settings.kafka_replication_factor,
            config=spec.config,
        )
        for spec in specs
    ]
    created = []
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
        else:
            created.append(name)
    return created


def _alter(client: AdminClient, differences: list[Drift]) -> None:
    partitions = []
    configs: dict[str, list[ConfigEntry]] = {}
    for topic, what, declared, _ in differences:
        if what == "partitions":
            partitions.append(NewPartitions(topic, int(declared)))
        else:
            entry = ConfigEntry(what, declared, incremental_operation=AlterConfigOpType.SET)
            configs.setdefault(topic, []).append(entry)
    if partitions:
        for future in client.create_partitions(partitions).values():
            future.result(_TIMEOUT)
    if configs:
        changes = [
            ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
            for topic, entries in configs.items()
        ]
        for future in client.incremental_alter_configs(changes).values():
            future.result(_TIMEOUT)
