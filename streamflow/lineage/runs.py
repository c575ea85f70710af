"""Runs of jobs, told to OpenLineage where that is switched on.

OpenLineage's client is imported only then.
"""

import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from streamflow import extras
from streamflow.errors import StreamFlowError
from streamflow.lineage.datasets import Job, Names
from streamflow.lineage.streams import StreamDatasets
from streamflow.settings import Settings
from streamflow.stream import Stream


@contextmanager
def lineage_of(
    settings: Settings,
    streams: Sequence[Stream],
    job: Callable[[StreamDatasets], Job],
    *,
    run_id: str | None = None,
    parent: tuple[str, str] | None = None,
) -> Iterator[Counter[str]]:
    """Around one run of a job: says that it starts, and how it ends. What is within notes the rows that it
    writes, by the dataset's title.

    Args:
        settings: where to, if anywhere.
        streams: whose datasets the job works on.
        job: makes the job of them; called only where lineage is sent.
        run_id: of the run; a new one by default.
        parent: id and job of the run that this one is a part of.

    Raises:
        ExtraMissing: OpenLineage's client is not installed.
    """
    rows: Counter[str] = Counter()
    if settings.openlineage_url is None:
        yield rows
        return
    made = job(StreamDatasets(Names(settings), streams))
    runs = Runs(settings, [made], run_id=run_id, parent=parent)
    with runs:
        try:
            yield rows
        finally:
            runs.note(rows)


class WorkerLineage:
    """The lineage of a worker: one run of each of its jobs, as long as its process. Use as a context manager.

    A job that runs for months has no end to say what it did: a ``RUNNING`` event says now and then how many
    rows it has written since it started.
    """

    def __init__(self, settings: Settings, streams: Sequence[Stream], worker: str) -> None:
        self._runs: Runs | None = None
        if settings.openlineage_url is not None:
            jobs = StreamDatasets(Names(settings), streams).jobs_of(worker)
            self._runs = Runs(settings, jobs, every=settings.openlineage_seconds)

    def note(self, rows: Mapping[str, int]) -> None:
        """Counts what became durable; returns at once."""
        if self._runs is not None:
            self._runs.note(rows)

    def __enter__(self) -> Self:
        if self._runs is not None:
            self._runs.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if self._runs is not None:
            self._runs.__exit__(kind, error, at)


class Runs:
    """Runs that start and end together. Use as a context manager.

    Args:
        settings: where their events go.
        jobs: one run of each.
        run_id: of the run, if it is one.
        parent: id and job of the run that these are parts of.
        every: seconds between two ``RUNNING`` events; None for none.

    Raises:
        ExtraMissing: OpenLineage's client is not installed.
    """

    def __init__(
        self,
        settings: Settings,
        jobs: Sequence[Job],
        *,
        run_id: str | None = None,
        parent: tuple[str, str] | None = None,
        every: float | None = None,
    ) -> None:
        extras.require("lineage", "OPENLINEAGE_URL")
        from openlineage.client.event_v2 import RunState  # noqa: PLC0415 (only where it is used)

        from streamflow.lineage import events, sender  # noqa: PLC0415

        self._event_of, self._states = events.event_of, RunState
        self._sender = sender.Sender(settings)
        self._runs = [
            events.RunOf(run_id or str(uuid.uuid4()), settings.openlineage_namespace, job, parent)
            for job in jobs
        ]
        self._every = every
        self._rows: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._ended = threading.Event()

    def note(self, rows: Mapping[str, int]) -> None:
        with self._lock:
            self._rows.update(rows)

    def __enter__(self) -> Self:
        self._send(self._states.START)
        if self._every is not None:
            threading.Thread(target=self._tell, name="lineage", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._ended.set()
        if kind is None:
            self._send(self._states.COMPLETE)
        else:
            # What other libraries say may quote a value.
            said = str(error) if isinstance(error, StreamFlowError) else kind.__name__
            self._send(self._states.FAIL, said)
        self._sender.close()

    def _tell(self) -> None:
        while not self._ended.wait(self._every):
            self._send(self._states.RUNNING)

    def _send(self, state: Any, failure: str | None = None) -> None:
        with self._lock:
            if state is self._states.RUNNING and self._ended.is_set():
                return
            for run in self._runs:
                self._sender.send(self._event_of(run, state, self._rows, failure=failure))
