"""Trying the declarations of streams before data flows (G15): what ``streamflow check`` finds. Nothing is
changed, in Kafka or in PostgreSQL."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple, TypeVar

from streamflow.errors import ConfigurationError, StreamFlowError, Unavailable, UsageError
from streamflow.kafka.topic_plans import TopicPlan, declared_plan, topic_plans
from streamflow.planned import PlannedAction
from streamflow.postgres.against import changes_for
from streamflow.postgres.evolution import Change, Level, level_of
from streamflow.postgres.owned_topics import NoSchema, TopicsTable
from streamflow.postgres.schema import TablePlan, plan_of
from streamflow.postgres.sessions.tables import session_tables
from streamflow.postgres.state import LONGEST_KEY, unbounded_key
from streamflow.postgres.tables import Column, event_columns, event_table
from streamflow.postgres.trial import problems_with_rows
from streamflow.postgres.windows.tables import window_tables, windows_in_words
from streamflow.privacy import Hasher
from streamflow.registry import FailedStream, Streams, hasher_for, no_stream_called, read_streams
from streamflow.samples.factory import SampleEvent
from streamflow.samples.node import NoSample
from streamflow.settings import Settings
from streamflow.stream import Stream
from streamflow.trial import TrialProblem, problems, samples_of, simulated_of
from streamflow.units import duration
from streamflow.user_code import name_of_fault

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class WindowTableCheck:
    """The table of windows with aggregates, and the view of their totals, which sessions have none of; of the
    columns those of groups and aggregates."""

    table: str
    view: str
    what: str
    columns: tuple[Column, ...]


class PlannedTable(NamedTuple):
    """What becomes of a table or a view.

    Attributes:
        changes: of a table that will be altered.
    """

    name: str
    kind: str  # "table" or "view"
    action: PlannedAction
    changes: tuple[str, ...] = ()


@dataclass(slots=True)
class StreamCheck:
    """What was found of one stream.

    Attributes:
        name: of the stream, or the path of one that cannot be imported.
        samples: how many events were tried.
        stored: whether they went into PostgreSQL and back.
        not_tried: what was not, and why.
        notes: what is no problem, and good to know.
        changes: against a database, if that was asked for; of how many of its rows `rows` says.
    """

    name: str
    problems: list[TrialProblem] = field(default_factory=list)
    not_tried: list[str] = field(default_factory=list)
    samples: int = 0
    stored: bool = False
    topics: list[TopicPlan] = field(default_factory=list)
    table: str = ""
    tables: tuple[PlannedTable, ...] = ()
    columns: tuple[Column, ...] = ()
    plan: TablePlan | None = None
    windows: str = ""
    notes: list[str] = field(default_factory=list)
    window_tables: list[WindowTableCheck] = field(default_factory=list)
    changes: list[Change] | None = None
    rows: int = 0

    @property
    def level(self) -> Level:
        return level_of(self.changes or ())

    def is_good(self, *, allow_steps: bool = False) -> bool:
        allowed = (Level.SAFE, Level.STEP) if allow_steps else (Level.SAFE,)
        return not self.problems and not self.not_tried and self.level in allowed

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "stream": self.name,
            "problems": [problem._asdict() for problem in self.problems],
            "not_tried": self.not_tried,
            "samples": self.samples,
            "stored": self.stored,
            "topics": [plan._asdict() for plan in self.topics],
            "table": self.table,
            "tables": [planned._asdict() for planned in self.tables],
            "columns": [asdict(column) for column in self.columns],
            "table_changes": None if self.plan is None else list(self.plan.changes),
            "surplus_columns": None if self.plan is None else list(self.plan.surplus),
            "windows": self.windows,
            "notes": self.notes,
            "window_tables": [asdict(table) for table in self.window_tables],
            "level": None if self.changes is None else self.level,
            "changes": None if self.changes is None else [one._asdict() for one in self.changes],
            "rows": self.rows,
        }


class Extent(StrEnum):
    """How far the configured declarations are tried."""

    OFFLINE = "offline"  # without broker and database
    FULL = (
        "full"  # into PostgreSQL and back, and compared with the topics and tables that are there
    )
    AGAINST = "against"  # what they change for the database, which is only read; without the broker


def check(
    settings: Settings, extent: Extent = Extent.FULL, names: Collection[str] = ()
) -> list[StreamCheck]:
    """Tries the configured declarations; those that cannot work come first.

    Args:
        names: of the streams to try, beside the others that are configured; by default all.

    Raises:
        ConfigurationError: no stream is configured.
        UsageError: no stream has one of these names.
    """
    streams = read_streams(settings)
    if not settings.streams:
        raise ConfigurationError("no stream is configured: set STREAMFLOW_STREAMS, or name one")
    found = [_failed(failed) for failed in streams.failed]
    known = [*(checked.name for checked in found), *(stream.name for stream in streams)]
    for name in names:
        if name not in known:
            more = "; write MODULE:NAME for one that is not configured"
            raise UsageError(no_stream_called(name, known) + more)
    if names:
        found = [checked for checked in found if checked.name in names]
        streams = Streams(stream for stream in streams if stream.name in names)
    hasher = hasher_for(settings, streams)
    servers = _Servers()
    for stream in streams:
        checked = _declared(settings, stream)
        samples = _try(checked, stream, hasher)
        if extent is Extent.AGAINST:
            _compare(checked, settings, stream, servers)
        elif extent is Extent.FULL:
            _plan(checked, settings, stream, servers)
            _store(checked, settings, stream, samples, servers)
        found.append(checked)
    return found


class _Servers:
    """Asks the broker and the database; one that does not answer is not asked again."""

    def __init__(self) -> None:
        self._down: dict[str, str] = {}

    def ask(
        self, checked: StreamCheck, server: str, what: str, action: Callable[[], _T]
    ) -> _T | None:
        """What an action returns; None if the server does not answer or refuses, which is noted."""
        reason = self._down.get(server)
        if reason is None:
            try:
                return action()
            except StreamFlowError as error:
                reason = str(error)
                if isinstance(error, Unavailable):
                    self._down[server] = reason
        checked.not_tried.append(f"{what}: {reason}")
        return None


class _Noted(TopicsTable):
    def ids(self) -> dict[str, str]:
        """As of a `TopicsTable`; none where nothing was ever noted, since there is no schema yet."""
        try:
            return super().ids()
        except NoSchema:
            return {}


def _failed(failed: FailedStream) -> StreamCheck:
    faults = [TrialProblem("declaration", fault) for fault in failed.faults]
    return StreamCheck(failed.name or failed.path, problems=faults)


def _declared(settings: Settings, stream: Stream) -> StreamCheck:
    windows, what = "", windows_in_words
    if (counts := stream.event_counts) is not None:
        size = duration(counts.size.total_seconds())
        by = f"by {counts.by}" if counts.by else "of all events together"
        windows = f"counts of {size}, {by}, in {stream.analytics_topic} and window_counts"
    return StreamCheck(
        stream.name,
        topics=declared_plan(settings, stream),
        table=event_table(stream).name,
        tables=planned_tables(stream, None),
        columns=event_columns(stream),
        windows=windows,
        notes=_notes(stream),
        window_tables=[
            *(
                WindowTableCheck(table.name, table.view, what(table.spec), table.own_columns)
                for table in window_tables(stream)
            ),
            *(
                WindowTableCheck(table.name, "", what(table.spec), table.own_columns)
                for table in session_tables(stream)
            ),
        ],
    )


def _notes(stream: Stream) -> list[str]:
    notes = []
    if unbounded := unbounded_key(stream):
        fields = " and ".join(unbounded)
        notes.append(
            f"primary key: by the contract {fields} may be longer than a key can be: the texts of its fields "
            f"have at most {LONGEST_KEY:,} bytes together, and an event with more is a dead letter "
            "(UNSTORABLE_VALUE); Field(max_length=…) says it to producers"
        )
    if why := stream.slow_because:
        notes.append(f"fast decoding: not for this stream, which takes more processor time: {why}")
    return notes


def planned_tables(stream: Stream, plan: TablePlan | None) -> tuple[PlannedTable, ...]:
    """What becomes of each of its tables; without a plan they were not compared."""
    names = [("table", table) for table in stream.tables]
    if stream.state_table is not None:
        names.append(("view", stream.table))
    return tuple(
        PlannedTable(name, kind, *_becomes(stream, kind, name, plan)) for kind, name in names
    )


def _becomes(
    stream: Stream, kind: str, name: str, plan: TablePlan | None
) -> tuple[PlannedAction, tuple[str, ...]]:
    if plan is None:
        return PlannedAction.DECLARED, ()
    if plan.refused:
        return PlannedAction.REFUSE, ()
    columns = tuple(text for text in plan.changes if text.startswith(f"column {name}."))
    # A view changes with its table, and is created with it.
    created = f"{kind} {name}" if kind == "table" else f"table {stream.state_table}"
    if created in plan.changes:
        return PlannedAction.CREATE, ()
    if columns or f"{kind} {name}" in plan.changes:
        return PlannedAction.ALTER, columns
    return PlannedAction.KEEP, ()


def _try(checked: StreamCheck, stream: Stream, hasher: Hasher) -> list[SampleEvent]:
    samples: list[SampleEvent] = []
    try:
        samples += simulated_of(stream, hasher)
    except StreamFlowError as error:
        checked.problems.append(TrialProblem("simulate", str(error)))
    except BaseException as error:  # noqa: BLE001 (a user's function)
        reason = f"it raises {name_of_fault(error)}: mend `simulate` of the stream"
        checked.problems.append(TrialProblem("simulate", reason))
    try:
        samples += samples_of(stream, hasher)
    except NoSample as error:
        if not samples:
            checked.not_tried.append(str(error).removeprefix(f"stream {stream.name}: "))
    checked.samples = len(samples)
    checked.problems += problems(stream, samples, hasher)
    return samples


def _store(
    checked: StreamCheck,
    settings: Settings,
    stream: Stream,
    samples: Sequence[SampleEvent],
    servers: _Servers,
) -> None:
    known = {(problem.cause or problem.field) for problem in checked.problems}
    found = servers.ask(
        checked,
        "database",
        "the way of an event into PostgreSQL and back",
        lambda: problems_with_rows(settings, stream, samples),
    )
    if found is not None:
        checked.stored = True
        # What is wrong in JSON is wrong in a row as well.
        checked.problems += [one for one in found if (one.cause or one.field) not in known]


def _plan(checked: StreamCheck, settings: Settings, stream: Stream, servers: _Servers) -> None:
    topics = servers.ask(
        checked,
        "broker",
        "comparing its topics with those of the broker",
        lambda: topic_plans(settings, stream, _Noted(settings)),
    )
    if topics is not None:
        checked.topics = topics
    checked.plan = servers.ask(
        checked,
        "database",
        "comparing its table with that of the database",
        lambda: plan_of(settings, stream),
    )
    checked.tables = planned_tables(stream, checked.plan)
    for plan in checked.topics:
        if plan.action is PlannedAction.REFUSE:
            checked.problems += [TrialProblem("topic", note) for note in plan.notes]
    if checked.plan is not None and checked.plan.refused:
        checked.problems.append(TrialProblem("table", checked.plan.refused))


def _compare(checked: StreamCheck, settings: Settings, stream: Stream, servers: _Servers) -> None:
    found = servers.ask(
        checked,
        "database",
        "comparing the contract with the database",
        lambda: changes_for(settings, stream),
    )
    if found is not None:
        checked.changes, checked.rows = found
