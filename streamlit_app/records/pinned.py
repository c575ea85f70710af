"""The list of dead letters of a session. It changes only with the filter or on refresh, so that what is
selected and planned is what is shown."""

import uuid
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial

from streamflow.dead_letters.select import DeadLetterSummary, Selection
from streamflow.dead_letters.selection_parser import make_selection
from streamflow.privacy import Hasher
from streamflow.settings import Settings
from streamflow.stream import Stream
from streamlit_app.access.replaying import PlanRequest
from streamlit_app.measure.demand import Demand
from streamlit_app.measure.poller import PollJob
from streamlit_app.measure.readings import Reading
from streamlit_app.records.queries import DeadLetters, dead_letters


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterFilter:
    """Which dead letters to show; empty parts match all.

    Attributes:
        codes: error codes.
        status: open, replayed, quarantined …; None for any.
        span: seconds back from when the filter is applied; None for all time.
        text: in the value or in the message.
        stream: that the failed record is of, or was made from; None for any.
    """

    codes: tuple[str, ...] = ()
    status: str | None = None
    span: float | None = None
    text: str = ""
    stream: Stream | None = None

    def selection(self, hasher: Hasher, now: datetime) -> Selection:
        """The same with absolute times, as replays take it.

        Raises:
            UsageError: the text cannot be searched for.
        """
        return make_selection(
            hasher,
            codes=self.codes,
            since=None if self.span is None else f"{self.span:.0f}s",
            text=self.text,
            stream=self.stream,
            statuses=() if self.status is None else (self.status,),
            now=now,
        )


@dataclass(slots=True)
class PinnedList:
    """A list of dead letters, and which of them are ticked.

    Attributes:
        filter: as the user has set it.
        selection: the same with absolute times.
        content: None until it is loaded.
        ticked: ids. The table's own selection is by position, which is valid for one content only.
        version: unique for each list.
    """

    filter: DeadLetterFilter
    selection: Selection
    content: DeadLetters | None = None
    ticked: tuple[str, ...] = ()
    version: str = field(default_factory=lambda: uuid.uuid4().hex)

    @classmethod
    def make(
        cls, filter_: DeadLetterFilter, hasher: Hasher, ticked: tuple[str, ...] = ()
    ) -> "PinnedList":
        """A list that is still to be loaded.

        Raises:
            UsageError: the text of the filter cannot be searched for.
        """
        return cls(filter_, filter_.selection(hasher, datetime.now(UTC)), ticked=ticked)

    def load(
        self, settings: Settings, demand: Demand, patience: float
    ) -> Reading[DeadLetters] | None:
        """Waits up to `patience` seconds for the content, which never changes afterwards.

        Returns:
            Why it is not loaded yet; None if it is.
        """
        if self.content is not None:
            return None
        job = self.job(settings)
        reading = demand.wait(job, patience)
        if reading.sample is None:
            return reading
        demand.forget(job.key)
        self.content = reading.sample
        shown = {str(letter.id) for letter in reading.sample.rows}
        self.ticked = tuple(id_ for id_ in self.ticked if id_ in shown)
        return None

    def job(self, settings: Settings) -> PollJob[DeadLetters]:
        """Queries the content; repeated only while it fails."""
        query = partial(dead_letters, settings, self.selection)
        return PollJob(("dead letters", self.version), "PostgreSQL", 2.0, query)

    @property
    def rows(self) -> tuple[DeadLetterSummary, ...]:
        return () if self.content is None else self.content.rows

    def positions(self) -> list[int]:
        """The row numbers of the ticked ones."""
        ticked = set(self.ticked)
        return [place for place, letter in enumerate(self.rows) if str(letter.id) in ticked]

    def tick(self, positions: list[int]) -> None:
        """Takes the row numbers that the table reports as ticked."""
        rows = self.rows
        self.ticked = tuple(str(rows[place].id) for place in positions if place < len(rows))

    def ticked_statuses(self) -> list[str]:
        return [self.rows[place].status for place in self.positions()]

    def request(self, *, repairs: list[str], canary: int, rate: float) -> PlanRequest:
        """The plan to request: of the ticked dead letters, or of all that the filter matched when the list
        was loaded."""
        request = PlanRequest(repairs=tuple(repairs), canary=canary, rate=rate)
        if self.ticked:
            return replace(request, ids=self.ticked)
        since = self.selection.since
        return replace(
            request,
            codes=self.selection.codes,
            texts=self.selection.texts,
            stream=self.filter.stream.name if self.filter.stream else None,
            since=None if since is None else since.isoformat(),
            loaded_until=None if self.content is None else self.content.as_of.isoformat(),
        )
