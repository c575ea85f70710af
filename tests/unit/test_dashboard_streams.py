"""Pages of several streams: one is chosen, and each page says what there is of it."""

from dataclasses import replace
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from streamflow.records import Origin
from streamflow.stream_topics import Topics
from streamflow.streams.user_events import USER_EVENTS
from streamlit_app.measure.postgres import PostgresSample
from streamlit_app.pages.event_trace import _steps
from streamlit_app.records.traces import Trace
from streamlit_app.ui.stream_control import summary, used_topics

ORDERS = replace(USER_EVENTS, name="orders", table="orders", windows=None, notify=None)
FOREIGN = replace(
    USER_EVENTS,
    name="foreign",
    table="foreign_rows",
    notify=None,
    topics=Topics(managed=False, analytics="a", notifications="n", dead_letters="d"),
)


def page(*names: str, all_streams: bool = False, **address: str) -> AppTest:
    """The control of some streams, and under it what was chosen."""

    def script(names: tuple[str, ...], all_streams: bool) -> None:
        from dataclasses import replace

        import streamlit as st

        from streamflow.streams.user_events import USER_EVENTS
        from streamlit_app.ui.stream_control import stream_control

        streams = [replace(USER_EVENTS, name=name) for name in names]
        chosen = stream_control(st.container(), streams, all_streams=all_streams)
        st.text(chosen.name if chosen is not None else "none")

    made = AppTest.from_function(script, kwargs={"names": names, "all_streams": all_streams})
    for name, value in address.items():
        made.query_params[name] = value
    made.run(timeout=30)
    assert not made.exception
    return made


def chosen(made: AppTest) -> str:
    [text] = made.text
    return str(text.value)


def complaint(made: AppTest) -> str:
    return "".join(
        element.proto.body for element in made.get("html") if "No such stream" in element.proto.body
    )


def test_a_single_stream_needs_no_choice() -> None:
    made = page("logins", all_streams=True, stream="orders")
    assert (chosen(made), len(made.selectbox), complaint(made)) == ("logins", 0, "")


def test_the_address_names_the_stream() -> None:
    assert chosen(page("logins", "orders")) == "logins"
    assert chosen(page("logins", "orders", stream="orders")) == "orders"
    assert chosen(page("logins", "orders", all_streams=True)) == "none"
    assert chosen(page("logins", "orders", all_streams=True, stream="orders")) == "orders"


@pytest.mark.parametrize("name", ["<script>", "all streams", "order", ""])
def test_a_name_that_is_not_configured_is_a_sentence(name: str) -> None:
    made = page("logins", "orders", stream=name)
    assert chosen(made) == "logins"
    assert "Shown is the stream logins; there are logins, orders." in complaint(made)
    assert "script" not in complaint(made)
    made.selectbox(key="stream").select("orders").run()
    assert (chosen(made), complaint(made)) == ("orders", "")


def test_a_page_says_what_a_stream_has() -> None:
    streams = (USER_EVENTS, ORDERS, FOREIGN)
    assert used_topics(ORDERS) == ["orders", "dead-letter-topic"]
    assert used_topics(FOREIGN) == ["foreign", "a", "d"]
    own, bare, foreign = (summary(stream, streams) for stream in streams)
    assert "counted by type in windows of 10 s" in own
    assert "· notifications" in own
    assert "shares dead-letter-topic with other streams" in own
    assert "no windows" in bare
    assert "no notifications" in bare
    assert "another owner" in foreign
    assert "shares" not in foreign


def test_dead_letters_are_counted_of_a_stream_or_of_all() -> None:
    letters = {
        ("user-events", "INVALID_JSON", "open"): 3,
        ("user-events", "INVALID_JSON", "replayed"): 2,
        ("orders", "EMPTY_VALUE", "open"): 1,
    }
    sample = PostgresSample(
        loaded={}, loaded_at=None, latency={}, dead_letters=letters, rejected_from={},
        duplicates={}, size=0, connections=0, version="",
    )  # fmt: skip
    assert sample.codes() == {"INVALID_JSON": 5, "EMPTY_VALUE": 1}
    assert sample.codes("orders") == {"EMPTY_VALUE": 1}
    assert sample.statuses("user-events") == {"open": 3, "replayed": 2}
    assert sample.statuses("orders")["replayed"] == 0


def test_a_trace_does_not_wait_for_windows_that_there_are_not() -> None:
    def steps(stream: Any) -> dict[str, str]:
        row = {"appended_at": None, "loaded_at": "later"}
        event = Trace(
            origin=Origin(stream.topic, 0, 1), stream=stream, row=row, notification=None,
            dead_letters=(), windows=(), parts={}, duplicates=(), replay=None, time="noon",
        )  # fmt: skip
        return {title: str(detail) for _, title, detail in _steps(event)}

    assert "not closed yet" in steps(USER_EVENTS)["Window"]
    assert "the stream has no windows" in steps(ORDERS)["Window"]
    assert "noon" in steps(ORDERS)["Row"]
