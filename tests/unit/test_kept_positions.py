"""Which holds: the offset that Kafka has, or the position that StreamFlow keeps itself."""

import pytest
from confluent_kafka import TopicPartition

from streamflow.kafka.kept_positions import _reconciled
from streamflow.kafka.position_metadata import PositionMetadata
from streamflow.windows import Progress

ID, LATER = "a" * 22, "b" * 22


def stored(offset: int, progress: Progress | None = None, topic_id: str = ID) -> TopicPartition:
    text = "" if progress is None else progress.metadata()
    metadata = PositionMetadata(text, topic_id).encode()
    return TopicPartition("t", 0, offset, metadata)


BEHIND, AHEAD = stored(5), stored(9)
# Both have counted to 9; one has emitted the first windows since.
OPEN = stored(2, Progress(2, 9, 0, 1))
EMITTED = stored(7, Progress(7, 9, 1_000, 1))


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


def test_equal_ones_agree() -> None:
    assert _reconciled(stored(9), stored(9)).agreed
