"""The audit (G5): every record ends as exactly one of stored, dead-lettered or duplicate.

It reads the records' offsets from Kafka and their outcomes from PostgreSQL, both in order, and merges
them in one pass with constant memory. Events are compared with notifications and windows in the
database. While a worker is behind, or its progress is unknown, the answer is "not yet".
"""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from itertools import groupby

from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME

from streamflow.audit import completeness, gap_ledger, proofs, wording
from streamflow.audit.gap_ledger import AUDIT, REUSED, GapLedger, KnownGap
from streamflow.audit.merge import merge
from streamflow.audit.outcomes import accounted_offsets
from streamflow.audit.problems import ProblemKind
from streamflow.audit.progress import Reached, look_up
from streamflow.audit.proofs import Earlier, Proof
from streamflow.audit.report import AuditReport, PartitionAudit, Pending, PendingKind
from streamflow.audit.windows import Reconciliation, reconcile
from streamflow.flow import Partition
from streamflow.kafka.clients import admin
from streamflow.kafka.reader import Scanner
from streamflow.kafka.topic_ids import present_topic_ids
from streamflow.postgres.connections import Connection, session
from streamflow.postgres.gaps import import_gaps
from streamflow.records import Record
from streamflow.settings import Settings
from streamflow.stream import Stream


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
        patience: seconds to wait for the workers to catch up.
        most: if there are more records, skip those that an earlier audit has proved.

    Raises:
        Unavailable: broker or database does not answer.
    """
    began = time.monotonic()
    with session(settings, "audit") as connection:
        found = _Audit(settings, connection, streams).run(began + patience, most)
    found.seconds = time.monotonic() - began
    return found


def acknowledge(settings: Settings, streams: Sequence[Stream], who: str) -> list[KnownGap]:
    """Acknowledges all gaps in the streams' topics: the report still counts them as lost, but not as
    problems. Returns those that were not acknowledged before.

    Raises:
        Unavailable: the database does not answer.
    """
    with session(settings, "audit") as connection:
        return gap_ledger.acknowledge_gaps(connection, _topics(streams), who)


class _Audit:
    """One audit.

    Args:
        settings: of the broker and the groups.
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
        self._gaps = GapLedger(connection, _topics(streams))
        self._began = datetime.now(UTC)
        self._proofs: dict[Partition, Proof] = {}
        self._earlier: dict[Partition, Earlier] = {}

    def run(self, deadline: float, most: int | None) -> AuditReport:
        """Compares everything, and records what is proved."""
        # Gaps noticed from now on may be of records that this audit does not check.
        [self._began] = self._connection.execute("SELECT clock_timestamp()").fetchone() or ()
        client = admin(self._settings)
        topics = _topics(self._streams)
        reached = look_up(self._settings, self._connection, client, self._streams, deadline)
        self._proofs = proofs.read_proofs(self._connection)
        ids = present_topic_ids(client, topics)
        report = AuditReport(partitions=[], pending=reached.pending)
        report.topics = [
            *wording.missing(topics, {topic for topic, _ in reached.bounds}),
            *wording.recreated(topics, ids, self._known_ids()),
        ]
        recreated = {
            problem.topic
            for problem in report.topics
            if problem.kind is ProblemKind.TOPIC_RECREATED
        }
        self._proofs = {
            partition: proof
            for partition, proof in self._proofs.items()
            if partition[0] not in recreated
        }
        import_gaps(self._connection, self._settings, self._streams)
        self._gaps = GapLedger(self._connection, topics)
        report.topics += [
            wording.gap_problem(gap, loaded=False)
            for gap in self._gaps.aside
            if not gap.acknowledged
        ]
        report.lost_aside = sum(gap.end - gap.first for gap in self._gaps.aside if gap.acknowledged)
        total = sum(end - first for first, end in reached.bounds.values())
        since_proved = most is not None and total > most
        with closing(Scanner(self._settings)) as scanner:
            for partition in sorted(reached.bounds):
                proof = self._proof(partition)
                ledger = self._ledger(partition, proof, reached, since_proved=since_proved)
                self._merge(ledger, proof, scanner)
                self._compare_notifications(ledger, proof, reached)
                report.partitions.append(ledger)
        report.windows = self._reconcile(reached, report.partitions)
        report.pending = [*reached.pending, *_overdue(report.windows, reached)]
        self._remember(report, ids, recreated)
        self._remember_windows(report, reached, recreated)
        return report

    def _proof(self, partition: Partition) -> Proof:
        return self._proofs.get(partition, Proof())

    def _known_ids(self) -> set[tuple[str, str]]:
        """Topics with the ids that earlier audits and the loader have recorded."""
        rows = self._connection.execute(
            "SELECT DISTINCT topic, topic_id FROM loader_positions"
            " WHERE group_name = %s AND topic_id IS NOT NULL",
            [self._loader],
        )
        audited = ((topic, proof.topic_id) for (topic, _), proof in self._proofs.items())
        return {(topic, id_) for topic, id_ in (*rows, *audited) if id_}

    def _ledger(
        self, partition: Partition, proof: Proof, reached: Reached, *, since_proved: bool
    ) -> PartitionAudit:
        """A ledger without records, with known and new gaps."""
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
        self._gaps.note(AUDIT, partition, [(proof.through, first)], self._loader)
        if partition in reached.beyond:
            loaded_to, ends_at = reached.loaded[partition], reached.beyond[partition]
            ledger.note(wording.beyond(ledger, loaded_to, ends_at))
        if end < proof.through:
            excused = self._gaps.acknowledged(partition, self._loader, AUDIT, causes=REUSED)
            if gap_ledger.uncovered(end, proof.through, excused):
                ledger.note(wording.truncated(ledger, proof.through))
        for noted in self._gaps.of(partition):
            loaded = noted.end <= reached.loaded.get(partition, 0)
            ledger.note(wording.gap_problem(noted, loaded=loaded, derived=noted.first >= first))
        ledger.lost = sum(high - low for low, high in self._gaps.acknowledged(partition))
        return ledger

    def _merge(self, ledger: PartitionAudit, proof: Proof, scanner: Scanner) -> None:
        """Compares records with rows, and the rows of proved records with their recorded numbers."""
        stream = self._by_topic.get(ledger.topic)
        partition, start, end = (ledger.topic, ledger.partition), ledger.first, ledger.end
        earlier = proofs.count_earlier(
            self._connection,
            partition,
            proof,
            (start, end),
            event_table=None if stream is None else stream.table,
        )
        proved = min(max(start, proof.through), end)
        self._merge_range(ledger, (start, proved), scanner)
        if earlier is not None:
            self._earlier[partition] = earlier
            if earlier.proof.counted_from_zero:
                found = earlier.proved + earlier.beyond + _counts(ledger)
                for problem in wording.changed_rows(
                    ledger,
                    proof.through,
                    self._stored_as(ledger.topic),
                    earlier.proof.counts,
                    found,
                ):
                    ledger.note(problem)
        self._merge_range(ledger, (proved, end), scanner)
        gone = 0 if stream is None else self._lost_of(stream.dead_letter_topic, proof.at)
        if ledger.missing <= gone:
            self._note_underived(self._loader, ledger, ledger.missing_at, (proof.through, end))

    def _stored_as(self, topic: str) -> str:
        if topic in self._by_topic:
            return "events"
        if topic in self._notification_topics:
            return "notifications"
        return "dead letters" if topic in self._dead_letter_topics else "window counts"

    def _merge_range(
        self, ledger: PartitionAudit, within: gap_ledger.Range, scanner: Scanner
    ) -> None:
        stream = self._by_topic.get(ledger.topic)
        partition, (start, end) = (ledger.topic, ledger.partition), within
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
            lost = self._gaps.acknowledged(partition, self._loader, causes={"retention"})
            merge(ledger, map(_offset_and_time, records), outcomes, lost)

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
        # What is gone from Kafka will never be validated.
        through = max(validated, first)
        if reached.loaded.get(partition, 0) < validated or not reached.has_loaded(
            stream.notifications_topic
        ):
            # What is missing may still be in progress.
            ledger.compared = False
            return
        start = min(proof.through, ledger.first)
        lost = self._gaps.acknowledged(partition, self._validator)
        unread = self._gaps.covered(partition, self._loader, AUDIT)
        found = completeness.unpaired(
            self._connection, stream, ledger.partition, (start, through), reached.notes
        )
        for what, group in groupby(found, key=lambda each: each.what):
            at = (each.offset for each in group)
            if what == "event":
                rest = completeness.outside(at, lost)
                if rest is not None:
                    ledger.note(wording.no_notification(ledger, rest))
                    gone = self._lost_of(stream.notifications_topic, proof.at)
                    within = (proof.through, rest.end if gone else first)
                    self._note_underived(self._validator, ledger, rest.ranges, within)
            else:
                rest = completeness.outside(at, unread)
                if rest is not None:
                    ledger.note(wording.no_event(ledger, rest))

    def _lost_of(self, topic: str, since: datetime | None) -> int:
        """Of a derived topic since then: they explain what is missing."""
        return self._gaps.lost_of(topic, (self._loader, AUDIT), since)

    def _note_underived(
        self,
        group: str,
        ledger: PartitionAudit,
        missing: Sequence[gap_ledger.Range],
        within: gap_ledger.Range,
    ) -> None:
        """Records gaps of a group for source records whose derived records are missing and will never
        come, so that they can be acknowledged.

        Args:
            group: of the validator or of analytics; of the loader for lost dead letters.
            ledger: of the source partition.
            missing: offsets of the records.
            within: the offsets where this can be known. Proved offsets are not: rows have vanished there.
        """
        clipped = [(max(low, within[0]), min(high, within[1])) for low, high in missing]
        for noted in self._gaps.note(group, (ledger.topic, ledger.partition), clipped):
            derived = noted.first >= ledger.first
            ledger.note(wording.gap_problem(noted, loaded=True, derived=derived))

    def _reconcile(
        self, reached: Reached, ledgers: Sequence[PartitionAudit]
    ) -> dict[str, Reconciliation]:
        by_partition = {(each.topic, each.partition): each for each in ledgers}
        found: dict[str, Reconciliation] = {}
        for partition, progress in sorted(reached.progress.items()):
            stream = self._by_topic[partition[0]]
            if reached.loaded.get(partition, 0) < progress.position or not reached.has_loaded(
                stream.analytics_topic
            ):
                # What differs may still be in progress.
                continue
            lost = self._gaps.acknowledged(partition, self._analytics)
            compared = reconcile(self._connection, stream, partition[1], progress, lost)
            found[f"{partition[0]}[{partition[1]}]"] = compared
            proof, first = self._proof(partition), reached.bounds[partition][0]
            lost_counts = self._lost_of(stream.analytics_topic, proof.windows_at)
            end = progress.position if lost_counts else first
            self._note_underived(
                self._analytics,
                by_partition[partition],
                compared.uncounted,
                (proof.windows_through, end),
            )
        return found

    def _remember(self, report: AuditReport, ids: Mapping[str, str], recreated: set[str]) -> None:
        """Records what is proved, for when retention has removed the records.

        Args:
            report: of the audit.
            ids: of the topics.
            recreated: topics whose offsets now mean other records.
        """
        for each in report.partitions:
            partition = (each.topic, each.partition)
            earlier = self._earlier.get(partition)
            if earlier is None or not each.proved or each.topic in recreated:
                continue
            counts = earlier.proved + earlier.unproved + _counts(each)
            proof = Proof(
                each.end,
                ids.get(each.topic),
                counts["stored"],
                counts["dead_lettered"],
                counts["duplicate"],
                at=self._began,
            )
            proofs.keep_proof(self._connection, partition, earlier.proof, proof, each.lost)

    def _remember_windows(self, report: AuditReport, reached: Reached, recreated: set[str]) -> None:
        """Records how far the windows are proved: up to the first open one."""
        for partition, progress in reached.progress.items():
            compared = report.windows.get(f"{partition[0]}[{partition[1]}]")
            if compared is not None and not compared.differing and partition[0] not in recreated:
                proofs.keep_windows_proof(self._connection, partition, progress.resume, self._began)


def _counts(ledger: PartitionAudit) -> proofs.Counts:
    return Counter(
        stored=ledger.stored, dead_lettered=ledger.dead_lettered, duplicate=ledger.duplicate
    )


def _offset_and_time(record: Record) -> tuple[int, int | None]:
    kind, milliseconds = record.timestamp()
    return record.offset() or 0, milliseconds if kind == TIMESTAMP_LOG_APPEND_TIME else None


def _topics(streams: Sequence[Stream]) -> list[str]:
    return list(dict.fromkeys(topic for stream in streams for topic in stream.topic_names))


def _overdue(windows: Mapping[str, Reconciliation], reached: Reached) -> list[Pending]:
    """Windows that analytics should have emitted and has not."""
    late = []
    for partition in sorted(reached.progress):
        compared = windows.get("{}[{}]".format(*partition))
        if compared and compared.open and (compared.overdue or partition in reached.overdue):
            late.append((partition, sum(compared.open.values())))
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
