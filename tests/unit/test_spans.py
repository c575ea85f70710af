"""What spans say, and when there are none."""

from collections.abc import Iterator, Sequence

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from loads import FakeRecord, batch, event, events
from streamflow import extras
from streamflow.errors import Unavailable
from streamflow.extras import ExtraMissing
from streamflow.flow import Output
from streamflow.settings import Settings
from streaming_workers.spans import MOST_LINKS, Spans, links_of
from streaming_workers.tracing import NoTraces, traces_of


def traceparent(number: int) -> bytes:
    return f"00-{number:032x}-{number:016x}-01".encode()


def traced(offset: int, number: int) -> FakeRecord:
    return FakeRecord(offset, event(offset), headers=[("traceparent", traceparent(number))])


class Recorded:
    """Spans that are kept in memory."""

    def __init__(self) -> None:
        self.traces = Spans("streamflow-test", "db-group")
        self._kept = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self._kept))
        self.traces._tracer = provider.get_tracer("test")

    @property
    def ended(self) -> Sequence[ReadableSpan]:
        return self._kept.get_finished_spans()


@pytest.fixture
def recorded() -> Iterator[Recorded]:
    made = Recorded()
    yield made
    made.traces.close()


def test_each_trace_is_linked_once_and_not_too_many() -> None:
    records = [traced(offset, 1 + offset // 2) for offset in range(10 * MOST_LINKS)]
    links = links_of(records)
    assert [link.context.span_id for link in links] == [*range(1, MOST_LINKS + 1)]
    assert links_of([FakeRecord(0, b"", headers=[("traceparent", b"nonsense")])]) == []


def test_a_batch_ends_when_its_sink_has_kept_it(recorded: Recorded) -> None:
    output = Output(positions=[])
    with recorded.traces.batch(batch([traced(7, 1), traced(8, 2)])) as span:
        span.hand_over(output)
    assert recorded.ended == ()
    with output.around():
        pass
    commit, processed = recorded.ended
    assert (commit.name, processed.name) == ("commit", "process user-events")
    assert commit.parent is not None
    assert processed.context is not None
    assert commit.parent.span_id == processed.context.span_id
    found = dict(processed.attributes or {})
    assert found["streamflow.outcome"] == "committed"
    assert found["streamflow.partitions"] == ("user-events/0/7-8",)
    assert found["messaging.batch.message_count"] == 2


def test_each_partition_is_named_once(recorded: Recorded) -> None:
    records = [*events([3, 4]), *events([9], partition=1), *events([5, 6])]
    with recorded.traces.batch(batch(records)):
        pass
    [processed] = recorded.ended
    named = dict(processed.attributes or {})["streamflow.partitions"]
    assert named == ("user-events/0/3-6", "user-events/1/9-9")


def test_a_failure_is_told_without_what_another_library_says(recorded: Recorded) -> None:
    output = Output(positions=[])
    with recorded.traces.batch(batch(events([0]))) as span:
        span.hand_over(output)
    with pytest.raises(Unavailable), output.around():
        raise Unavailable("the database does not answer")
    with pytest.raises(ValueError, match="ann"), recorded.traces.batch(batch(events([0]))):
        raise ValueError("ann@example.com is wrong")
    commit, kept, processed = recorded.ended
    assert commit.status.description == kept.status.description == "the database does not answer"
    assert processed.status.description == "ValueError"
    assert {dict(span.attributes or {})["streamflow.outcome"] for span in (kept, processed)} == {
        "failed"
    }


def test_a_batch_of_which_nothing_becomes_ends_at_once(recorded: Recorded) -> None:
    with recorded.traces.batch(batch(events([0]))):
        pass
    with recorded.traces.batch(batch([])) as span:
        span.hand_over(Output(positions=[]))
    [processed] = recorded.ended
    assert dict(processed.attributes or {})["streamflow.outcome"] == "nothing to commit"


def test_off_is_the_default_and_needs_no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "is_installed", lambda _extra: False)
    assert isinstance(traces_of(Settings(), "streamflow-loader"), NoTraces)
    with pytest.raises(ExtraMissing, match=r"pip install 'streamflow-kafka\[tracing\]'"):
        traces_of(Settings(STREAMFLOW_TRACING=True), "streamflow-loader")
