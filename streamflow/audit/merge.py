"""Merging the records of a partition with their outcomes. Pure."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter

from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME

from streamflow.audit.gap_ledger import Range, append_offset, covers
from streamflow.audit.problems import ProblemKind
from streamflow.audit.report import PartitionAudit
from streamflow.records import Record

# Offset, what became of the record, and its append time if the row has it.
_Outcome = tuple[int, str, int | None]


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


def offset_and_append_time(record: Record) -> tuple[int, int | None]:
    kind, milliseconds = record.timestamp()
    return record.offset() or 0, milliseconds if kind == TIMESTAMP_LOG_APPEND_TIME else None


def _count(ledger: PartitionAudit, offset: int, rows: Sequence[_Outcome]) -> None:
    if len(rows) > 1:
        ledger.twice += 1
        names = " and ".join(sorted(outcome for _, outcome, _ in rows))
        _note(ledger, ProblemKind.TWICE, offset, f"accounted for twice, as {names}")
    _, outcome, _ = rows[0]
    setattr(ledger, outcome, getattr(ledger, outcome) + 1)


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
