"""The audit (G5): every record ends as exactly one of stored, dead-lettered or duplicate.

It reads the records' offsets from Kafka and their outcomes from PostgreSQL, both in order, and merges
them in one pass with constant memory. Events are compared with notifications and windows in the
database. While a worker is behind, or its progress is unknown, the verdict is "not yet".
"""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from itertools import groupby
from typing import Final

import psycopg

from streamflow.audit import attribution, completeness, gap_ledger, proofs, wording
from streamflow.audit.blocks import draw_weights, offsets_and_times, record_blocks
from streamflow.audit.gap_ledger import AUDIT, REUSED, GapLedger, Range
from streamflow.audit.looks import Looks
from streamflow.audit.merge import merge, merge_blocks
from streamflow.audit.outcomes import (
    NEAR,
    OUTCOMES,
    Outcome,
    accounted_offsets,
    last_stored,
    outcome_blocks,
)
from streamflow.audit.problems import Problem, ProblemKind
from streamflow.audit.progress import look_up
from streamflow.audit.proofs import Earlier, Proof
from streamflow.audit.recreated import kept_ids
from streamflow.audit.report import AuditReport, PartitionAudit, Pending, PendingKind
from streamflow.audit.states import StateAudit, compare
from streamflow.audit.window_ledger import acknowledged_differences, keep_differences
from streamflow.audit.windows.counts import reconcile
from streamflow.audit.windows.parts import TopicsOfParts
from streamflow.audit.windows.reconciliation import Reconciliation, WindowsOf
from streamflow.audit.windows.tables import Compared, counted_tables, reconcile_table
from streamflow.flow import Partition
from streamflow.kafka.clients import admin, retrying
from streamflow.kafka.reader import Scanner
from streamflow.kafka.topic_ids import present_topic_ids
from streamflow.kafka.topics import compacted_topics, unmanaged_topics
from streamflow.postgres.connections import Connection, faulty_statement, session
from streamflow.postgres.erasing import erased_rows
from streamflow.postgres.gaps import import_gaps
from streamflow.postgres.modes import of_other_mode
from streamflow.postgres.sink import positions
from streamflow.settings import Settings
from streamflow.stream import Stream, reads
from streamflow.windows.progress import COUNTS, Progress

_EMITTING: Final = 5.0  # seconds from the end of a window until it is emitted


def run_audit(
    settings: Settings,
    streams: Sequence[Stream],
    *,
    patience: float = 30.0,
    most: int | None = None,
    since_last: bool = False,
) -> AuditReport:
    """Audits all topics of the streams up to where they end now.

    Args:
        patience: seconds to wait for the workers to catch up.
        most: if there are more records, skip those that an earlier audit has proved; their rows are counted.
        since_last: compare what came since the last audit, and some of what was proved again, in turn: the
            report says since when the rest was not looked at. Everything, where no full audit has proved it.

    Raises:
        Unavailable: broker or database does not answer, at the start or until `patience` is over.
    """
    began = time.monotonic()
    with session(settings, "audit"):
        present_topic_ids(admin(settings), reads("loader", streams))
    # Both have answered. A broker that fails from here on is waited for, as workers wait for it.
    for attempt in retrying(patience):
        with attempt, session(settings, "audit") as connection:
            report = _Audit(settings, connection, streams, began + patience).run(
                most, since_last=since_last
            )
    report.seconds = time.monotonic() - began
    return report


