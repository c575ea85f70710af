"""The audit (G5): every record ends as exactly one of stored, dead-lettered or duplicate.

It reads the records' offsets from Kafka and their outcomes from PostgreSQL, both in order, and
merges them: one pass, and no more memory for ten million records than for ten. Events are compared
with notifications and windows in the database. It closes only when it knows: while a worker is
behind, or it cannot be said how far it is, the answer is "not yet".
"""

import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from itertools import groupby
from typing import NamedTuple

from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME

from streamflow import audit_problems as wording
from streamflow.audit_merge import merge
from streamflow.audit_progress import Reached, look_up
from streamflow.audit_report import AuditReport, PartitionAudit, Pending, PendingKind
from streamflow.flow import Partition
from streamflow.kafka.clients import admin
from streamflow.kafka.scan import Scanner
from streamflow.kafka.topic_ids import present_topic_ids
from streamflow.postgres import completeness, gap_ledger
from streamflow.postgres.accounting import accounted_offsets
from streamflow.postgres.connections import Connection, session
from streamflow.postgres.gap_ledger import AUDIT, KnownGap
from streamflow.postgres.gaps import import_gaps, keep
from streamflow.postgres.reconciliation import Reconciliation, reconcile
from streamflow.problems import ProblemKind
from streamflow.records import Gap, Record
from streamflow.settings import Settings
from streamflow.stream import Stream


class Proof(NamedTuple):
    """What earlier audits remember of a partition.

    Attributes:
        through: the offset behind the last record that was proved.
        topic_id: of the topic that this counts in; None where it was not known.
    """

    through: int = 0
    topic_id: str | None = None


def run_audit(
    settings: Settings,
    streams: Sequence[Stream],
    *,
    patience: float = 30.0,
    most: int | None = None,
) -> AuditReport:
    """Audits all topics of the streams up to where they end now.

    Args:
        settings: where broker and database are.
        streams: whose topics are audited.
        patience: seconds to let the workers catch up with that.
        most: of more records than this, those are passed over that an earlier audit proved.

    Raises:
        Unavailable: broker or database does not answer.
    """
    began = time.monotonic()
    with session(settings, "audit") as connection:
        found = _Audit(settings, connection, streams).run(began + patience, most)
    found.seconds = time.monotonic() - began
    return found


def acknowledge(settings: Settings, streams: Sequence[Stream], who: str) -> list[KnownGap]:
    """Marks the gaps that audits and readers have noted in the streams' topics as known to a person:
    what is lost by them stays in the report, and is no problem any more. Returns the new ones.

    Raises:
        Unavailable: the database does not answer.
    """
    with session(settings, "audit") as connection:
        return gap_ledger.acknowledge_gaps(connection, _topics(streams), who)


