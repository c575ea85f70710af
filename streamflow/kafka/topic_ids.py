"""Ids of topics (KIP-516): a topic that was deleted and recreated has its old name and a new id. All
raise `Unavailable` if the broker does not answer."""

from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from streamflow.errors import OffsetsReused, Unavailable
from streamflow.flow import Partition
from streamflow.kafka.clients import kafka_errors
from streamflow.records import Position

_TIMEOUT: Final = 10.0  # seconds
_NONE: Final = "A" * 22  # of a broker before Kafka 2.8


class TopicMissing(Unavailable):
    """The broker answers, and has no such topic: wait until it is restored or created."""


def topic_ids(client: AdminClient, topics: Collection[str]) -> dict[str, str]:
    """The id of each topic, as Kafka's own tools print it; empty if the broker knows none. `TopicMissing`
    where a topic does not exist."""
    return request_topic_ids(client, topics)()


def present_topic_ids(client: AdminClient, topics: Collection[str]) -> dict[str, str]:
    """As `topic_ids`, without the topics that do not exist."""
    return {
        topic: topic_id
        for topic, topic_id in _described(_describe(client, topics))
        if topic_id is not None
    }


def request_topic_ids(client: AdminClient, topics: Collection[str]) -> Callable[[], dict[str, str]]:
    """Sends the request; what is returned waits for the answer and raises as `topic_ids` does.

    The answer is of a moment after this call, so a record that was fetched before belongs to the topic
    with that id or to an earlier one.
    """
    futures = _describe(client, topics)

    def answer() -> dict[str, str]:
        ids = {}
        for topic, topic_id in _described(futures):
            if topic_id is None:
                raise TopicMissing(
                    f"topic {topic} does not exist (any more): restore it, or create it with "
                    "`streamflow topics --apply`"
                )
            ids[topic] = topic_id
        return ids

    return answer


def _describe(client: AdminClient, topics: Collection[str]) -> dict[str, "Future[Any]"]:
    if not topics:
        return {}
    with kafka_errors():
        return client.describe_topics(TopicCollection(sorted(topics)), request_timeout=_TIMEOUT)


def _described(futures: Mapping[str, "Future[Any]"]) -> Iterator[tuple[str, str | None]]:
    """Topics with their ids; None for one that does not exist. Waits for the answer."""
    for topic, future in futures.items():
        with kafka_errors():
            try:
                topic_id = _text(future.result(_TIMEOUT).topic_id)
            except KafkaException as error:
                if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                    raise
                topic_id = None
        yield topic, topic_id


def _text(topic_id: object) -> str:
    # The client prints plain Base64, Kafka's own tools the kind for URLs.
    text = str(topic_id).replace("+", "-").replace("/", "_")
    return "" if text == _NONE else text


class TopicWatch:
    """Notices that a topic is not the one that it was. Lives as long as the process: Kafka deletes the
    offsets that a group has committed in a topic together with the topic, so for a worker without a
    database only what this process has seen shows it.

    One cluster member answers `ask`, and its metadata may be milliseconds behind that of the leader that
    a record was fetched from.

    Attributes:
        client: may be replaced by another one of the same cluster.
        ids: of the topics that were taken over, by this session or an earlier one.
    """

    def __init__(self, client: AdminClient) -> None:
        self.client = client
        self.ids: dict[str, str] = {}
        self._watched: set[str] = set()
        self._answer: Callable[[], dict[str, str]] | None = None

    def begin(self) -> None:
        """Another session begins: it asks only for the topics that it takes over."""
        self._watched.clear()
        self._answer = None

    def take_over(self, positions: Mapping[Partition, Position | None]) -> None:
        """Compares the topics with those that positions were kept in. Raises OffsetsReused if one was
        recreated since, TopicMissing if one does not exist."""
        current = topic_ids(self.client, {topic for topic, _ in positions})
        for (topic, _), position in positions.items():
            before = (position.log.topic_id if position else "") or self.ids.get(topic, "")
            _require_same(topic, before, current[topic])
        self.ids.update(current)
        self._watched.update(current)
        self._answer = None

    def ask(self) -> None:
        """Requests the topics' ids without waiting: call it with records in hand. An earlier answer that
        was not waited for is older than these records, so it is dropped."""
        self._answer = request_topic_ids(self.client, self._watched)

    def check(self) -> None:
        """Waits for the answer: every record that was in hand at `ask` is of the topic taken over. Raises
        as `take_over`."""
        answer, self._answer = self._answer, None
        if answer is not None:
            for topic, now in answer().items():
                _require_same(topic, self.ids[topic], now)


def _require_same(topic: str, before: str, now: str) -> None:
    if before and now and before != now:
        raise OffsetsReused(
            f"topic {topic} was deleted and recreated (id {now}, was {before}), so its offsets mean "
            "other records now: set aside what is stored of the old one with "
            f"`streamflow topics --accept-recreated {topic}`",
            topic,
        )
