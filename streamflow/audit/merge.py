"""Merging the records of a partition with their outcomes. Pure."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import merge as merged
from itertools import chain, groupby
from operator import attrgetter, itemgetter
from typing import Final

from streamflow.audit.blocks import SIZE, OutcomeBlock, RecordBlock, agree, offsets_and_times
from streamflow.audit.gap_ledger import Range, append_offset, covers
from streamflow.audit.problems import ProblemKind
from streamflow.audit.report import PartitionAudit

# Offset, what became of the record, and its append time if the row has it.
_Outcome = tuple[int, str, int | None]

_NUMBER: Final[Callable[[RecordBlock | OutcomeBlock], int]] = attrgetter("number")
_SPAN: Final = 64  # blocks that are read row by row together, where one of them differs


def merge_blocks(
    ledger: PartitionAudit,
    within: Range,
    records: Iterable[RecordBlock],
    outcomes: Iterable[OutcomeBlock],
    rows: Callable[[Range], Iterator[_Outcome]],
    weights: Sequence[int],
    lost: Sequence[Range] = (),
) -> None:
    """Fills the ledger as `merge` does, from blocks, both ascending. Only of spans in which a block differs
    `rows` are read, one by one.

    Args:
        within: the offsets that are merged.
        rows: reads the outcomes of the records in a range.
        weights: of the places in a block, by which the outcomes were summed up.
        lost: offsets whose outcome is known to be lost, ascending and disjoint.
    """
    blocks: Iterator[RecordBlock | OutcomeBlock] = merged(records, outcomes, key=_NUMBER)
    for span, found in groupby(blocks, key=lambda block: block.number // _SPAN):
        of_kafka: dict[int, RecordBlock] = {}
        of_rows: dict[int, list[OutcomeBlock]] = defaultdict(list)
        for block in found:
            if isinstance(block, RecordBlock):
                of_kafka[block.number] = block
            else:
                of_rows[block.number].append(block)
        if all(
            agree(of_kafka.get(number), of_rows.get(number, ()), weights)
            for number in of_kafka.keys() | of_rows.keys()
        ):
            ledger.records += sum(block.bits.bit_count() for block in of_kafka.values())
            for summed in chain.from_iterable(of_rows.values()):
                _add(ledger, summed.outcome, summed.rows)
        else:
            low, high = (SIZE * _SPAN * number for number in (span, span + 1))
            of_span = rows((max(low, within[0]), min(high, within[1])))
            merge(ledger, offsets_and_times(of_kafka.values()), of_span, lost)


def merge(
    ledger: PartitionAudit,
    records: Iterator[tuple[int, int | None]],
    outcomes: Iterator[_Outcome],
    lost: Sequence[Range] = (),
    *,
    compacts: bool = False,
) -> None:
    """Fills the ledger. Walks a partition's records and their outcomes side by side, both ascending by
    offset.

    Args:
        records: offset and append time of each record in Kafka; None if the time is not compared.
        lost: offsets whose outcome is known to be lost, ascending and disjoint.
        compacts: whether the broker removes records of which a newer one has the key.
    """
    judged = ledger.end if ledger.judged is None else ledger.judged
    grouped = ((offset, list(rows)) for offset, rows in groupby(outcomes, key=itemgetter(0)))
    accounted = next(grouped, None)
    for offset, appended in records:
        ledger.records += 1
        while accounted is not None and accounted[0] < offset:
            _without_record(ledger, *accounted, compacts=compacts)
            accounted = next(grouped, None)
        if accounted is None or accounted[0] > offset:
            if covers(lost, offset):
                continue
            if offset < judged:
                ledger.missing += 1
                append_offset(ledger.missing_at, offset)
                _note(ledger, ProblemKind.MISSING, offset, "not accounted for")
            else:
                ledger.pending += 1
            continue
        rows = accounted[1]
        _count(ledger, offset, rows)
        _, _, stored = rows[0]
        if stored is not None and appended is not None and stored != appended:
            ledger.other += 1
            _note(
                ledger,
                ProblemKind.OTHER_RECORD,
                offset,
                "its row is of another record, appended "
                f"{(appended - stored) / 1000:+,.3f} s apart; the broker has reused the offset",
            )
        accounted = next(grouped, None)
    while accounted is not None:
        _without_record(ledger, *accounted, compacts=compacts)
        accounted = next(grouped, None)


def _count(ledger: PartitionAudit, offset: int, rows: Sequence[_Outcome]) -> None:
    if len(rows) > 1:
        ledger.twice += 1
        names = " and ".join(sorted(outcome for _, outcome, _ in rows))
        _note(ledger, ProblemKind.TWICE, offset, f"accounted for twice, as {names}")
    _, outcome, _ = rows[0]
    _add(ledger, outcome, 1)


def _add(ledger: PartitionAudit, outcome: str, number: int) -> None:
    setattr(ledger, outcome, getattr(ledger, outcome) + number)


def _without_record(
    ledger: PartitionAudit, offset: int, rows: Sequence[_Outcome], *, compacts: bool
) -> None:
    if compacts:
        ledger.compacted += 1
        _count(ledger, offset, rows)
    else:
        ledger.unknown += 1
        _note(ledger, ProblemKind.NOT_IN_KAFKA, offset, "accounted for, not in Kafka")


def _note(ledger: PartitionAudit, kind: ProblemKind, offset: int, detail: str) -> None:
    ledger.note(ledger.problem(kind, offset, offset + 1, detail))