class _Audit:
    """One audit. The constructor waits until the workers have caught up, at most until `deadline`."""

    def __init__(
        self, settings: Settings, connection: Connection, streams: Sequence[Stream], deadline: float
    ) -> None:
        self._settings = settings
        self._connection = connection
        self._topics = reads("loader", streams)
        self._by_topic = {stream.topic: stream for stream in streams}
        self._unmanaged = unmanaged_topics(streams)
        self._event_tables = {stream.topic: stream.event_table for stream in streams}
        self._notification_topics = {
            stream.notifications_topic for stream in streams if stream.notify is not None
        }
        self._owners = attribution.owners(streams)
        # Where the records of a topic go that cannot be kept.
        self._dead_letters_of = {
            topic: {stream.dead_letter_topic for stream in streams if topic in stream.topic_names}
            for topic in self._topics
        }
        self._dead_letter_topics = {stream.dead_letter_topic for stream in streams}
        self._validator = settings.group("validator")
        self._analytics = settings.group("analytics")
        self._loader = settings.group("loader")
        # Gaps noticed from now on may be of records that this audit does not check.
        self._began: datetime
        [(self._began,)] = connection.execute("SELECT clock_timestamp()")
        client = admin(settings)
        self._reached = look_up(settings, connection, client, streams, deadline)
        known = proofs.read_proofs(connection)
        self._ids = present_topic_ids(client, self._topics)
        self._compacted = compacted_topics(client, self._by_topic.keys() & self._ids.keys())
        self._recreated = {
            topic for topic in self._topics if topic in self._ids and self._is_new(topic, known)
        }
        self._proofs = {
            (topic, number): proof
            for (topic, number), proof in known.items()
            if topic not in self._recreated
        }
        import_gaps(connection, settings, streams)
        self._gaps = GapLedger(connection, self._topics, self._loader)
        self._earlier: dict[Partition, Earlier] = {}
        self._looks = Looks(connection, self._began)
        self._weights = draw_weights()
        other_modes = of_other_mode(connection, streams)
        self._of_other_mode = other_modes.keys()
        self._not_auditable: dict[str, Problem] = {  # by topic
            topic: wording.of_other_mode(topic, error) for topic, error in other_modes.items()
        }

    def _is_new(self, topic: str, known: dict[Partition, Proof]) -> bool:
        """Whether the loader or an earlier audit has recorded another id of the topic."""
        audited = {proof.topic_id for (name, _), proof in known.items() if name == topic}
        ids = audited | kept_ids(self._connection, self._loader, topic)
        return bool(ids - {self._ids[topic], None, ""})

    def run(self, most: int | None, *, since_last: bool) -> AuditReport:
        """Compares everything, or what came since the last audit, and records what is proved."""
        bounds = self._reached.bounds
        present = {topic for topic, _ in bounds}
        total = sum(end - first for first, end in bounds.values())
        since_proved = most is not None and total > most
        ledgers = []
        with closing(Scanner(self._settings)) as scanner:
            for partition in sorted(bounds):
                trusted = since_last and self._is_trusted(partition)
                ledger = self._ledger(partition, since_proved=since_proved or trusted)
                ledgers.append(ledger)
                if ledger.topic in self._of_other_mode:
                    ledger.compared = False
                    continue
                with self._isolated(ledger):
                    if trusted:
                        self._look_again(ledger, scanner)
                    self._merge(ledger, scanner)
                    self._compare_notifications(ledger)
            windows = self._reconcile(ledgers)
            for ledger in ledgers:
                attribution.attribute(self._connection, scanner, ledger, self._owners)
        states = self._compare_states(ledgers, since_proved=since_proved)
        self._keep_proofs(ledgers, windows)
        self._keep_looks(ledgers, windows, states, since_proved=since_proved)
        return AuditReport(
            partitions=ledgers,
            owners=self._owners,
            windows=windows,
            states=states,
            pending=[*self._reached.pending, *self._overdue(windows)],
            topics=[
                *self._not_auditable.values(),
                *(
                    wording.missing(topic, managed=topic not in self._unmanaged)
                    for topic in self._topics
                    if topic not in present
                ),
                *(wording.recreated(topic) for topic in self._topics if topic in self._recreated),
                *(
                    wording.gap_problem(gap, loaded=False)
                    for gap in self._gaps.aside
                    if not gap.acknowledged
                ),
            ],
            lost_aside=sum(gap.end - gap.first for gap in self._gaps.aside if gap.acknowledged),
            erased=erased_rows(self._connection, self._topics),
        )

    @contextmanager
    def _isolated(self, ledger: PartitionAudit) -> Iterator[None]:
        """Whatever PostgreSQL refuses because of a stream's declaration is a problem of that stream."""
        try:
            yield
        except psycopg.Error as error:
            reason = faulty_statement(error)
            if reason is None or ledger.topic not in self._by_topic:
                raise
            ledger.compared = False
            self._not_auditable[ledger.topic] = wording.not_auditable(ledger.topic, reason)

    def _proof(self, partition: Partition) -> Proof:
        return self._proofs.get(partition, Proof())

    def _is_trusted(self, partition: Partition) -> bool:
        """Whether what was proved of a partition need not be compared again."""
        proof, (_, end) = self._proof(partition), self._reached.bounds[partition]
        is_reused = partition in self._reached.beyond or end < proof.through
        is_known = proof.counted_from_zero and self._looks.has_full(partition)
        return is_known and not is_reused and not self._went_back(partition)

    def _went_back(self, partition: Partition) -> bool:
        """Whether analytics reads again what it had counted: its group was reset. That may count twice."""
        progress = self._reached.progress.get(partition)
        return progress is not None and progress.resume < self._proof(partition).windows_through

    def _proved_parts(self, stream: Stream) -> dict[int, int]:
        """How far the partitions of the topic of its windows are proved."""
        topic = stream.analytics_topic
        numbers = [number for name, number in self._reached.bounds if name == topic]
        return {number: self._proof((topic, number)).through for number in numbers}

    def _look_again(self, ledger: PartitionAudit, scanner: Scanner) -> None:
        """Compares some of the records that were proved once more, in turn with the others."""
        first, proof = self._reached.bounds[ledger.key][0], self._proof(ledger.key)
        again = self._looks.take(ledger, first, proof)
        within = (again.first, again.end)
        self._merge_range(again, within, scanner)
        self._compare_notifications(again, within)
        self._looks.note(ledger, again, first, proof)

    def _ledger(self, partition: Partition, *, since_proved: bool) -> PartitionAudit:
        """A ledger without records, with known and new gaps."""
        reached, proof = self._reached, self._proof(partition)
        topic, number = partition
        first, end = reached.bounds[partition]
        start = max(first, min(proof.through, end)) if since_proved else first
        ledger = PartitionAudit(topic=topic, partition=number, first=start, end=end)
        loaded_to = judged = reached.loaded.get(partition, 0)
        if topic in self._by_topic:
            judged = min(judged, reached.validated.get(partition, 0))
        behind = self._dead_letters_of[topic].intersection(reached.dead_letters_behind)
        if topic not in self._dead_letter_topics and behind:
            judged = 0
        ledger.judged = judged
        self._gaps.note(AUDIT, partition, [(proof.through, first)], self._loader)
        if partition in reached.beyond:
            ledger.note(wording.beyond(ledger, loaded_to, reached.beyond[partition]))
        if end < proof.through:
            excused = self._gaps.acknowledged(partition, self._loader, AUDIT, causes=REUSED)
            if gap_ledger.uncovered(end, proof.through, excused):
                ledger.note(wording.truncated(ledger, proof.through))
        for gap in self._gaps.of(partition):
            loaded, derived = gap.end <= loaded_to, gap.first >= first
            ledger.note(wording.gap_problem(gap, loaded=loaded, derived=derived))
        ledger.lost = sum(high - low for low, high in self._gaps.acknowledged(partition))
        return ledger

    def _merge(self, ledger: PartitionAudit, scanner: Scanner) -> None:
        """Compares records with rows, and the rows of proved records with their recorded numbers."""
        stream, proof = self._by_topic.get(ledger.topic), self._proof(ledger.key)
        start, end = ledger.first, ledger.end
        table = self._event_tables.get(ledger.topic)
        trusted = ledger.key in self._looks.again
        earlier = proofs.count_earlier(
            self._connection, ledger.key, proof, (start, end), table, trusted=trusted
        )
        proved = min(max(start, proof.through), end)
        self._merge_range(ledger, (start, proved), scanner)
        if earlier is not None:
            self._earlier[ledger.key] = earlier
            if earlier.proof.counted_from_zero and not trusted:
                known = earlier.proof.counts
                present = earlier.proved + earlier.beyond + ledger.counts
                name = self._stored_as(ledger.topic)
                for problem in wording.changed_rows(ledger, proof.through, name, known, present):
                    ledger.note(problem)
        self._merge_range(ledger, (proved, end), scanner)
        self._note_added(ledger, table)
        gone = 0 if stream is None else self._gaps.lost_of(stream.dead_letter_topic, proof.at)
        if ledger.missing <= gone:
            self._note_underived(self._loader, ledger, ledger.missing_at, (proof.through, end))

    def _note_added(self, ledger: PartitionAudit, table: str | None) -> None:
        """Rows behind the end of the log. A loader may be ahead of this audit, so its position is read
        after them; one that is behind was moved back, and had stored more."""
        if ledger.key in self._looks.again:
            # Rows of a log that lost its end begin right behind it.
            near = ledger.end + NEAR
            if last_stored(self._connection, ledger.key, ledger.end, table, near) is None:
                return
        last = last_stored(self._connection, ledger.key, ledger.end, table)
        if last is None:
            return
        position = positions.read(self._connection, self._loader, [ledger.key])[ledger.key]
        if position is not None and ledger.end <= position.offset <= last:
            ledger.unknown += 1
            detail = "accounted for, behind the end of the log"
            ledger.note(ledger.problem(ProblemKind.NOT_IN_KAFKA, last, last + 1, detail))

    def _stored_as(self, topic: str) -> str:
        if topic in self._by_topic:
            return "events"
        if topic in self._notification_topics:
            return "notifications"
        return "dead letters" if topic in self._dead_letter_topics else "window counts"

    def _merge_range(self, ledger: PartitionAudit, within: Range, scanner: Scanner) -> None:
        table = self._event_tables.get(ledger.topic)
        lost: Sequence[Range] = ()
        if table is not None:
            lost = self._gaps.acknowledged(ledger.key, self._loader, causes={"retention"})
        batches = scanner.batches(ledger.key, *within)

        def rows(offsets: Range) -> Iterator[tuple[int, Outcome, int | None]]:
            return accounted_offsets(self._connection, ledger.key, offsets, table)

        if ledger.topic in self._compacted:
            merge(
                ledger, offsets_and_times(record_blocks(batches)), rows(within), lost, compacts=True
            )
        else:
            weights = self._weights
            outcomes = outcome_blocks(self._connection, ledger.key, within, table, weights)
            # Rows of other tables have no append time.
            records = record_blocks(batches, timed=table is not None)
            merge_blocks(ledger, within, records, outcomes, rows, weights, lost)

    def _compare_notifications(self, ledger: PartitionAudit, again: Range | None = None) -> None:
        """Compares what came since the proof, or these offsets `again`."""
        reached, partition, proof = self._reached, ledger.key, self._proof(ledger.key)
        if ledger.topic in self._notification_topics:
            within = again or (min(proof.through, ledger.end), ledger.end)
            alone = completeness.orphans(self._connection, *partition, within)
            if alone is not None:
                ledger.note(wording.unpaired(ProblemKind.NO_EVENT, ledger, alone))
        stream = self._by_topic.get(ledger.topic)
        if stream is None or stream.notify is None:
            return
        first, validated = reached.bounds[partition][0], reached.validated.get(partition, 0)
        if not reached.has_loaded(partition, validated, stream.notifications_topic):
            # What is missing may still be in progress.
            ledger.compared = False
            return
        # What is gone from Kafka will never be validated.
        within = again or (min(proof.through, ledger.first), max(validated, first))
        unpaired = completeness.unpaired(
            self._connection, stream, ledger.partition, within, reached.notes
        )
        explained = {
            "event": self._gaps.acknowledged(partition, self._validator),
            "note": self._gaps.covered(partition, self._loader, AUDIT),
        }
        for what, group in groupby(unpaired, key=lambda row: row.what):
            rest = completeness.outside((row.offset for row in group), explained[what])
            if rest is None:
                continue
            if what == "note":
                ledger.note(wording.unpaired(ProblemKind.NO_EVENT, ledger, rest))
                continue
            ledger.note(wording.unpaired(ProblemKind.NO_NOTIFICATION, ledger, rest))
            gone = self._gaps.lost_of(stream.notifications_topic, proof.at)
            knowable = (proof.through, rest.end if gone else first)
            self._note_underived(self._validator, ledger, rest.ranges, knowable)

    def _note_underived(
        self, group: str, ledger: PartitionAudit, missing: Sequence[Range], within: Range
    ) -> None:
        """Records gaps of a group for source records whose derived records are missing and will never
        come, so that they can be acknowledged: `within` the offsets where this can be known. Proved
        offsets are not: rows have vanished there. The group is the loader's for lost dead letters."""
        clipped = [(max(low, within[0]), min(high, within[1])) for low, high in missing]
        for gap in self._gaps.note(group, ledger.key, clipped):
            derived = gap.first >= ledger.first
            ledger.note(wording.gap_problem(gap, loaded=True, derived=derived))

    def _reconcile(self, ledgers: Sequence[PartitionAudit]) -> dict[WindowsOf, Reconciliation]:
        reached, by_partition = self._reached, {ledger.key: ledger for ledger in ledgers}
        windows: dict[WindowsOf, Reconciliation] = {}
        begun: set[str] = set()
        for partition, progress in sorted(reached.progress.items()):
            stream = self._by_topic[partition[0]]
            if stream.topic in self._of_other_mode or not reached.has_loaded(
                partition, progress.position, stream.analytics_topic
            ):
                # What differs may still be in progress.
                continue
            ledger = by_partition[partition]
            with self._isolated(ledger):
                # Parts of no partition are looked for once.
                topics = None if stream.topic in begun else self._topics_of_parts(stream)
                begun.add(stream.topic)
                for table, compared in self._compare_windows(stream, ledger, progress, topics):
                    windows[*partition, table] = compared
        return windows

    def _topics_of_parts(self, stream: Stream) -> TopicsOfParts:
        numbers = Counter(topic for topic, _ in self._reached.bounds)
        others = {*self._topics} - {*stream.topic_names}
        return TopicsOfParts(numbers[stream.topic], numbers[stream.analytics_topic], sorted(others))

    def _compare_windows(
        self,
        stream: Stream,
        ledger: PartitionAudit,
        progress: Progress,
        topics: TopicsOfParts | None,
    ) -> Iterator[tuple[str, Reconciliation]]:
        """Compares what is read, counted and loaded, and keeps what differs in it: no event or count of that
        is still to come. By the table that it is counted into."""
        connection, partition, proof = self._connection, ledger.key, self._proof(ledger.key)
        lost = self._gaps.acknowledged(partition, self._analytics)
        if stream.event_counts is not None:
            known = acknowledged_differences(connection, partition)
            compared = reconcile(
                connection,
                stream,
                ledger.partition,
                progress,
                lost,
                known,
                proof.windows_through,
                # Acknowledged differences are looked for in all windows.
                self._proved_parts(stream)
                if partition in self._looks.again and not known
                else None,
            )
            self._keep_differences(stream, ledger, progress, compared, COUNTS)
            yield COUNTS, compared
        for table in counted_tables(stream, progress):
            known = acknowledged_differences(connection, partition, table.name)
            compared = reconcile_table(
                connection,
                Compared(
                    table,
                    ledger.partition,
                    progress.windows[table.name],
                    progress.position,
                    progress.resume,
                    lost,
                    known,
                    proof.windows_through,
                    topics=topics,
                ),
            )
            self._keep_differences(stream, ledger, progress, compared, table.name)
            yield table.name, compared

    def _keep_differences(
        self,
        stream: Stream,
        ledger: PartitionAudit,
        progress: Progress,
        compared: Reconciliation,
        table: str,
    ) -> None:
        partition, proof = ledger.key, self._proof(ledger.key)
        lost_counts = self._gaps.lost_of(stream.analytics_topic, proof.windows_at)
        first = self._reached.bounds[partition][0]
        within = (proof.windows_through, progress.position if lost_counts else first)
        self._note_underived(self._analytics, ledger, compared.uncounted, within)
        gaps = [gap[3:5] for gap in self._gaps.of(partition) if gap.reader == self._analytics]
        cells, acknowledged = compared.differing_cells, compared.acknowledged
        keep_differences(self._connection, partition, cells, acknowledged, gaps, table)

    def _compare_states(
        self, ledgers: Sequence[PartitionAudit], *, since_proved: bool
    ) -> dict[Partition, StateAudit]:
        """Compares the rows of upsert streams with their changes: with all, or with those since proved."""
        states: dict[Partition, StateAudit] = {}
        for ledger in ledgers:
            stream = self._by_topic.get(ledger.topic)
            if ledger.topic in self._of_other_mode:
                continue
            if stream is not None and stream.mode == "upsert":
                first = ledger.first if since_proved or ledger.key in self._looks.again else 0
                with self._isolated(ledger):
                    states[ledger.key] = compare(self._connection, stream, ledger.key, first)
        return states

    def _overdue(self, windows: dict[WindowsOf, Reconciliation]) -> list[Pending]:
        """Windows that analytics should have emitted and has not."""
        ended = (self._began.timestamp() - _EMITTING) * 1000
        late: dict[Partition, int] = {}
        for (topic, number, _), compared in windows.items():
            partition = (topic, number)
            # A window of which the end is still to come waits for it.
            is_due = partition in self._reached.overdue and compared.first_end <= ended
            if compared.open and (compared.overdue or is_due):
                late[partition] = max(late.get(partition, 0), compared.open.total())
        pending = Pending(kind=PendingKind.OPEN_WINDOWS, worker="analytics", behind=late)
        return [pending] if late else []

    def _keep_proofs(
        self, ledgers: Sequence[PartitionAudit], windows: dict[WindowsOf, Reconciliation]
    ) -> None:
        """Records what is proved, for when retention has removed the records; windows up to the first
        open one. Offsets of recreated topics mean other records."""
        for ledger in ledgers:
            earlier = self._earlier.get(ledger.key)
            if earlier is None or not ledger.proved or ledger.topic in self._recreated:
                continue
            counts = earlier.proved + earlier.unproved + ledger.counts
            stored, dead, duplicate = (counts[outcome] for outcome in OUTCOMES)
            topic_id = self._ids.get(ledger.topic)
            proof = Proof(ledger.end, topic_id, stored, dead, duplicate, at=self._began)
            proofs.keep_proof(self._connection, ledger.key, earlier.proof, proof, ledger.lost)
        differing = {windows_of[:2] for windows_of, found in windows.items() if found.differing}
        for partition in sorted({windows_of[:2] for windows_of in windows} - differing):
            if partition[0] not in self._recreated:
                # New windows of it begin behind that.
                through = self._reached.progress[partition].resume
                proofs.keep_windows_proof(self._connection, partition, through, self._began)

    def _keep_looks(
        self,
        ledgers: Sequence[PartitionAudit],
        windows: dict[WindowsOf, Reconciliation],
        states: dict[Partition, StateAudit],
        *,
        since_proved: bool,
    ) -> None:
        """Records which proved records were compared. Where something is wrong, nothing is trusted until a
        full comparison has found it right."""
        wrong = {windows_of[:2] for windows_of, found in windows.items() if found.differing}
        wrong |= {partition for partition, state in states.items() if state.differing}
        wrong |= {partition for partition in self._reached.progress if self._went_back(partition)}
        compared = {windows_of[:2] for windows_of in windows}
        for ledger in ledgers:
            stream = self._by_topic.get(ledger.topic)
            has_windows = stream is not None and bool(stream.counted)
            if ledger.problem_count or ledger.key in wrong or ledger.topic in self._recreated:
                self._looks.distrust(ledger.key)
            elif ledger.proved and (ledger.key in compared or not has_windows):
                first = self._reached.bounds[ledger.key][0]
                proved = self._proof(ledger.key).through
                self._looks.keep(ledger, first, proved, full=not since_proved)
