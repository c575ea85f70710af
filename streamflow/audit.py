"""The audit (G5): every record ends as exactly one of stored, dead-lettered or duplicate.

It reads the records' offsets from Kafka and their outcomes from PostgreSQL, both in order, and
merges them: one pass, and no more memory for ten million records than for ten.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from streamflow.flow import Partition
from streamflow.kafka import offsets
from streamflow.kafka.clients import admin
from streamflow.kafka.scan import Scanner
from streamflow.postgres.accounting import accounted_offsets
from streamflow.postgres.connections import Connection, session
from streamflow.postgres.queries import loaded
from streamflow.postgres.reconciliation import Reconciliation, reconcile
from streamflow.records import Position
from streamflow.settings import Settings
from streamflow.stream import Stream
from streamflow.windows import Progress

_POLL = 0.1  # seconds


@dataclass(kw_only=True)
class PartitionAudit:
    """The ledger of one partition.

    Attributes:
        first: first offset that Kafka still holds.
        end: offset behind the last record looked at.
        problems: what does not add up, the first record first.
    """

    topic: str
    partition: int
    first: int
    end: int
    records: int = 0
    stored: int = 0
    dead_lettered: int = 0
    duplicate: int = 0
    problems: list[str] = field(default_factory=list)


@dataclass(kw_only=True)
class AuditReport:
    """What an audit found."""

    partitions: list[PartitionAudit]
    windows: dict[str, Reconciliation]
    seconds: float = 0.0

    @property
    def problems(self) -> list[str]:
        """Everything that does not add up."""
        return [text for each in self.partitions for text in each.problems] + [
            each.first_difference for each in self.windows.values() if each.first_difference
        ]

    @property
    def closed(self) -> bool:
        """Whether the ledger closes."""
        return not self.problems

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "closed": self.closed,
            "problems": self.problems,
            "partitions": [vars(each) for each in self.partitions],
            "windows": {
                name: {"events": each.events, "counted": each.counted, "cells": each.cells}
                for name, each in self.windows.items()
            },
            "seconds": round(self.seconds, 3),
        }


def run_audit(
    settings: Settings, streams: Sequence[Stream], *, patience: float = 30.0
) -> AuditReport:
    """Audits all topics of the streams up to where they end now.

    Args:
        settings: where broker and database are.
        streams: whose topics are audited.
        patience: seconds to let the workers catch up with that; what they have not handled then
            is reported as not accounted for.

    Raises:
        Unavailable: broker or database does not answer.
    """
    began = time.monotonic()
    client = admin(settings)
    sources = [stream.topic for stream in streams]
    ends = offsets.bounds(client, offsets.partitions_of(client, sources))
    deadline = began + patience
    _caught_up(settings, "validator", ends, deadline)
    progress = {
        partition: Progress.parse(position.offset, position.metadata)
        for partition, position in _caught_up(settings, "analytics", ends, deadline).items()
    }
    derived = sorted({topic for stream in streams for topic in stream.topic_names} - {*sources})
    ends |= offsets.bounds(client, offsets.partitions_of(client, derived))
    buried = sorted({stream.dead_letter_topic for stream in streams})
    with session(settings, "audit") as connection:
        group = settings.group("loader")
        _wait_until(deadline, lambda: _loaded(connection, group, ends))
        # What the loader refused on its way there is in a dead-letter topic by now, but further on
        # than that topic's end was before.
        since = offsets.bounds(client, offsets.partitions_of(client, buried))
        _wait_until(deadline, lambda: _loaded(connection, group, since))
        report = AuditReport(
            partitions=_audit_partitions(settings, connection, streams, ends),
            windows=_reconcile(connection, streams, progress),
        )
        _remember(connection, report)
    report.seconds = time.monotonic() - began
    return report


def _wait_until(deadline: float, condition: Callable[[], bool]) -> None:
    while not condition() and time.monotonic() < deadline:
        time.sleep(_POLL)


def _caught_up(
    settings: Settings, worker: str, ends: dict[Partition, tuple[int, int]], deadline: float
) -> dict[Partition, Position]:
    """What a worker's group has committed once it has read everything, or by the deadline."""
    with closing(offsets.GroupOffsets(settings, settings.group(worker))) as group:
        _wait_until(deadline, lambda: _reached(group.read(ends), ends))
        return group.read(ends)


