"""What the broker's answers about offsets mean."""

from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import OFFSET_INVALID

from streamflow.kafka import offsets

PARTITION = ("t", 0)


class Electing:
    """An admin client whose broker, at first, has no leader for a partition."""

    def __init__(self, *found: int) -> None:
        self.found = list(found)

    def list_offsets(self, wanted: dict[Any, Any], **_: object) -> dict[Any, Future[Any]]:
        future: Future[Any] = Future()
        future.set_result(SimpleNamespace(offset=self.found.pop(0)))
        return dict.fromkeys(wanted, future)


@pytest.mark.parametrize(
    ("found", "bounds"), [([3, OFFSET_INVALID, 4, 9], (4, 9)), ([OFFSET_INVALID, 0, 7], (0, 7))]
)
def test_an_offset_without_a_leader_is_asked_for_again(
    found: list[int], bounds: tuple[int, int]
) -> None:
    """It comes as -1001, without an error; taken for the end, all records before it were lost."""
    assert offsets.bounds(Electing(*found), [PARTITION]) == {PARTITION: bounds}


def test_a_high_watermark_without_a_leader_is_asked_for_again() -> None:
    assert offsets.high_watermarks(Electing(OFFSET_INVALID, 5), [PARTITION]) == {PARTITION: 5}
