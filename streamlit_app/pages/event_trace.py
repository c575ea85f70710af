"""One event through the pipeline: topic, notification or dead letter, row, window."""

from functools import partial
from typing import Any

import streamlit as st

from streamflow import units
from streamflow.records import Origin
from streamlit_app.measure.poller import PollJob
from streamlit_app.records.queries import Trace, trace
from streamlit_app.serving import Serving, serving
from streamlit_app.ui.components import show, show_error
from streamlit_app.ui.markup import Html, Tone, code, soft, text, timeline

_Step = tuple[Tone, str, object]


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
        steps += map(_window_step, event.windows)
        if event.stream is not None and event.stream.event_counts is None:
            steps.append((Tone.IDLE, "Window", soft("none: the stream has no windows")))
        elif not event.windows:
            steps.append((Tone.IDLE, "Window", soft("not closed yet: it waits for late events")))
    elif not event.dead_letters:
        steps.append((Tone.IDLE, "Row", soft("not loaded yet")))
    if event.duplicates:
        many = f"{len(event.duplicates)} more record(s) of the same event; none was stored twice"
        steps.append((Tone.IDLE, "Duplicates", soft(many)))
    return steps


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
