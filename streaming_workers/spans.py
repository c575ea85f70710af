"""Spans by OpenTelemetry, sent by OTLP over HTTP from a thread of its own.

Names and attributes are those of the semantic conventions for messaging
(https://opentelemetry.io/docs/specs/semconv/messaging/kafka/). Endpoint, sampler and the rest are
OpenTelemetry's own variables (``OTEL_…``). A batch holds records of many traces, so its span begins a trace
of its own and has links to theirs.
"""

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any, Final

import structlog
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import (
    Link,
    Span,
    SpanKind,
    Status,
    StatusCode,
    Tracer,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from streamflow.errors import StreamFlowError
from streamflow.extras import DISTRIBUTION
from streamflow.flow import Batch, Output, Partition
from streamflow.records import Headers, Record, headers_of, last_header
from streamflow.trace_context import TRACEPARENT, TRACESTATE, traceparent_of

log = structlog.get_logger()

MOST_LINKS: Final = 128  # of a span; OpenTelemetry's own limit, too
_PATIENCE: Final = 2.0  # seconds that the end of a process waits for the last spans
_CONTEXTS: Final = TraceContextTextMapPropagator()


class Spans:
    """Makes spans and sends them. Implements `tracing.Traces`."""

    def __init__(self, service: str, group: str | None) -> None:
        # It logs each attempt to send; `_Exporter` says once what matters.
        logging.getLogger("opentelemetry").propagate = False
        logging.getLogger("opentelemetry").addHandler(logging.NullHandler())
        named = Resource.create({"service.name": service}).merge(OTELResourceDetector().detect())
        self._provider = TracerProvider(resource=named, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(_Exporter()))
        self._tracer = self._provider.get_tracer("streamflow", version(DISTRIBUTION))
        self._group: dict[str, Any] = (
            {} if group is None else {"messaging.consumer.group.name": group}
        )

    @contextmanager
    def batch(self, batch: Batch) -> Iterator["BatchSpan"]:
        if not batch.records:
            yield BatchSpan(self._tracer, None)
            return
        topics = {run.topic for run in batch.runs}
        attributes = _messaging("process", topics) | self._group
        attributes["messaging.batch.message_count"] = len(batch.records)
        attributes["streamflow.partitions"] = _partitions(batch)
        [*named] = topics
        span = self._tracer.start_span(
            f"process {named[0]}" if len(named) == 1 else "process",
            context=Context(),
            kind=SpanKind.CONSUMER,
            attributes=attributes,
            links=links_of(batch.records),
            start_time=time.time_ns() - round((time.monotonic() - batch.now) * 1e9),
        )
        made = BatchSpan(self._tracer, span)
        try:
            yield made
        except BaseException as error:
            made.fail(error)
            raise
        made.end_unless_handed_over()

    @contextmanager
    def send(self, topic: str, records: int = 1) -> Iterator[Headers]:
        attributes = _messaging("send", {topic})
        if records > 1:
            attributes["messaging.batch.message_count"] = records
        span = self._tracer.start_span(
            f"send {topic}", context=Context(), kind=SpanKind.PRODUCER, attributes=attributes
        )
        carrier: dict[str, str] = {}
        _CONTEXTS.inject(carrier, set_span_in_context(span))
        try:
            yield [(name, value.encode()) for name, value in carrier.items()]
        except BaseException as error:
            _fail(span, error)
            raise
        finally:
            span.end()

    def close(self) -> None:
        # `TracerProvider.shutdown` waits for half a minute for a receiver that hangs.
        ending = threading.Thread(target=self._provider.shutdown, daemon=True)
        ending.start()
        ending.join(_PATIENCE)


class BatchSpan:
    """The span of a batch, ended by whoever has it last. Implements `tracing.BatchSpan`."""

    def __init__(self, tracer: Tracer, span: Span | None) -> None:
        self._tracer = tracer
        self._span = span
        self._handed_over = False

    def hand_over(self, output: Output) -> None:
        if self._span is None:
            return
        self._handed_over = True
        rows = sum(len(each.rows) + len(each.claims) for each in output.tables.values())
        self._span.set_attributes(
            {
                "streamflow.records_out": len(output.records),
                "streamflow.rows": rows,
                "streamflow.rejected": len(output.rejected),
            }
        )
        output.around = self._commit

    @contextmanager
    def _commit(self) -> Iterator[None]:
        """Around the transaction that keeps the output, maybe in another thread and once the next batch is
        being processed."""
        assert self._span is not None  # noqa: S101 (of `hand_over`)
        child = self._tracer.start_span("commit", context=set_span_in_context(self._span))
        try:
            yield
        except BaseException as error:
            _fail(child, error)
            child.end()
            self.fail(error)
            raise
        child.end()
        self._end("committed")

    def fail(self, error: BaseException) -> None:
        if self._span is not None and self._span.is_recording():
            _fail(self._span, error)
            self._end("failed")

    def end_unless_handed_over(self) -> None:
        if self._span is not None and not self._handed_over:
            self._end("nothing to commit")

    def _end(self, outcome: str) -> None:
        assert self._span is not None  # noqa: S101 (of the callers)
        self._span.set_attribute("streamflow.outcome", outcome)
        self._span.end()


class _Exporter(SpanExporter):
    """OTLP's own, which says once that spans are lost, and once that they are not any more."""

    def __init__(self) -> None:
        self._otlp = OTLPSpanExporter()
        self._works = True

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._otlp.export(spans)
        works = result is SpanExportResult.SUCCESS
        if works != self._works:
            self._works = works
            if works:
                log.info("traces are sent again")
            else:
                log.warning(
                    "traces are not sent",
                    advice="spans are dropped until OTEL_EXPORTER_OTLP_ENDPOINT names a receiver that "
                    "answers; nothing else waits for it",
                )
        return result

    def shutdown(self) -> None:
        self._otlp.shutdown()  # type: ignore[no-untyped-call]


def links_of(records: Sequence[Record]) -> list[Link]:
    """Links to the traces of records, each once; at most `MOST_LINKS`."""
    found: dict[bytes, Link] = {}
    for record in records:
        headers = headers_of(record)
        traceparent = traceparent_of(headers) if headers else None
        if traceparent is None or traceparent in found:
            continue
        state = last_header(headers, TRACESTATE) or b""
        carrier = {TRACEPARENT: traceparent.decode(), TRACESTATE: state.decode("latin-1")}
        found[traceparent] = Link(get_current_span(_CONTEXTS.extract(carrier)).get_span_context())
        if len(found) == MOST_LINKS:
            break
    return list(found.values())


def _messaging(operation: str, topics: set[str]) -> dict[str, Any]:
    attributes = {
        "messaging.system": "kafka",
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
    }
    if len(topics) == 1:
        attributes["messaging.destination.name"] = next(iter(topics))
    return attributes


def _partitions(batch: Batch) -> list[str]:
    """The records of a batch, as ``topic/partition/first-last``. Those of a partition may be in several
    runs, in order."""
    bounds: dict[Partition, tuple[int, int]] = {}
    for topic, partition, start, end in batch.runs:
        first, _ = bounds.get((topic, partition), (start, end))
        bounds[topic, partition] = first, end
    return [
        f"{topic}/{partition}/{batch.records[start].offset()}-{batch.records[end - 1].offset()}"
        for (topic, partition), (start, end) in bounds.items()
    ]


def _fail(span: Span, error: BaseException) -> None:
    """Marks a span. Messages of other libraries may quote a record; ours do not."""
    kind = type(error).__name__
    span.set_attribute("error.type", kind)
    said = str(error) if isinstance(error, StreamFlowError) else kind
    span.set_status(Status(StatusCode.ERROR, said))
