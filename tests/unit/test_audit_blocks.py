"""Blocks of records and outcomes are judged as the records themselves are."""

from collections.abc import Iterator, Sequence

import pytest
from confluent_kafka import TIMESTAMP_CREATE_TIME, TIMESTAMP_LOG_APPEND_TIME
from hypothesis import given
from hypothesis import strategies as st

from audited_blocks import Row, summed_up
from loads import FakeRecord
from streamflow.audit.blocks import (
    RecordBlock,
    agree,
    draw_weights,
    offsets_and_times,
    record_blocks,
)
from streamflow.audit.gap_ledger import Range
from streamflow.audit.merge import merge, merge_blocks
from streamflow.audit.report import PartitionAudit

APPENDED = 1_782_907_200_000
WEIGHTS = draw_weights()


def in_batches(records: Sequence[tuple[int, int | None]], most: int) -> list[list[FakeRecord]]:
    made = [FakeRecord(offset, b"") for offset, _ in records]
    for record, (_, time) in zip(made, records, strict=True):
        kind = TIMESTAMP_LOG_APPEND_TIME if time is not None else TIMESTAMP_CREATE_TIME
        record.appended = (kind, 1 if time is None else time)
    return [made[at : at + most] for at in range(0, len(made), most)]


def by_rows(
    records: Sequence[tuple[int, int | None]], rows: Sequence[Row], judged: int, lost: Range
) -> PartitionAudit:
    made = PartitionAudit(topic="t", partition=1, first=0, end=20_000, judged=judged)
    merge(made, iter(records), iter(rows), [lost])
    return made


def by_blocks(
    records: Sequence[tuple[int, int | None]], rows: Sequence[Row], judged: int, lost: Range
) -> PartitionAudit:
    made = PartitionAudit(topic="t", partition=1, first=0, end=20_000, judged=judged)

    def read(offsets: Range) -> Iterator[Row]:
        return (row for row in rows if offsets[0] <= row[0] < offsets[1])

    blocks = record_blocks(in_batches(records, 100))
    merge_blocks(made, (0, 20_000), blocks, summed_up(rows, WEIGHTS), read, WEIGHTS, [lost])
    return made


# Some blocks in each of several spans, so that most offsets have neighbours.
OFFSETS = st.integers(0, 5).flatmap(
    lambda block: st.integers(0, 10).map(lambda place: block * 3000 + 57 + place)
)


@given(
    st.dictionaries(OFFSETS, st.none() | st.integers(APPENDED, APPENDED + 3), max_size=60),
    st.sets(OFFSETS),
    st.dictionaries(OFFSETS, st.sampled_from(["duplicate", "dead_lettered"])),
    st.sets(OFFSETS),
    st.dictionaries(OFFSETS, st.none() | st.integers(1, 5)),
    st.integers(0, 20_000),
)
def test_blocks_are_judged_as_rows_are(
    times: dict[int, int | None],
    removed: set[int],
    added: dict[int, str],
    twice: set[int],
    changed: dict[int, int | None],
    judged: int,
) -> None:
    """A broker that has reused offsets appended their records later."""
    records = sorted(times.items())
    stored: list[Row] = []
    for offset, time in records:
        later = changed.get(offset, 0)
        stored += (
            [(offset, "stored", None if time is None or later is None else time - later)]
            * (offset not in removed)
            * (1 + (offset in twice))
        )
    rows = sorted([*stored, *((*one, None) for one in added.items())], key=lambda row: row[:2])
    lost = (6000, 6060)

    assert by_blocks(records, rows, judged, lost) == by_rows(records, rows, judged, lost)


def test_rows_are_read_only_where_a_span_differs() -> None:
    records = [(offset, APPENDED) for offset in range(20_000)]
    rows: list[Row] = [(offset, "stored", APPENDED) for offset in range(20_000) if offset != 9_000]
    read: list[Range] = []

    def rows_of(offsets: Range) -> Iterator[Row]:
        read.append(offsets)
        return (row for row in rows if offsets[0] <= row[0] < offsets[1])

    made = PartitionAudit(topic="t", partition=1, first=0, end=20_000)
    blocks = record_blocks(in_batches(records, 256))
    merge_blocks(made, (0, 20_000), blocks, summed_up(rows, WEIGHTS), rows_of, WEIGHTS)

    assert read == [(8_192, 12_288)]
    assert (made.records, made.stored, made.missing_at) == (20_000, 19_999, [(9_000, 9_001)])


@pytest.mark.parametrize("most", [1, 7, 64, 100])
def test_records_keep_offsets_and_times(most: int) -> None:
    records: list[tuple[int, int | None]] = [
        (offset, APPENDED + offset // 7) for offset in range(3, 500) if offset not in {64, 130, 200}
    ]
    blocks = list(record_blocks(in_batches(records, most)))

    assert list(offsets_and_times(blocks)) == records
    assert [block.number for block in blocks] == list(range(8))


@pytest.mark.parametrize("most", [1, 7, 64, 100])
def test_records_without_times_keep_offsets(most: int) -> None:
    """Also where batches have gaps, as those of transactions have, or nothing came."""
    offsets = [offset for offset in range(3, 500) if offset not in {64, 130, 200}]
    batches = [[], *in_batches([(offset, APPENDED) for offset in offsets], most)]
    blocks = record_blocks(batches, timed=False)

    assert list(offsets_and_times(blocks)) == [(offset, None) for offset in offsets]


@pytest.mark.parametrize(
    ("rows", "agrees"),
    [
        ([(0, "stored", 5), (1, "stored", 6), (63, "duplicate", None)], True),
        ([(0, "stored", 6), (1, "stored", 5), (63, "duplicate", None)], False),
        ([(0, "stored", 5), (1, "stored", 6)], False),
        # As many rows as records, and one of them twice.
        ([(0, "stored", 5), (0, "stored", 5), (1, "stored", 6)], False),
        ([(0, "stored", 5), (1, "stored", 6), (1, "duplicate", None)], False),
        ([(0, "stored", 5), (1, "stored", 6), (62, "duplicate", None)], False),
        ([], False),
    ],
)
def test_a_block_agrees_with_one_outcome_of_each_record(rows: list[Row], agrees: bool) -> None:
    block = RecordBlock(0, 1 << 63 | 0b11, [5, 6, 9])
    assert agree(block, summed_up(rows, WEIGHTS), WEIGHTS) is agrees
    if rows:
        assert not agree(None, summed_up(rows, WEIGHTS), WEIGHTS)


@pytest.mark.parametrize("shifts", [(5, -10, 5), (1, -2, 1), (1, -1, 0), (-1, 3, -2)])
def test_shifts_that_cancel_each_other_in_one_audit_do_not_in_all(shifts: tuple[int, ...]) -> None:
    """Neither the sum of the times nor that of times and places tells (5, -10, 5)."""
    appended: list[int | None] = [APPENDED + 10 * place for place in range(64)]
    rows: list[Row] = [
        (place, "stored", APPENDED + 10 * place + 1000 * dict(enumerate(shifts, 5)).get(place, 0))
        for place in range(64)
    ]
    block = RecordBlock(0, 2**64 - 1, appended)
    agreed = 0
    for _ in range(50):
        weights = draw_weights()
        assert len(set(weights)) == 64
        agreed += agree(block, summed_up(rows, weights), weights)
    assert agreed <= 1