class _Audit:
    """One audit.

    Args:
        settings: where the broker is, and what groups are called.
        connection: to the database.
        streams: whose topics are audited.
    """

    def __init__(
        self, settings: Settings, connection: Connection, streams: Sequence[Stream]
    ) -> None:
        self._settings = settings
        self._connection = connection
        self._streams = streams
        self._by_topic = {stream.topic: stream for stream in streams}
        self._notification_topics = {
            each.notifications_topic for each in streams if each.notify is not None
        }
        self._dead_letter_topics = {stream.dead_letter_topic for stream in streams}
        self._validator = settings.group("validator")
        self._analytics = settings.group("analytics")
        self._loader = settings.group("loader")
        self._gaps: list[KnownGap] = []

    def run(self, deadline: float, most: int | None) -> AuditReport:
        """Measures, compares, and remembers what is proved."""
        client = admin(self._settings)
        topics = _topics(self._streams)
        reached = look_up(self._settings, self._connection, client, self._streams, deadline)
        proofs = self._proofs()
        ids = present_topic_ids(client, topics)
        report = AuditReport(partitions=[], pending=reached.pending)
        report.topics = [
            *wording.missing(topics, {topic for topic, _ in reached.bounds}),
            *wording.recreated(topics, ids, self._known_ids(proofs)),
        ]
        recreated = {
            each.topic for each in report.topics if each.kind is ProblemKind.TOPIC_RECREATED
        }
        import_gaps(self._connection, self._settings, self._streams)
        self._gaps = gap_ledger.known_gaps(self._connection, topics)
        aside = [gap for gap in self._gaps if gap.topic not in topics]
        report.topics += [
            wording.gap_problem(gap, loaded=False) for gap in aside if not gap.acknowledged
        ]
        report.lost_aside = sum(gap.end - gap.first for gap in aside if gap.acknowledged)
        total = sum(end - first for first, end in reached.bounds.values())
        since_proved = most is not None and total > most
        with closing(Scanner(self._settings)) as scanner:
            for partition in sorted(reached.bounds):
                proof = Proof() if partition[0] in recreated else proofs.get(partition, Proof())
                ledger = self._ledger(partition, proof, reached, since_proved=since_proved)
                self._merge(ledger, scanner)
                self._compare_notifications(ledger, proof, reached)
                report.partitions.append(ledger)
        report.windows = self._reconcile(reached)
        report.pending = [*reached.pending, *_overdue(report.windows, reached)]
        self._remember(report, ids, recreated, added=since_proved)
        return report

    def _proofs(self) -> dict[Partition, Proof]:
        rows = self._connection.execute(
            "SELECT topic, partition, proved_through, topic_id FROM audit_ledger"
        )
        return {(topic, partition): Proof(*rest) for topic, partition, *rest in rows}

    def _known_ids(self, proofs: Mapping[Partition, Proof]) -> set[tuple[str, str]]:
        """Topics with the ids that they had for earlier audits, and for the loader."""
        rows = self._connection.execute(
            "SELECT DISTINCT topic, topic_id FROM loader_positions"
            " WHERE group_name = %s AND topic_id IS NOT NULL",
            [self._loader],
        )
        audited = ((topic, proof.topic_id) for (topic, _), proof in proofs.items())
        return {(topic, id_) for topic, id_ in (*rows, *audited) if id_}

    def _ledger(
        self, partition: Partition, proof: Proof, reached: Reached, *, since_proved: bool
    ) -> PartitionAudit:
        """An empty ledger, with the gaps that are known or show now."""
        topic, number = partition
        first, end = reached.bounds[partition]
        start = max(first, min(proof.through, end)) if since_proved else first
        ledger = PartitionAudit(topic=topic, partition=number, first=start, end=end)
        judged = reached.loaded.get(partition, 0)
        if topic in self._by_topic:
            judged = min(judged, reached.validated.get(partition, 0))
        if topic not in self._dead_letter_topics and not reached.dead_letters_loaded:
            judged = 0
        ledger.judged = judged
        known = gap_ledger.ranges(self._gaps, partition, [self._loader, AUDIT])
        for low, high in gap_ledger.uncovered(proof.through, first, known):
            gap = Gap(topic, number, low, high, "retention")
            keep(self._connection, AUDIT, [gap])
            self._gaps.append(KnownGap(AUDIT, *gap))
        if end < proof.through:
            excused = gap_ledger.ranges(
                [each for each in self._gaps if each.acknowledged and each.cause != "retention"],
                partition,
                [self._loader, AUDIT],
            )
            if gap_ledger.uncovered(end, proof.through, excused):
                ledger.note(wording.truncated(ledger, proof.through))
        for noted in self._gaps:
            if (noted.topic, noted.partition) == partition and not noted.acknowledged:
                loaded = noted.end <= reached.loaded.get(partition, 0)
                ledger.note(wording.gap_problem(noted, loaded=loaded))
        ledger.lost = sum(high - low for low, high in self._lost(partition))
        return ledger

    def _merge(self, ledger: PartitionAudit, scanner: Scanner) -> None:
        stream = self._by_topic.get(ledger.topic)
        partition, start, end = (ledger.topic, ledger.partition), ledger.first, ledger.end
        outcomes = accounted_offsets(
            self._connection,
            *partition,
            start,
            end,
            event_table=None if stream is None else stream.table,
        )
        records = scanner.records(partition, start, end)
        if stream is None:
            merge(ledger, ((record.offset() or 0, None) for record in records), outcomes)
        else:
            merge(ledger, map(_offset_and_time, records), outcomes)

    def _compare_notifications(
        self, ledger: PartitionAudit, proof: Proof, reached: Reached
    ) -> None:
        partition = (ledger.topic, ledger.partition)
        stream = self._by_topic.get(ledger.topic)
        if ledger.topic in self._notification_topics:
            within = (min(proof.through, ledger.end), ledger.end)
            alone = completeness.orphans(self._connection, *partition, within)
            if alone is not None:
                ledger.note(wording.no_event(ledger, alone))
        if stream is None or stream.notify is None:
            return
        first, validated = reached.bounds[partition][0], reached.validated.get(partition, 0)
        # What is gone from Kafka will not be validated any more.
        through = max(validated, first)
        if reached.loaded.get(partition, 0) < validated or not reached.has_loaded(
            stream.notifications_topic
        ):
            # What is missing may only be on its way.
            ledger.compared = False
            return
        start = min(proof.through, ledger.first)
        lost = self._lost(partition, self._validator)
        unread = gap_ledger.ranges(self._gaps, partition, [self._loader, AUDIT])
        found = completeness.unpaired(
            self._connection, stream, ledger.partition, (start, through), reached.notes
        )
        for what, group in groupby(found, key=lambda each: each.what):
            at = (each.offset for each in group)
            if what == "event":
                rest = completeness.outside(at, lost)
                if rest is not None:
                    ledger.note(wording.no_notification(ledger, rest))
                    if rest.first < first:
                        self._note_unrepairable(self._validator, ledger, rest, first)
            else:
                rest = completeness.outside(at, unread)
                if rest is not None:
                    ledger.note(wording.no_event(ledger, rest))

    def _lost(self, partition: Partition, *readers: str) -> list[gap_ledger.Range]:
        """The offsets that gaps of these readers cover, or of any; as far as a person knows it."""
        acknowledged = [gap for gap in self._gaps if gap.acknowledged]
        wanted = readers or [gap.reader for gap in acknowledged]
        return gap_ledger.ranges(acknowledged, partition, wanted)

    def _note_unrepairable(
        self, group: str, ledger: PartitionAudit, missing: completeness.Group, first: int
    ) -> None:
        """Notes a gap where what is missing can never be derived any more: so it can be
        acknowledged."""
        known = gap_ledger.ranges(self._gaps, (ledger.topic, ledger.partition), [group])
        for low, high in gap_ledger.uncovered(missing.first, min(missing.end, first), known):
            gap = Gap(ledger.topic, ledger.partition, low, high, "retention")
            keep(self._connection, group, [gap])

    def _reconcile(self, reached: Reached) -> dict[str, Reconciliation]:
        found: dict[str, Reconciliation] = {}
        for partition, progress in sorted(reached.progress.items()):
            stream = self._by_topic[partition[0]]
            if reached.loaded.get(partition, 0) < progress.position or not reached.has_loaded(
                stream.analytics_topic
            ):
                # What differs may only be on its way.
                continue
            lost = self._lost(partition, self._analytics)
            compared = reconcile(self._connection, stream, partition[1], progress, lost)
            found[f"{partition[0]}[{partition[1]}]"] = compared
            self._note_uncounted(partition, compared, reached.bounds[partition][0])
        return found

    def _note_uncounted(self, partition: Partition, compared: Reconciliation, first: int) -> None:
        """Notes gaps for events that can never be counted any more."""
        known = gap_ledger.ranges(self._gaps, partition, [self._analytics])
        for each in compared.differences:
            if each.offset is None or each.end_offset is None or each.offset >= first:
                continue
            for low, high in gap_ledger.uncovered(each.offset, min(each.end_offset, first), known):
                gap = Gap(*partition, low, high, "retention")
                keep(self._connection, self._analytics, [gap])

    def _remember(
        self, report: AuditReport, ids: Mapping[str, str], recreated: set[str], *, added: bool
    ) -> None:
        """Keeps what was proved, for when retention has removed the records.

        Args:
            report: of the audit.
            ids: of the topics.
            recreated: topics whose offsets mean other records than those that were proved.
            added: it did not look at what was proved before, so its numbers come on top.
        """
        for each in report.partitions:
            if each.proved and each.topic not in recreated:
                self._connection.execute(
                    """
                    INSERT INTO audit_ledger
                        (topic, partition, proved_through, records, stored, dead_lettered,
                         duplicates, lost, topic_id)
                    VALUES (%(topic)s, %(partition)s, %(end)s, %(records)s, %(stored)s,
                            %(dead_lettered)s, %(duplicate)s, %(lost)s, %(topic_id)s)
                    ON CONFLICT (topic, partition) DO UPDATE
                    SET proved_through = excluded.proved_through, proved_at = now(),
                        records = excluded.records + %(added)s * audit_ledger.records,
                        stored = excluded.stored + %(added)s * audit_ledger.stored,
                        dead_lettered = excluded.dead_lettered
                            + %(added)s * audit_ledger.dead_lettered,
                        duplicates = excluded.duplicates + %(added)s * audit_ledger.duplicates,
                        lost = excluded.lost, topic_id = excluded.topic_id
                    """,
                    {**vars(each), "added": int(added), "topic_id": ids.get(each.topic)},
                )


def _offset_and_time(record: Record) -> tuple[int, int | None]:
    kind, milliseconds = record.timestamp()
    return record.offset() or 0, milliseconds if kind == TIMESTAMP_LOG_APPEND_TIME else None


def _topics(streams: Sequence[Stream]) -> list[str]:
    return list(dict.fromkeys(topic for stream in streams for topic in stream.topic_names))


def _overdue(windows: Mapping[str, Reconciliation], reached: Reached) -> list[Pending]:
    """What analytics should have emitted and has not."""
    late = []
    for topic, number in sorted(reached.progress):
        compared = windows.get(f"{topic}[{number}]")
        if compared is None or not compared.open:
            continue
        if compared.overdue or (topic, number) in reached.overdue:
            late.append(((topic, number), sum(compared.open.values())))
    if not late:
        return []
    return [
        Pending(
            kind=PendingKind.OPEN_WINDOWS,
            worker="analytics",
            records=sum(number for _, number in late),
            partitions=tuple(partition for partition, _ in late),
        )
    ]
