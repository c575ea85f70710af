"""Which holds: the offset that Kafka has, or the position that StreamFlow keeps itself."""

import pytest
from confluent_kafka import TopicPartition

from streamflow.kafka.kept_positions import _reconciled, _reconciled_all, forgetting, record_of
from streamflow.kafka.ownership import Drift, surplus
from streamflow.kafka.position_metadata import PositionMetadata
from streamflow.settings import Settings
from streamflow.windows.progress import Progress

ID, LATER = "a" * 22, "b" * 22


def stored(offset: int, progress: Progress | None = None, topic_id: str = ID) -> TopicPartition:
    text = "" if progress is None else progress.metadata()
    metadata = PositionMetadata(text, topic_id).encode()
    return TopicPartition("t", 0, offset, metadata)


BEHIND, AHEAD = stored(5), stored(9)
# Both have counted to 9; one has emitted the first windows since.
OPEN = stored(2, Progress.of_counts(2, 9, 0, 1))
EMITTED = stored(7, Progress.of_counts(7, 9, 1_000, 1))


@pytest.mark.parametrize(
    ("committed", "kept", "holds"),
    [
        (None, BEHIND, BEHIND),  # expired, or deleted
        (BEHIND, None, BEHIND),  # of a release that kept none
        (BEHIND, AHEAD, AHEAD),  # moved back by hand
        (AHEAD, BEHIND, AHEAD),  # moved on by a release that keeps none, or by hand
        (EMITTED, OPEN, EMITTED),
        (OPEN, EMITTED, EMITTED),
        (TopicPartition("t", 0, 9), EMITTED, EMITTED),  # to the same place, without our metadata
        (stored(1, topic_id=LATER), AHEAD, None),  # Kafka deletes offsets with their topic
    ],
)
def test_the_one_that_is_further_holds(
    committed: TopicPartition | None, kept: TopicPartition | None, holds: TopicPartition | None
) -> None:
    found = _reconciled(committed, kept)
    assert found.committed is (holds or committed)
    assert found.by_kafka == (None if committed is None else committed.offset)
    assert not found.agreed


def test_without_a_topic_id_a_kept_position_needs_an_offset_of_kafka() -> None:
    partition, nameless = ("t", 0), stored(9, topic_id="")
    assert _reconciled_all({}, {partition: nameless}) == {}
    assert _reconciled_all({}, {partition: AHEAD})[partition].committed is AHEAD
    found = _reconciled_all({partition: stored(5, topic_id="")}, {partition: nameless})
    assert found[partition].committed is nameless


def test_one_partition_is_used_however_many_there_are() -> None:
    assert record_of(Settings(), "group", AHEAD).partition == 0
    assert forgetting(Settings(), "group", ("t", 3)).partition == 0
    [line] = surplus([Drift("dev.streamflow-positions", "partitions", "1", "3")])
    assert line.endswith("has 3 partitions, and one is used: Kafka cannot remove the others")


def test_equal_ones_agree() -> None:
    assert _reconciled(stored(9), stored(9)).agreed
