"""Records and outcomes of a partition as blocks of 64 offsets. Pure.

The audit compares blocks, and reads row by row only where two blocks differ. That each record has one outcome
is compared exactly: a block has a bit for each offset, and must have as many rows as bits. Append times are
compared by their sum, each multiplied by a weight of its place in the block. The weights are drawn anew for
each audit: a broker that reuses offsets gives all of them later times, so the sum grows; swapped times
change it; and whatever else was changed is missed in one of a million audits, and found by the next.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from operator import mul
from random import SystemRandom
from typing import Final, NamedTuple

from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME

from streamflow.records import Record

SIZE: Final = 64  # offsets: PostgreSQL's bigint has as many bits
_MASK: Final = SIZE - 1
_PLACES: Final = range(SIZE)
_ALL: Final = (1 << SIZE) - 1
_MOST_WEIGHT: Final = 1 << 20
# Milliseconds since the epoch, in the year 2109; what is later is summed up as this. Times a weight it
# is a bigint, whatever time a row has.
LATEST: Final = 1 << 42


class RecordBlock(NamedTuple):
    """The records of a block that Kafka holds.

    Attributes:
        number: of the block; its first offset is 64 times that.
        bits: one for each offset that has a record; the lowest is the first offset's.
        appended: append time of each record, in milliseconds since the epoch; None if the topic keeps none.
    """

    number: int
    bits: int
    appended: Sequence[int | None]

    def appended_of(self, bits: int) -> list[int | None]:
        """The append times of some of its records."""
        if bits == self.bits:
            return list(self.appended)
        pairs = zip(places(self.bits), self.appended, strict=True)
        return [appended for place, appended in pairs if bits >> place & 1]


class OutcomeBlock(NamedTuple):
    """Rows of one outcome in a block, as PostgreSQL sums them up.

    Attributes:
        number: of the block.
        outcome: of all these records.
        rows: their number.
        bits: one for each offset that has an odd number of rows.
        timed: how many of the rows have an append time.
        weighted: sum of the append times, in milliseconds since the epoch, each multiplied by the weight of
            its place.
    """

    number: int
    outcome: str
    rows: int
    bits: int
    timed: int = 0
    weighted: int | Decimal = 0


def draw_weights() -> list[int]:
    """A weight for each place of a block, all of them different."""
    return SystemRandom().sample(range(1, _MOST_WEIGHT + 1), SIZE)


def record_blocks(
    batches: Iterable[Sequence[Record]], *, timed: bool = True
) -> Iterator[RecordBlock]:
    """The blocks of a partition's records, which come in the order of their offsets; with append times only
    if `timed`."""
    number, bits, appended = 0, 0, list[int | None]()
    for batch in batches:
        offsets = _offsets(batch)
        times = _times(batch) if timed else [None] * len(batch)
        start = 0
        while start < len(offsets):
            if offsets[start] // SIZE != number:
                if bits:
                    yield RecordBlock(number, bits, appended)
                number, bits, appended = offsets[start] // SIZE, 0, []
            stop = bisect_left(offsets, SIZE * (number + 1), start)
            bits |= _bits(offsets, start, stop)
            appended += times[start:stop]
            start = stop
    if bits:
        yield RecordBlock(number, bits, appended)


def offsets_and_times(blocks: Iterable[RecordBlock]) -> Iterator[tuple[int, int | None]]:
    """Of each record in these blocks."""
    for block in blocks:
        for place, appended in zip(places(block.bits), block.appended, strict=True):
            yield SIZE * block.number + place, appended


def agree(
    records: RecordBlock | None, outcomes: Sequence[OutcomeBlock], weights: Sequence[int]
) -> bool:
    """Whether each record of a block has exactly one outcome, and nothing else has one, and no row is of a
    record that was appended at another time. False also where rows have to be read to know that. `weights`:
    those by which the outcomes were summed up."""
    seen = 0
    for block in outcomes:
        bits = block.bits & _ALL  # PostgreSQL's bigint has a sign
        if records is None or bits.bit_count() != block.rows or bits & (seen | ~records.bits):
            return False
        seen |= bits
        if block.timed and not _same_times(records, block, bits, weights):
            return False
    return records is not None and seen == records.bits


def places(bits: int) -> list[int]:
    """Of the bits that are set, the lowest first."""
    return [place for place in _PLACES if bits >> place & 1]


def _offsets(batch: Sequence[Record]) -> Sequence[int]:
    """Of records in the order of their offsets. Between the first and the last one there is no room for more
    than one each, so where there is no gap none of them is asked."""
    if not batch:
        return ()
    first, last = batch[0].offset() or 0, batch[-1].offset() or 0
    if last - first + 1 == len(batch):
        return range(first, last + 1)
    return [record.offset() or 0 for record in batch]


def _times(batch: Sequence[Record]) -> list[int | None]:
    return [
        milliseconds if kind == TIMESTAMP_LOG_APPEND_TIME else None
        for kind, milliseconds in [record.timestamp() for record in batch]
    ]


def _bits(offsets: Sequence[int], start: int, stop: int) -> int:
    """Of the offsets of one block."""
    number = stop - start
    if offsets[stop - 1] - offsets[start] + 1 == number:
        return ((1 << number) - 1) << (offsets[start] & _MASK)
    return sum(1 << (offset & _MASK) for offset in offsets[start:stop])


def _same_times(
    records: RecordBlock, block: OutcomeBlock, bits: int, weights: Sequence[int]
) -> bool:
    known = [time for time in records.appended_of(bits) if time is not None]
    if not known:
        return True
    if len(known) != block.rows or block.timed != block.rows:
        return False
    of_places = weights if bits == _ALL else [weights[place] for place in places(bits)]
    return bool(sum(map(mul, known, of_places)) == block.weighted)
