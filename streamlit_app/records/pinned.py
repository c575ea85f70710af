"""The list of dead letters as a session sees it: it stands still until the filter is changed or it is
refreshed, so that what is ticked and planned is what is shown."""

import uuid
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial

from streamflow.dead_letters.select import Selection, Summary
from streamflow.dead_letters.selection_parser import make_selection
from streamflow.privacy import Hasher
from streamflow.settings import Settings
from streamlit_app.access.replaying import PlanRequest
from streamlit_app.measure.demand import Demand, Question
from streamlit_app.measure.readings import Reading
from streamlit_app.records.queries import DeadLetters, dead_letters


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which dead letters to show; empty parts match all.

    Attributes:
        codes: error codes.
        status: open, replayed, quarantined …; None for any.
        span: seconds before the moment when the filter is applied; None for ever.
        text: in the payload, or in the message.
    """

    codes: tuple[str, ...] = ()
    status: str | None = None
    span: float | None = None
    text: str = ""

    def selection(self, hasher: Hasher, now: datetime) -> Selection:
        """The same by instants, as a replay takes it.

        Raises:
            UsageError: the text cannot be looked for.
        """
        since = None if self.span is None else now - timedelta(seconds=self.span)
        return make_selection(
            hasher,
            codes=self.codes,
            since=None if since is None else since.isoformat(),
            text=self.text,
            statuses=() if self.status is None else (self.status,),
        )


@dataclass(slots=True)
class PinnedList:
    """A list of dead letters, and which of them are ticked.

    Attributes:
        filter: as the user has set it.
        selection: the same by instants.
        content: None until it is loaded.
        ticked: ids. A table's own selection is by position, and good only for one content.
        version: differs from that of every other list.
    """

    filter: Filter
    selection: Selection
    content: DeadLetters | None = None
    ticked: tuple[str, ...] = ()
    version: str = field(default_factory=lambda: uuid.uuid4().hex)

    @classmethod
    def make(cls, filter_: Filter, hasher: Hasher, ticked: tuple[str, ...] = ()) -> "PinnedList":
        """A list that is to be loaded now.

        Raises:
            UsageError: the text of the filter cannot be looked for.
        """
        return cls(filter_, filter_.selection(hasher, datetime.now(UTC)), ticked=ticked)

    def load(
        self, settings: Settings, demand: Demand, patience: float
    ) -> Reading[DeadLetters] | None:
        """Waits up to `patience` seconds for the content, once; afterwards it does not change.

        Returns:
            Why it is not there yet; None when it is.
        """
        if self.content is not None:
            return None
        question = self.question(settings)
        reading = demand.wait(question, patience)
        if reading.sample is None:
            return reading
        demand.forget(question.key)
        self.content = reading.sample
        shown = {str(each.id) for each in reading.sample.rows}
        self.ticked = tuple(each for each in self.ticked if each in shown)
        return None

    def question(self, settings: Settings) -> Question[DeadLetters]:
        """What loads it; asked again only as long as it fails."""
        ask = partial(dead_letters, settings, self.selection)
        return Question(("dead letters", self.version), "PostgreSQL", 2.0, ask)

    @property
    def rows(self) -> tuple[Summary, ...]:
        """What it shows."""
        return () if self.content is None else self.content.rows

    def positions(self) -> list[int]:
        """Where the ticked ones stand."""
        ticked = set(self.ticked)
        return [place for place, each in enumerate(self.rows) if str(each.id) in ticked]

    def tick(self, positions: list[int]) -> None:
        """Takes what is ticked from a table that shows these rows."""
        rows = self.rows
        self.ticked = tuple(str(rows[place].id) for place in positions if place < len(rows))

    def ticked_statuses(self) -> list[str]:
        """The statuses of the ticked ones, as shown."""
        return [self.rows[place].status for place in self.positions()]

    def request(self, *, repairs: list[str], canary: int, rate: float) -> PlanRequest:
        """What a plan would be asked for now: the ticked ones, or else just what the filter matched
        when the list was loaded."""
        how = PlanRequest(repairs=tuple(repairs), canary=canary, rate=rate)
        if self.ticked:
            return replace(how, ids=self.ticked)
        chosen, content = self.selection, self.content
        return replace(
            how,
            codes=chosen.codes,
            text=chosen.text,
            since=None if chosen.since is None else chosen.since.isoformat(),
            loaded_until=None if content is None else content.as_of.isoformat(),
        )
