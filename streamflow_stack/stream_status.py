"""How the streams are: lag, rows, and what keeps one from running, with what to do about it."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, field

from streamflow.errors import StreamFlowError
from streamflow.kafka.clients import admin
from streamflow.kafka.topics import not_running, refused, without_topics
from streamflow.lag.measure import LagReader
from streamflow.postgres import schema
from streamflow.postgres.owned_topics import TopicsTable
from streamflow.postgres.row_counts import counted_tables, row_counts
from streamflow.registry import Streams, load_streams
from streamflow.settings import GROUPS, Settings
from streamflow.stream import Stream
from streamflow_stack.known_streams import unknown_streams

_UP = "up"


@dataclass(slots=True)
class StreamStatus:
    """What broker and database say.

    Attributes:
        lag: offsets by consumer group; None for what is unknown.
        rows: by table; None for what is unknown.
        estimated: the tables whose number of rows is PostgreSQL's estimate.
        failed: the streams that do not run or are not loaded, in a sentence each.
        unknown: why a figure is unknown though its server is up, in a sentence each.
    """

    lag: dict[str, int | None]
    rows: dict[str, int | None]
    failed: list[str] = field(default_factory=list)
    estimated: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)


def read_stream_status(settings: Settings, states: Mapping[str, str]) -> StreamStatus:
    """Asks those of broker and database whose part is up."""
    streams, failed = _loaded(settings)
    status = StreamStatus(
        dict.fromkeys(GROUPS.values()), dict.fromkeys(counted_tables(streams)), failed
    )
    # Meanwhile, what waits for the same servers.
    with ThreadPoolExecutor(1) as beside:
        not_in_place = beside.submit(_not_in_place, settings, streams, states)
        if streams and states["kafka"] == _UP:
            _read(status, "lag", lambda: _read_lag(status, settings, streams))
        if states["postgres"] == _UP:
            _read(status, "rows", lambda: _read_rows(status, settings, streams))
        status.failed += not_in_place.result().values() if streams else ()
    return status


def _loaded(settings: Settings) -> tuple[Streams, list[str]]:
    try:
        streams = load_streams(settings)
    except StreamFlowError as error:
        return Streams(()), [str(error)]
    return streams, [str(failed) for failed in streams.failed]


def _read(status: StreamStatus, what: str, action: Callable[[], None]) -> None:
    try:
        action()
    except StreamFlowError as error:
        status.unknown.append(f"{what}: {error}")


def _read_lag(status: StreamStatus, settings: Settings, streams: Sequence[Stream]) -> None:
    with closing(LagReader(settings, streams)) as reader:
        sample = reader()
    status.lag |= {name: sample.lag(settings.group(worker)) for worker, name in GROUPS.items()}
    if silent := [name for name, lag in status.lag.items() if lag is None]:
        status.unknown.append(f"lag: nothing was committed yet by {', '.join(silent)}")


def _read_rows(status: StreamStatus, settings: Settings, streams: Sequence[Stream]) -> None:
    counts = row_counts(settings, streams)
    status.rows |= counts.rows
    status.estimated += sorted(counts.estimated)
    if missing := [name for name in status.rows if name in counts.missing]:
        status.unknown.append(
            f"rows: the database has no {', '.join(missing)}: run `streamflow init`"
        )
    unknown = [name for name, rows in counts.rows.items() if rows is None]
    if uncounted := [name for name in unknown if name not in counts.missing]:
        status.unknown.append(
            f"rows: no count is kept of {', '.join(uncounted)} yet: run `streamflow db upgrade`"
        )


def _not_in_place(
    settings: Settings, streams: Sequence[Stream], states: Mapping[str, str]
) -> dict[str, str]:
    """What keeps a stream from running, by its name: one reason each, the one that has to go first."""
    has_database = states["postgres"] == _UP
    lacking, is_refused, not_loadable = {}, {}, {}
    if has_database:
        with suppress(StreamFlowError):
            plans = schema.plans(settings, streams)
            not_loadable, is_refused = schema.not_loadable_in(plans), schema.refused_in(plans)
    if states["kafka"] == _UP:
        with suppress(StreamFlowError):
            lacking = without_topics(admin(settings), streams)
            owned = TopicsTable(settings) if has_database else None
            is_refused |= refused(settings, streams, owned)
    unknown = unknown_streams(settings, [stream.name for stream in streams])
    return not_loadable | not_running(lacking, {}) | unknown | is_refused
