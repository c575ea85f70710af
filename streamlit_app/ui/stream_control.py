"""Choosing a stream, and saying what it has. Shown only where more than one is configured."""

from collections.abc import Sequence
from typing import Final

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from streamflow.stream import Stream
from streamlit_app.ui.components import show
from streamlit_app.ui.markup import Html, Tone, banner, code, line, soft

ALL: Final = "all streams"  # no topic can be called so
KEY: Final = "stream"  # of the widget, and in the address
_UNKNOWN: Final = "unknown_stream"


def stream_control(
    place: DeltaGenerator, streams: Sequence[Stream], *, all_streams: bool = False
) -> Stream | None:
    """The chosen stream; None for all of them, where the page offers that."""
    named = {stream.name: stream for stream in streams}
    if len(named) == 1:
        return streams[0]
    options = [*([ALL] if all_streams else []), *named]
    # The widget removes from the address what is no option of its.
    asked = st.query_params.get(KEY)
    if asked is not None:
        st.session_state[_UNKNOWN] = asked not in options
    chosen = place.selectbox(
        "Stream",
        options,
        key=KEY,
        bind="query-params",
        label_visibility="collapsed",
        width=220,
        on_change=_forget,
    )
    if st.session_state.get(_UNKNOWN):
        what = chosen if chosen == ALL else f"the stream {chosen}"
        names = ", ".join(named)
        detail = f"The address names a stream that is not configured. Shown is {what}; there are {names}."
        show(banner(Tone.WARN, "No such stream", detail))
    return named.get(chosen or "")


def _forget() -> None:
    st.session_state[_UNKNOWN] = False


def used_topics(stream: Stream) -> list[str]:
    """The topics that hold something of a stream: without those of what it does not have."""
    topics = [
        stream.topic,
        *([stream.analytics_topic] if stream.counted else []),
        *([stream.notifications_topic] if stream.notify is not None else []),
        stream.dead_letter_topic,
    ]
    return list(dict.fromkeys(topics))


def summary(stream: Stream, streams: Sequence[Stream]) -> Html:
    """What a stream has, and what it has not, in a line."""
    parts: list[object] = [soft("table"), code(stream.table)]
    if not stream.windows:
        parts.append(soft("· no windows"))
    if stream.event_counts is not None:
        by = f" by {stream.kind_field}" if stream.kind_field else ""
        seconds = stream.event_counts.size.total_seconds()
        parts.append(soft(f"· counted{by} in windows of {seconds:g} s"))
    if stream.window_tables:
        parts += [soft("· aggregated in"), *map(code, stream.window_tables)]
    parts.append(soft("· no notifications" if stream.notify is None else "· notifications"))
    if not stream.topics.managed:
        parts.append(soft("· its topic is another owner's, and only read"))
    others = [other.name for other in streams if other.name != stream.name]
    shared = [
        topic
        for topic in used_topics(stream)
        if any(topic in used_topics(other) for other in streams if other.name in others)
    ]
    if shared:
        parts.append(soft(f"· shares {', '.join(shared)} with other streams"))
    return line(*parts)