def _reached(positions: dict[Partition, Position], ends: dict[Partition, tuple[int, int]]) -> bool:
    return all(
        first == end
        or (partition in positions and offsets.read_position(positions[partition]) >= end)
        for partition, (first, end) in ends.items()
    )


def _loaded(connection: Connection, group: str, ends: dict[Partition, tuple[int, int]]) -> bool:
    found = loaded(connection, group)
    return all(
        first == end or (partition in found and found[partition].next_offset >= end)
        for partition, (first, end) in ends.items()
    )


def _audit_partitions(
    settings: Settings,
    connection: Connection,
    streams: Sequence[Stream],
    ends: dict[Partition, tuple[int, int]],
) -> list[PartitionAudit]:
    tables = {stream.topic: stream.table for stream in streams}
    proved = {
        (topic, partition): through
        for topic, partition, through in connection.execute(
            "SELECT topic, partition, proved_through FROM audit_ledger"
        )
    }
    scanner = Scanner(settings)
    try:
        audits = []
        for (topic, partition), (first, end) in sorted(ends.items()):
            ledger = PartitionAudit(topic=topic, partition=partition, first=first, end=end)
            through = proved.get((topic, partition), 0)
            if first > through:
                ledger.problems.append(
                    f"{topic}[{partition}] offsets {through} to {first - 1}: removed by retention "
                    "before an audit saw them"
                )
            if end < through:
                ledger.problems.append(
                    f"{topic}[{partition}] ends at offset {end}, but was proved through {through}: "
                    "the topic was made anew, so its offsets mean other records now"
                )
            merge(
                ledger,
                scanner.offsets((topic, partition), first, end),
                accounted_offsets(
                    connection, topic, partition, first, end, event_table=tables.get(topic)
                ),
            )
            audits.append(ledger)
        return audits
    finally:
        scanner.close()


def merge(
    ledger: PartitionAudit, records: Iterator[int], outcomes: Iterator[tuple[int, str]]
) -> None:
    """Walks a partition's records and their outcomes side by side, both ascending by offset."""
    where = f"{ledger.topic}[{ledger.partition}]"
    grouped = (
        (offset, [outcome for _, outcome in found])
        for offset, found in groupby(outcomes, key=lambda pair: pair[0])
    )
    accounted = next(grouped, None)
    for offset in records:
        ledger.records += 1
        while accounted is not None and accounted[0] < offset:
            ledger.problems.append(f"{where} offset {accounted[0]}: accounted for, not in Kafka")
            accounted = next(grouped, None)
        if accounted is None or accounted[0] > offset:
            ledger.problems.append(f"{where} offset {offset}: not accounted for")
            continue
        found = accounted[1]
        if len(found) > 1:
            ledger.problems.append(
                f"{where} offset {offset}: accounted for twice, as {' and '.join(sorted(found))}"
            )
        outcome = found[0]
        setattr(ledger, outcome, getattr(ledger, outcome) + 1)
        accounted = next(grouped, None)
    while accounted is not None:
        ledger.problems.append(f"{where} offset {accounted[0]}: accounted for, not in Kafka")
        accounted = next(grouped, None)


def _reconcile(
    connection: Connection,
    streams: Sequence[Stream],
    progress: dict[Partition, Progress | None],
) -> dict[str, Reconciliation]:
    found: dict[str, Reconciliation] = {}
    for stream in streams:
        for (topic, partition), reached in sorted(progress.items()):
            if topic == stream.topic and reached is not None:
                found[f"{topic}[{partition}]"] = reconcile(connection, stream, partition, reached)
    return found


def _remember(connection: Connection, report: AuditReport) -> None:
    """Keeps what was proved, for when retention has removed the records."""
    for each in report.partitions:
        if not each.problems:
            connection.execute(
                """
                INSERT INTO audit_ledger
                    (topic, partition, proved_through, records, stored, dead_lettered, duplicates)
                VALUES (%s, %s, %s, %s, %s, %s, %s)
                ON CONFLICT (topic, partition) DO UPDATE
                SET proved_through = excluded.proved_through, records = excluded.records,
                    stored = excluded.stored, dead_lettered = excluded.dead_lettered,
                    duplicates = excluded.duplicates, proved_at = now()
                """,
                (
                    each.topic,
                    each.partition,
                    each.end,
                    each.records,
                    each.stored,
                    each.dead_lettered,
                    each.duplicate,
                ),
            )
