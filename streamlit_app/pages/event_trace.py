"""One event through the pipeline: topic, notification or dead letter, row, window."""

from collections.abc import Iterator
from functools import partial
from typing import Any, Final

import streamlit as st

from streamflow import units
from streamflow.postgres.tables import DELETED
from streamflow.records import Origin
from streamflow.windows.specs import HoppingWindow, SessionWindow
from streamlit_app.measure.poller import PollJob
from streamlit_app.records.traced_windows import TracedWindow
from streamlit_app.records.traces import Trace, trace
from streamlit_app.serving import Serving, serving
from streamlit_app.ui.components import show, show_error
from streamlit_app.ui.markup import Html, Tone, code, soft, text, timeline

_Step = tuple[Tone, str, object]

_OPEN: Final = "not closed yet: it waits for late events"


def render_trace(server: Serving, origin: Origin) -> None:
    """Shows it, updated while it is on the screen."""
    server.demand.wait(_job(server, origin), 1.5)
    _trace(origin)


def _job(server: Serving, origin: Origin) -> PollJob[Trace]:
    query = partial(trace, server.settings, server.streams, origin)
    return PollJob(("trace", origin), "PostgreSQL", 2.0, query)


@st.fragment(run_every=2)
def _trace(origin: Origin) -> None:
    """No I/O: fetched in the background."""
    server = serving()
    reading = server.demand.latest(_job(server, origin))
    show_error(reading)
    show(soft("loading …") if reading.sample is None else timeline(_steps(reading.sample)))


def _steps(event: Trace) -> list[_Step]:
    entered = Html(f"{code(str(event.origin))} {soft('its identity from here on')}")
    steps: list[_Step] = [(Tone.GOOD, "Entered the log", entered)]
    steps += map(_dead_letter_step, event.dead_letters)
    if event.replay is not None:
        at = f"{event.replay['topic']}/{event.replay['partition']}/{event.replay['offset']}"
        attempt = f"attempt {event.replay['attempt']}, sent again as"
        steps.append((Tone.GOOD, "Replayed", Html(f"{soft(attempt)} {code(at)}")))
    if event.notification is not None:
        steps.append((Tone.GOOD, "Notification", event.notification["message"]))
    if event.row is not None:
        steps.append((Tone.GOOD, "Row", _row_detail(event.row, event.time)))
        steps += _windows(event)
    elif not event.dead_letters:
        steps.append((Tone.IDLE, "Row", soft("not loaded yet")))
    if event.duplicates:
        many = f"{len(event.duplicates)} more record(s) of the same event; none was stored twice"
        steps.append((Tone.IDLE, "Duplicates", soft(many)))
    return steps


def _windows(event: Trace) -> Iterator[_Step]:
    """The windows of the stream, each with what may count the event."""
    if event.stream is None or not event.stream.windows:
        yield Tone.IDLE, "Window", soft("none: the stream has no windows")
        return
    if event.stream.mode == "upsert" and event.row is not None and event.row[DELETED]:
        yield Tone.IDLE, "Window", soft("none: a tombstone is in no window")
        return
    if event.stream.event_counts is not None:
        yield from map(_window_step, event.windows)
        if not event.windows:
            yield Tone.IDLE, "Window", soft(_OPEN)
    for name, spec in event.stream.window_tables.items():
        if isinstance(spec, SessionWindow):
            title, none = f"Session of {name}", "not computed yet: that takes some minutes"
        else:
            what = "Pane" if isinstance(spec, HoppingWindow) else "Window"
            title, none = f"{what} of {name}", _OPEN
        if name not in event.parts:
            none = "the table cannot be read: see the page Windows"
        for part in event.parts.get(name, ()):
            yield _part_step(title, part)
        if not event.parts.get(name):
            yield Tone.IDLE, title, soft(none)


def _part_step(title: str, part: TracedWindow) -> _Step:
    of = f" of {part.group}" if part.group else ""
    counts = f"{units.counted(part.counted, 'event')}{of}"
    if part.too_late:
        counts += f", and {part.too_late:,} that came too late to be aggregated"
    span = f"{units.moment(part.start)[:-4]} to {units.moment(part.end)[11:]}"
    detail = Html(f"{text(counts)}<br>{soft(span)}")
    return (Tone.WARN, f"Correction: {title}", detail) if part.late else (Tone.GOOD, title, detail)


def _dead_letter_step(letter: dict[str, Any]) -> _Step:
    detail = Html(
        f"{code(letter['error_code'])} {text(letter['message'])}<br>"
        f"{soft(letter['status'] + ', attempt ' + str(letter['attempt']))}"
    )
    done = letter["status"] in ("replayed", "superseded", "erased")
    return (Tone.WARN if done else Tone.BAD), f"Rejected by the {letter['stage']}", detail


def _row_detail(row: dict[str, Any], time: object) -> Html:
    return Html(
        f"{soft('event time')} {text(time)}<br>{soft('appended')} "
        f"{text(row['appended_at'] or units.UNKNOWN)}<br>{soft('loaded')} {text(row['loaded_at'])}"
    )


def _window_step(window: dict[str, Any]) -> _Step:
    counts = f"{window['count']:,} of {window['event_type']} in partition {window['partition']}"
    span = window["window_start"] + " to " + window["window_end"][11:19]
    detail = Html(f"{text(counts)}<br>{soft(span)}")
    if window["late"]:
        return Tone.WARN, "Correction of a window", detail
    return Tone.GOOD, "Window", detail
