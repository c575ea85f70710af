"""One membership of a consumer group: consume, commit, and what rebalances do to both."""

import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import closing, suppress

import structlog
from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from streamflow import monitoring
from streamflow.calls import SLACK, call
from streamflow.errors import Fenced, OffsetsReused, StreamFlowError, Unavailable
from streamflow.flow import Batch, Output, Partition, PartitionRun, Sink, runs_of
from streamflow.kafka import clients, continuity, offsets
from streamflow.kafka.reader import Fetched, Scanner, consume_batch, interpret
from streamflow.kafka.topic_ids import TopicMissing, TopicWatch
from streamflow.records import Gap, Log, Position, Record
from streamflow.settings import Settings
from streaming_workers.runtime.batch_metrics import BatchMetrics
from streaming_workers.runtime.job import Job

log = structlog.get_logger()

# Seconds to wait for a record after a turn without any. A stop and a window that is due wait as long.
_IDLE = 0.25
_LAG_EVERY = 1.0  # seconds
_DISPLAY_EVERY = 1.0  # seconds
_TOPICS_EVERY = 5.0  # seconds; without records it is enough to notice it soon
_MARKER = 1  # offset that the end of a transaction takes
_TIMEOUT = 10.0  # seconds; of one request


class Session:
    """One membership of the consumer group, with its sink; torn down on any error.

    Args:
        settings: where the broker is.
        job: whose topics are read; it keeps the state of the partitions.
        make_sink: makes the sink that outputs are committed to.
        on_durable: takes the metrics of each batch once it is durable.
        topics: notices recreated topics; lives as long as the process.
    """

    def __init__(
        self,
        settings: Settings,
        job: Job,
        make_sink: Callable[[Consumer], Sink],
        on_durable: Callable[[BatchMetrics], None],
        topics: TopicWatch,
    ) -> None:
        self._settings = settings
        self._job = job
        self._on_durable = on_durable
        self._topics = topics
        self._topics_checked = time.monotonic()
        self._read_to: dict[Partition, int] = {}
        self._logs: dict[Partition, Log] = {}
        self._gaps: dict[Partition, Gap] = {}
        self._given_away: set[Partition] = set()
        self._failure: StreamFlowError | None = None
        self._moved = False
        self._handed_over: deque[BatchMetrics] = deque()
        self._lag_reported_at = float("-inf")
        self._to_display: dict[Partition, Position] = {}
        self._displayed_at = float("-inf")
        self._abandoned = False
        # The last turn brought nothing, and has flushed what the sink held.
        self._quiet = False
        self.joined = False
        self._consumer = clients.consumer(
            settings, job.group, **{"queued.max.messages.kbytes": job.prefetch_kb}
        )
        try:
            with call("list_topics", _TIMEOUT + SLACK):
                offsets.require_partitions(self._consumer, self._job.topics)
            self._sink = make_sink(self._consumer)
            self._consumer.subscribe(
                job.topics,
                on_assign=self._on_assign,
                on_revoke=self._on_revoke,
                on_lost=self._on_lost,
            )
        except BaseException:
            with call("consumer.close", _TIMEOUT):
                self._consumer.close()
            raise

    def consume(self) -> Batch:
        """The next batch, which may be empty.

        Raises:
            Unavailable: the broker, or while partitions were taken over, the sink's dependency.
            OffsetsReused: a topic was recreated, or a log truncated.
        """
        self._moved = False
        self._given_away.clear()
        with clients.kafka_errors(), call("consumer.consume"):
            messages = consume_batch(
                self._consumer,
                self._job.batch_size,
                self._job.linger,
                idle=_IDLE if self._quiet else 0.0,
            )
        self._quiet = not messages
        if self._failure is not None:
            raise self._failure
        self._report_lag()
        records, ends = self._interpret(messages)
        runs = runs_of(records)
        moved = self._moved_positions(records, runs, ends)
        gaps, self._gaps = list(self._gaps.values()), {}
        if moved:
            self._topics.ask()
        elif time.monotonic() - self._topics_checked > _TOPICS_EVERY:
            self._look_at_topics()
        return Batch(records, moved, time.monotonic(), gaps, self._topics.ids, runs)

    def _look_at_topics(self) -> None:
        """Without records, a broker that does not answer is no reason to leave the group."""
        self._topics_checked = time.monotonic()
        try:
            self._topics.ask()
            self._topics.check()
        except TopicMissing:
            raise
        except Unavailable as error:
            log.debug("topics not checked", why=str(error))

    def _moved_positions(
        self, records: Sequence[Record], runs: Sequence[PartitionRun], ends: Mapping[Partition, int]
    ) -> list[Position]:
        """The new position of each partition that moved.

        Behind the last record there may be transaction markers: the end-of-partition event says
        that they are passed, so that a worker that has read everything shows no lag.
        """
        reached = {
            (topic, partition): (records[end - 1].offset() or 0) + 1
            for topic, partition, _, end in runs
        }
        for partition, end in ends.items():
            since = reached.get(partition, self._read_to.get(partition, end))
            if end > since + _MARKER:
                self._require_empty(partition, since, end)
            reached[partition] = max(end, since)
        moved: dict[Partition, Position] = {}
        before: dict[Partition, Position] = {}
        for partition, offset in reached.items():
            read_to = self._read_to.get(partition, offset)
            if offset > read_to:
                self._read_to[partition] = offset
                moved[partition] = Position(*partition, offset)
                before[partition] = Position(*partition, read_to, log=self._logs[partition])
        with clients.kafka_errors():
            read = self._consumer.position([TopicPartition(*partition) for partition in moved])
        self._logs = offsets.with_epochs(self._logs, read)
        # Where the leader has changed, its log must have reached the position before. The client does
        # not check that of a position behind which it has read nothing.
        changed = {
            partition: position
            for partition, position in before.items()
            if self._logs[partition].leader_epoch != position.log.leader_epoch
        }
        continuity.require_whole_logs(self._settings, self._job.group, changed)
        for partition, gap in self._gaps.items():
            moved.setdefault(partition, Position(*partition, gap.end))
        return list(moved.values())

    def _require_empty(self, partition: Partition, since: int, end: int) -> None:
        """Makes sure that what an end-of-partition event jumps over are no records, but markers of
        aborted transactions, or removed by retention.

        Raises:
            Unavailable: the client passed over a record; the next session reads it again.
        """
        with clients.kafka_errors(), call("get_watermark_offsets", _TIMEOUT + SLACK):
            low, _ = self._consumer.get_watermark_offsets(
                TopicPartition(*partition), timeout=_TIMEOUT
            )
        with closing(Scanner(self._settings)) as scanner:
            skipped = next(scanner.offsets(partition, max(since, low), end), None)
        if skipped is not None:
            raise Unavailable(
                f"{partition[0]}[{partition[1]}]: the client passed over the record at {skipped}, "
                "which is read again"
            )

    def _report_lag(self) -> None:
        """Sets the lag of each partition, from the end that the last fetch reported: no request."""
        if time.monotonic() - self._lag_reported_at < _LAG_EVERY:
            return
        self._lag_reported_at = time.monotonic()
        for (topic, partition), read_to in self._read_to.items():
            with clients.kafka_errors():
                low, high = self._consumer.get_watermark_offsets(
                    TopicPartition(topic, partition), cached=True
                )
            if high >= 0:
                lag = high - max(read_to, low, 0)
                monitoring.LAG.labels(topic, partition).set(max(lag, 0))

    def _interpret(self, messages: list[Message]) -> Fetched:
        try:
            records, ends = interpret(self._consumer, messages, self._read_to)
        except OffsetsReused:
            # A recreated topic may look truncated.
            self._look_at_topics()
            raise
        return Fetched(self._still_held(records) if self._moved else records, ends)

    def _still_held(self, records: list[Record]) -> list[Record]:
        """Leaves out the records of partitions that were given away during this call.

        Those of partitions taken over in this call are all of the new assignment: librdkafka leaves
        out what an earlier one had fetched. There is no seek to make sure of that: after a seek the
        consumer has no position until a record comes, and the value for "none" was once stored as one.
        """
        return [
            record for record in records if (record.topic(), record.partition()) in self._read_to
        ]

    def commit(self, batch: Batch, output: Output) -> None:
        """Hands an output to the sink, unless a record in it may be of a recreated topic.

        Raises:
            OffsetsReused: a topic was recreated since its partitions were taken over.
            StreamFlowError: as `Sink.commit` does.
        """
        self._topics.check()
        self._topics_checked = time.monotonic()
        output.gaps = batch.gaps
        output.logs = self._logs
        self._sink.commit(output)
        self._handed_over.append(BatchMetrics.of(batch, output))
        self._report_durable()

    def finish(self) -> None:
        """Commits what the job hands over at a clean stop. Raises as `commit` does."""
        batch = Batch((), [], time.monotonic(), topic_ids=self._topics.ids)
        output = self._job.finish(batch)
        if output is not None and output.positions:
            self.commit(batch, output)

    def flush(self) -> None:
        """Returns when all outputs are durable. Raises as `Sink.commit` does."""
        self._sink.flush()
        self._displayed_at = float("-inf")
        self._report_durable()

    def _report_durable(self) -> None:
        while len(self._handed_over) > self._sink.in_flight:
            self._on_durable(self._handed_over.popleft())
        self._commit_for_display()

    def _commit_for_display(self) -> None:
        """Commits positions that are kept elsewhere, for lag displays only: a failure only leaves a
        display stale until the next one. Not after each batch: the broker keeps every commit, and
        reads them all when it starts."""
        for position in self._sink.take_durable():
            self._to_display[position.topic, position.partition] = position
        if time.monotonic() - self._displayed_at < _DISPLAY_EVERY:
            return
        self._displayed_at = time.monotonic()
        durable = [
            offsets.as_committed(position, self._logs[partition])
            for partition, position in self._to_display.items()
            if partition in self._read_to
        ]
        self._to_display.clear()
        if durable:
            with suppress(KafkaException):
                self._consumer.commit(offsets=durable, asynchronous=True)

    def close(self) -> None:
        """Leaves the group and closes all connections."""
        monitoring.LAG.clear()
        with suppress(KafkaException, RuntimeError), call("consumer.unsubscribe", _TIMEOUT):
            self._consumer.unsubscribe()
        self._sink.close()
        with suppress(KafkaException, RuntimeError), call("consumer.close", _TIMEOUT):
            self._consumer.close()
        self._failure = None

    def abandon(self) -> None:
        """Leaves the group while another thread hangs in the sink, so that its partitions move at once
        and not when the membership times out. For a process that is about to end."""
        self._abandoned = True
        with suppress(KafkaException, RuntimeError):
            self._consumer.close()

    # Called within `consume`. An exception must not cross librdkafka's C code, so it is kept.

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._moved = True
        wanted = _plain(partitions)
        if not self._given_away.isdisjoint(wanted):
            # Records of this call could be of either assignment.
            self._failure = Unavailable("partitions were given away and came back at once")
        try:
            starts = self._take_over(wanted) if wanted else {}
        except StreamFlowError as error:
            self._failure = error
            starts = {}
        consumer.incremental_assign(
            [
                continuity.as_start(Position(*partition, offset, log=self._logs[partition]))
                for partition, offset in starts.items()
            ]
        )
        self._read_to.update(starts)
        self.joined = self._failure is None
        log.info("assigned", partitions=_names(wanted))

    def _take_over(self, wanted: Sequence[Partition]) -> dict[Partition, int]:
        """Where to read each partition from; what is gone is a gap, which the next batch passes."""
        self._compare_sources({topic for topic, _ in wanted})
        positions, gaps, logs = continuity.take_over(
            self._settings,
            self._job.group,
            self._consumer,
            self._topics,
            self._sink.resume(wanted),
        )
        self._gaps.update(gaps)
        self._logs.update(logs)
        return self._job.assign(positions)

    def _compare_sources(self, taken: Collection[str]) -> None:
        """Records the ids of topics that this job's records are derived from and others may read."""
        held = {topic for topic, _ in self._read_to}
        others = sorted({*self._job.sources}.difference(taken, held))
        if others:
            self._topics.take_over(self._sink.resume([(topic, 0) for topic in others]))

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        if self._abandoned:
            consumer.incremental_unassign(partitions)
            return
        self._moved = True
        leaving = _plain(partitions)
        try:
            self._sink.flush()
        except StreamFlowError as error:
            self._failure = error
        self._forget(leaving)
        consumer.incremental_unassign(partitions)
        log.info("revoked", partitions=_names(leaving))

    def _on_lost(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        lost = _plain(partitions)
        self._forget(lost)
        self._failure = Fenced(f"group {self._job.group} gave {_names(lost)} to another worker")

    def _forget(self, partitions: list[Partition]) -> None:
        self._job.revoke(partitions)
        self._given_away.update(partitions)
        for partition in partitions:
            self._read_to.pop(partition, None)
            self._gaps.pop(partition, None)
            self._logs.pop(partition, None)
            with suppress(KeyError):
                monitoring.LAG.remove(*partition)


def _plain(partitions: Iterable[TopicPartition]) -> list[Partition]:
    return [(partition.topic, partition.partition) for partition in partitions]


def _names(partitions: Sequence[Partition]) -> str:
    return ", ".join(f"{topic}[{partition}]" for topic, partition in sorted(partitions))
