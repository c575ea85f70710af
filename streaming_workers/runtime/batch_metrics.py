"""The metrics of a batch, published once it is durable."""

import time
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import structlog

from streamflow import monitoring
from streamflow.flow import Batch, Output
from streamflow.records import Gap

log = structlog.get_logger()


class BatchMetrics(NamedTuple):
    """A batch in numbers, so that its records need not be kept until it is durable."""

    began: float  # when it was read; monotonic
    appended: int | None  # time stamp of its last record by the broker, in milliseconds
    records_in: Counter[str]
    records_out: Counter[str]
    rejected: Counter[str]
    gaps: Sequence[Gap]  # lost records that it passed

    @classmethod
    def of(cls, batch: Batch, output: Output) -> "BatchMetrics":
        records_out = Counter(record.topic for record in output.records)
        for table, rows in output.tables.items():
            records_out[table] += len(rows.rows)
            if rows.holds_events:
                records_out[table] += len(rows.claims)
        records_in: Counter[str] = Counter()
        for topic, _, start, end in batch.runs:
            records_in[topic] += end - start
        kind, appended = batch.records[-1].timestamp() if batch.records else (0, 0)
        return cls(
            batch.now,
            appended if kind else None,
            records_in,
            records_out,
            Counter(code.value for _, code in output.rejected),
            output.gaps,
        )

    def publish(self) -> None:
        monitoring.BATCH_SECONDS.observe(time.monotonic() - self.began)
        if self.appended is not None:
            monitoring.END_TO_END_SECONDS.observe(max(0.0, time.time() - self.appended / 1000))
        for topic, count in self.records_in.items():
            monitoring.RECORDS_IN.labels(topic).inc(count)
        for to, count in self.records_out.items():
            monitoring.RECORDS_OUT.labels(to).inc(count)
        for code, count in self.rejected.items():
            monitoring.RECORDS_REJECTED.labels(code).inc(count)
        report_gaps(self.gaps)


def report_gaps(gaps: Sequence[Gap]) -> None:
    """Reports lost records: call it once, when the positions behind them are durable."""
    for topic, partition, first, end, cause in gaps:
        monitoring.RECORDS_LOST.labels(topic, cause).inc(end - first)
        log.error(
            "records lost",
            topic=topic,
            partition=partition,
            first_offset=first,
            end_offset=end,
            records_at_most=end - first,
            cause=cause,
            advice="raise the topic's retention, or keep the worker running; see `streamflow audit`",
        )
