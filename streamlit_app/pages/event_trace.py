"""One event through the pipeline: topic, notification or dead letter, row, window."""

from functools import partial
from typing import Any

import streamlit as st

from streamflow import units
from streamflow.records import Origin
from streamlit_app.measure.demand import Question
from streamlit_app.records.queries import Trace, trace
from streamlit_app.serving import Serving, serving
from streamlit_app.ui.components import show
from streamlit_app.ui.markup import Html, Tone, banner, code, soft, text, timeline


def render_trace(server: Serving, origin: Origin) -> None:
    """Shows it, updated while it is on the screen."""
    server.demand.wait(_question(server, origin), 1.5)
    _trace(origin)


def _question(server: Serving, origin: Origin) -> Question[Trace]:
    ask = partial(trace, server.settings, server.streams, origin)
    return Question(("trace", origin), "PostgreSQL", 2.0, ask)


@st.fragment(run_every=2)
def _trace(origin: Origin) -> None:
    """No I/O: fetched in the background."""
    reading = serving().demand.look(_question(serving(), origin))
    if reading.error is not None:
        show(banner(Tone.BAD, "The database does not answer", reading.error))
    if reading.sample is None:
        show(soft("loading …"))
        return
    show(timeline(_steps(reading.sample)))


def _steps(found: Trace) -> list[tuple[Tone, str, object]]:
    origin = found.origin
    steps: list[tuple[Tone, str, object]] = [
        (
            Tone.GOOD,
            "Entered the log",
            Html(f"{code(str(origin))} {soft('its identity from here on')}"),
        )
    ]
    steps += [_dead_letter_step(letter) for letter in found.dead_letters]
    if found.replay is not None:
        at = f"{found.replay['topic']}/{found.replay['partition']}/{found.replay['offset']}"
        attempt = f"attempt {found.replay['attempt']}, sent again as"
        steps.append((Tone.GOOD, "Replayed", Html(f"{soft(attempt)} {code(at)}")))
    if found.notification is not None:
        steps.append((Tone.GOOD, "Notification", text(found.notification["message"])))
    if found.row is not None:
        steps.append((Tone.GOOD, "Row", _row_detail(found.row)))
        if found.windows:
            steps += [_window_step(window) for window in found.windows]
        else:
            steps.append((Tone.IDLE, "Window", soft("not closed yet: it waits for late events")))
    elif not found.dead_letters:
        steps.append((Tone.IDLE, "Row", soft("not loaded yet")))
    if found.duplicates:
        many = f"{len(found.duplicates)} more record(s) of the same event; none was stored twice"
        steps.append((Tone.IDLE, "Duplicates", soft(many)))
    return steps


def _dead_letter_step(letter: dict[str, Any]) -> tuple[Tone, str, object]:
    detail = Html(
        f"{code(letter['error_code'])} {text(letter['message'])}<br>"
        f"{soft(letter['status'] + ', attempt ' + str(letter['attempt']))}"
    )
    done = letter["status"] in ("replayed", "superseded")
    return (Tone.WARN if done else Tone.BAD), f"Rejected by the {letter['stage']}", detail


def _row_detail(row: dict[str, Any]) -> Html:
    return Html(
        f"{soft('event time')} {text(row['timestamp'])}<br>{soft('appended')} "
        f"{text(row['appended_at'] or units.UNKNOWN)}<br>{soft('loaded')} {text(row['loaded_at'])}"
    )


def _window_step(window: dict[str, Any]) -> tuple[Tone, str, object]:
    title = "Correction of a window" if window["late"] else "Window"
    tone = Tone.WARN if window["late"] else Tone.GOOD
    counts = f"{window['count']:,} of {window['event_type']} in partition {window['partition']}"
    return (
        tone,
        title,
        Html(
            f"{text(counts)}<br>{soft(window['window_start'] + ' to ' + window['window_end'][11:19])}"
        ),
    )
