"""What becomes of the topics of a stream, without changing any."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from streamflow.kafka.ownership import Drift, OwnedTopics, Owner, refusal, surplus
from streamflow.kafka.topic_changes import risk
from streamflow.kafka.topics import declared_topics, drifts, owners, unreadable
from streamflow.planned import PlannedAction
from streamflow.settings import Settings
from streamflow.stream import Stream
from streamflow.stream_topics import TopicSpec

_REPLAYED: Final = "replays of dead letters append to it, as Topics(replays=True) says"
_NOT_REPLAYED: Final = (
    "dead letters of it are not replayed, since that would append to it: Topics(managed=False, "
    "replays=True) if its owner allows it"
)


class TopicPlan(NamedTuple):
    topic: str
    partitions: int | None  # None for another owner's topic
    action: PlannedAction
    notes: tuple[str, ...] = ()


def declared_plan(settings: Settings, stream: Stream) -> list[TopicPlan]:
    """The topics by the declaration alone."""
    return [
        *_unmanaged(stream),
        *(
            TopicPlan(spec.name, spec.partitions, PlannedAction.DECLARED)
            for spec in declared_topics(settings, [stream])
        ),
    ]


def topic_plans(settings: Settings, stream: Stream, owned: OwnedTopics) -> list[TopicPlan]:
    """The topics, compared with those that the broker has. Raises Unavailable if it does not answer."""
    specs = declared_topics(settings, [stream])
    differences = drifts(settings, specs)
    owner_of = owners(settings, specs, owned)
    return [
        *_readable(settings, stream),
        *(
            _plan(
                spec,
                [drift for drift in differences if drift.topic == spec.name],
                owner_of.get(spec.name),
            )
            for spec in specs
        ),
    ]


def _unmanaged(stream: Stream) -> list[TopicPlan]:
    topics = stream.topics
    note = _REPLAYED if topics.takes_replays else _NOT_REPLAYED
    return [] if topics.managed else [TopicPlan(stream.topic, None, PlannedAction.READ, (note,))]


def _readable(settings: Settings, stream: Stream) -> list[TopicPlan]:
    if stream.topics.managed:
        return []
    why = unreadable(settings, [stream.topic])
    if why:
        return [TopicPlan(stream.topic, None, PlannedAction.REFUSE, tuple(why.values()))]
    return _unmanaged(stream)


def _plan(spec: TopicSpec, differing: Sequence[Drift], owner: Owner | None) -> TopicPlan:
    if owner is None:
        return TopicPlan(spec.name, spec.partitions, PlannedAction.CREATE)
    if not differing:
        return TopicPlan(spec.name, spec.partitions, PlannedAction.KEEP)
    if owner is Owner.FOREIGN:
        why = refusal(spec, differing, ())
        return TopicPlan(spec.name, spec.partitions, PlannedAction.REFUSE, (why,))
    altered = [drift for drift in differing if not drift.is_surplus]
    notes = [_altered(drift, owner) for drift in altered] + surplus(differing)
    action = PlannedAction.ALTER if altered else PlannedAction.KEEP
    return TopicPlan(spec.name, spec.partitions, action, tuple(notes))


def _altered(drift: Drift, owner: Owner) -> str:
    change = f"{drift.what} {drift.found} → {drift.declared}"
    if owner is Owner.UNKNOWN:
        return f"{change}, if StreamFlow has created the topic: the database does not say"
    cost = risk(drift)
    return f"{change}: `streamflow topics --apply` asks, since {cost}" if cost else change
