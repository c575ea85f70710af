"""OpenTelemetry traces of what workers process and producers send, if they are switched on.

Nothing here imports OpenTelemetry: `streaming_workers.spans` does, which is imported where traces are on.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from streamflow import extras
from streamflow.flow import Batch, Output
from streamflow.records import Headers
from streamflow.settings import Settings


class BatchSpan(Protocol):
    """The span of one batch."""

    def hand_over(self, output: Output) -> None:
        """The sink ends the span, once it has kept the output or failed to."""


class Traces(Protocol):
    """Where spans are begun."""

    def batch(self, batch: Batch) -> AbstractContextManager[BatchSpan]:
        """Around processing a batch and handing it over. Fails as what is within does."""

    def send(self, topic: str, records: int = 1) -> AbstractContextManager[Headers]:
        """Around sending records, which get these headers."""

    def close(self) -> None:
        """Sends what is not sent yet, within two seconds."""


class NoTraces:
    """Traces that are off. Implements `Traces` and `BatchSpan`."""

    @contextmanager
    def batch(self, _batch: Batch) -> Iterator[BatchSpan]:
        yield self

    def hand_over(self, output: Output) -> None: ...

    @contextmanager
    def send(self, _topic: str, _records: int = 1) -> Iterator[Headers]:
        yield []

    def close(self) -> None: ...


def traces_of(settings: Settings, service: str, group: str | None = None) -> Traces:
    """The traces of a process, as the settings want them. Raises ExtraMissing if OpenTelemetry is not
    installed.

    Args:
        settings: all settings.
        service: what the process is called in them: ``streamflow-loader``.
        group: the consumer group of a worker.
    """
    if not settings.tracing:
        return NoTraces()
    extras.require("tracing", "STREAMFLOW_TRACING")
    from streaming_workers.spans import Spans  # noqa: PLC0415 (only where it is used)

    return Spans(service, group)
