"""Inspector: the records of a topic, live or searched, and one of them in full with its trace."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Final

import orjson
import pandas as pd
import streamlit as st
from pydantic_core import from_json, to_json

from streamflow import units
from streamflow.dead_letters.selection_parser import parse_time
from streamflow.errors import UsageError
from streamflow.records import ORIGIN_HEADER, Origin
from streamlit_app.pages.event_trace import render_trace
from streamlit_app.records.filters import Filter
from streamlit_app.records.masking import SeenRecord
from streamlit_app.records.tail import KEPT, SearchResult, Start
from streamlit_app.serving import Serving, serving
from streamlit_app.ui.components import card, choice, heading, show
from streamlit_app.ui.markup import Tone, banner, empty, line, mark, soft, table
from streamlit_app.ui.pending_action import PendingAction, pending_action

_SHOWN: Final = 100  # rows of the live tail
_PREVIEW: Final = 160  # characters of a value in a row
_SELECTED: Final = "inspected"
_CHOSEN: Final = "inspected_now"
_ON_SCREEN: Final = "tail_on_screen"
_RESULT: Final = "search_result"

_LIVE, _SEARCH = "Live tail", "Search"
_FROM_END, _FROM_OFFSET, _FROM_TIME = "the last records", "an offset", "a time"


def render() -> None:
    server = serving()
    with heading("Inspector"):
        mode = choice("Mode", [_LIVE, _SEARCH], "mode", _LIVE)
    with card("controls"):
        topic, wanted = _controls(server)
        if mode == _SEARCH:
            _search_form(server, topic, wanted)
    left, right = st.columns([3, 2])
    with left:
        if mode == _SEARCH:
            _search_result(topic)
        else:
            _tail(topic, wanted)
    with right:
        _record(server)


def _controls(server: Serving) -> tuple[str, Filter]:
    """Topic and filter; kept in the address."""
    first, second, third = st.columns([1.3, 1.6, 1.6])
    topic = first.selectbox("Topic", server.topics, key="topic", bind="query-params")
    text = second.text_input(
        "Text in the value", key="text", placeholder="contains", bind="query-params", live="300ms"
    )
    path = third.text_input(
        "JSON path",
        key="path",
        placeholder="total > 3",
        bind="query-params",
        help="A path and a comparison: `country = DE`, `items[0].price > 3`, `user ~ ann`; or "
        "only a path that must be there. Operators: = != < <= > >= ~ (contains).",
    )
    first, second, third = st.columns([1.3, 1.6, 1.6])
    known = server.poller.reading("kafka").sample
    numbers = sorted(number for name, number in known.bounds if name == topic) if known else []
    chosen = first.multiselect("Partitions", numbers, key="partitions", placeholder="all")
    key = second.text_input("Key", key="key", placeholder="contains", bind="query-params")
    header = third.text_input(
        "Header",
        key="header",
        placeholder="__streamflow.error_code=UNKNOWN_TYPE",
        bind="query-params",
        help="A name that must be there, or name=text that its value must contain.",
    )
    partitions = frozenset(chosen)
    return topic, Filter(text=text, key=key, partitions=partitions, path=path, header=header)


@st.fragment(run_every=1)
def _tail(topic: str, wanted: Filter) -> None:
    """The live tail. No I/O: another thread reads."""
    if st.session_state.pop(_CHOSEN, False):
        # A choice reruns only this fragment; the record beside it is outside.
        st.rerun(scope="app")
    view = serving().tail.watch(topic)
    # Other rows are another table: one that is chosen there is not chosen here.
    key = f"tail-{hash((topic, wanted))}"
    chosen = bool(_chosen_rows(key))
    with card("tail"):
        with st.container(
            horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"
        ):
            paused = st.toggle("Pause", help="A selected record pauses as well.") or chosen
            try:
                test = wanted.compiled()
            except UsageError as error:
                show(banner(Tone.WARN, "The filter cannot be used", str(error)))
                return
            shown = st.session_state.get(_ON_SCREEN, ("", ()))
            if not paused or shown[0] != key:
                matching = [record for record in view.records if test(record)]
                shown = (key, tuple(matching[:_SHOWN]))
                st.session_state[_ON_SCREEN] = shown
            records: tuple[SeenRecord, ...] = shown[1]
            state = mark(Tone.IDLE, "paused") if paused else mark(Tone.GOOD, "following")
            note = " while a record is selected" if chosen else ""
            note += (
                f" · {len(records)} of the last {units.counted(len(view.records), 'record')} "
                f"(at most {KEPT})"
            )
            if view.skipped:
                note += f" · {units.counted(view.skipped, 'offset')} skipped to keep up"
            show(line(state, soft(note)))
        if view.error is not None:
            show(banner(Tone.BAD, "The topic cannot be read", view.error))
        if records:
            _rows(key, records)
        elif view.records:
            show(empty("No record matches", "Change the filter, or search further back."))
        else:
            hint = f"Try: streamflow produce --count 100, or wait for {topic}."
            show(empty("No record yet", hint))


def _chosen_rows(key: str) -> list[int]:
    """What is selected in a table, as the browser tells with every run: what we would keep of it
    ourselves (a switch that a callback turns on) is overwritten by a run that the browser began before
    it knew of it."""
    state = st.session_state.get(key)
    return list(state["selection"]["rows"]) if state else []


def _rows(key: str, records: tuple[SeenRecord, ...]) -> None:
    """Records as a table; choosing one shows it in full."""

    def choose() -> None:
        rows = _chosen_rows(key)
        if rows and rows[0] < len(records):
            st.session_state[_SELECTED] = records[rows[0]]
            st.session_state[_CHOSEN] = True

    shown = pd.DataFrame(
        {
            "appended": record.appended,
            "p": record.partition,
            "offset": record.offset,
            "key": record.key,
            "value": _preview(record),
        }
        for record in records
    )
    st.dataframe(
        shown,
        key=key,
        height=520,
        hide_index=True,
        on_select=choose,
        selection_mode="single-row",
        column_config={
            "appended": st.column_config.DatetimeColumn(
                "appended (UTC)", format="HH:mm:ss.SSS", timezone="UTC", width=105
            ),
            "p": st.column_config.Column(width=34, help="Partition"),
            # Not "plain": of that Streamlit 1.67 makes 14061.000000000002.
            "offset": st.column_config.NumberColumn("offset", format="%d", width=75),
            "key": st.column_config.Column(width=90),
            "value": st.column_config.Column(width="large"),
        },
    )


def _preview(record: SeenRecord) -> str:
    if record.size is None:
        return "(no value)"
    value = " ".join(record.value[: 2 * _PREVIEW].split())
    return value if len(value) <= _PREVIEW else value[:_PREVIEW] + "…"


def _search_form(server: Serving, topic: str, wanted: Filter) -> None:
    """Where to begin, and the button. The search is I/O, so it runs only when the button is pressed."""
    first, second, third = st.columns([1.3, 1.6, 1.6], vertical_alignment="bottom")
    begin = first.selectbox("From", [_FROM_END, _FROM_OFFSET, _FROM_TIME], key="from")
    start: Callable[[], Start]
    if begin == _FROM_OFFSET:
        offset = second.number_input("Offset, in every partition", min_value=0, key="offset")
        start = partial(Start, offset=int(offset))
    elif begin == _FROM_TIME:
        example = f"{datetime.now(UTC):%Y-%m-%d %H:%M}"
        moment = second.text_input("Time, UTC", key="time", placeholder=example)
        start = partial(_start_at, moment)
    else:
        last = second.number_input("How many", 100, 1_000_000, 100_000, 1000, key="last")
        start = partial(Start, last=int(last))
    task: PendingAction[tuple[str, SearchResult]] = pending_action(_RESULT)
    third.button(
        "Search",
        type="primary",
        icon=":material/search:",
        width="stretch",
        on_click=task.press,
        args=(topic,),
    )
    if task.pressed is not None:
        with st.spinner("Reading …"):
            task.run(lambda: (topic, server.search.run(topic, start(), wanted)))
    if task.error is not None:
        show(banner(Tone.BAD, "The search did not finish", task.error))


def _start_at(text: str) -> Start:
    return Start(time=parse_time(text.strip(), datetime.now(UTC)).timestamp())


def _search_result(topic: str) -> None:
    task: PendingAction[tuple[str, SearchResult]] = pending_action(_RESULT)
    with card("found"):
        if task.result is None or task.result[0] != topic:
            hint = (
                "Set a filter, choose where to begin, and press Search. It reads at most "
                "100,000 records, 256 MB or 10 s, and says how far it got."
            )
            show(empty("Search the topic", hint))
            return
        result = task.result[1]
        many = units.either(result.matches, "match", "matches")
        summary = (
            f"{units.count(result.matches)} {many} · scanned {units.counted(result.scanned, 'record')} "
            f"({units.size(result.scanned_bytes)}) in {units.duration(result.seconds)}"
        )
        if result.matches > len(result.records):
            summary += f" · the newest {len(result.records)} are shown"
        show(line(summary, data=f'data-matches="{result.matches}"'))
        if result.stopped_by is not None:
            hint = "There is more: begin later, or choose a partition."
            show(banner(Tone.WARN, f"Stopped after {result.stopped_by}", hint))
        if result.records:
            _rows("found", result.records)
        else:
            show(empty("No record matches", "Change the filter, or begin earlier."))


def _record(server: Serving) -> None:
    """The chosen record in full."""
    record: SeenRecord | None = st.session_state.get(_SELECTED)
    with card("record"):
        if record is None:
            hint = (
                "Tick a row to see it in full, with its headers and its trace through the pipeline."
            )
            show(empty("No record chosen", hint))
            return
        st.subheader(record.position, anchor=False)
        appended = units.moment(record.appended)
        show(soft(f"appended {appended} · {units.size(record.size)} · key {record.key or '—'}"))
        st.code(_pretty(record), language="json", wrap_lines=True, height=260)
        if record.is_cut:
            show(banner(Tone.WARN, "Shortened", "The value is longer than 64 kB."))
        if record.headers:
            with st.expander(f"Headers ({len(record.headers)})"):
                rows = (
                    (name, value if value is not None else "—") for name, value in record.headers
                )
                show(table(("name", "value"), rows))
        st.download_button(
            "Download",
            _document(record),
            file_name=record.position.replace("/", "-") + ".json",
            mime="application/json",
            icon=":material/download:",
            on_click="ignore",
        )
        st.subheader("Through the pipeline", anchor=False)
        render_trace(server, _origin(record))


def _origin(record: SeenRecord) -> Origin:
    claims = [value for name, value in record.headers if name == ORIGIN_HEADER and value]
    claimed = Origin.parse(claims[-1].encode()) if claims else None
    return claimed or Origin(record.topic, record.partition, record.offset)


def _pretty(record: SeenRecord) -> str:
    if record.size is None:
        return "(no value)"
    try:
        return to_json(from_json(record.value), indent=2).decode()
    except ValueError:
        return record.value


def _document(record: SeenRecord) -> bytes:
    """The record as JSON, masked as it is shown."""
    return orjson.dumps(
        {
            "topic": record.topic,
            "partition": record.partition,
            "offset": record.offset,
            "appended": record.appended,
            "key": record.key,
            "headers": record.headers,
            "value": record.value,
            "downloaded_at": datetime.now(UTC),
        },
        option=orjson.OPT_INDENT_2,
    )
