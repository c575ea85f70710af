"""The replay form offers the repairs that a replay can apply, and takes no others."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from streamflow.dead_letters.repairs import known_repairs
from streamflow.dead_letters.select import Selection, Status
from streamflow.settings.dashboard import DashboardSettings
from streamlit_app.records.pinned import DeadLetterFilter, PinnedList
from streamlit_app.records.queries import DeadLetters
from streamlit_app.serving import Serving

OWN = """
from streamflow import repair

@repair("no_trace_id", "Drops the trace.")
def no_trace_id(document, stream, hasher):
    return {name: value for name, value in document.items() if name != "traceId"}
"""


def form(tmp_path: Path, module: str) -> tuple[DashboardSettings, AppTest]:
    settings = DashboardSettings(
        STREAMFLOW_STATE_DIR=tmp_path,
        STREAMFLOW_REPAIRS=module,
        STREAMFLOW_DASHBOARD_ROLE="operator",
    )
    content = DeadLetters((), {Status.OPEN: 0}, datetime(2026, 7, 1, tzinfo=UTC))
    pinned = PinnedList(DeadLetterFilter(), Selection(), content)

    def script(server: "Serving", pinned: "PinnedList") -> None:
        from streamlit_app.pages.replay_form import render_replay_form

        render_replay_form(server, pinned)

    page = AppTest.from_function(script, kwargs={"server": Serving(settings), "pinned": pinned})
    page.run(timeout=30)
    assert not page.exception
    return settings, page


def test_it_offers_all_repairs_and_takes_no_free_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "repairs_of_the_form.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    settings, page = form(tmp_path, "repairs_of_the_form")
    [choice] = page.multiselect
    assert choice.options == [
        f"{name}: {repair.help}" for name, repair in known_repairs(settings).items()
    ]
    assert choice.options[-1] == "no_trace_id: Drops the trace."
    assert not choice.proto.accept_new_options


def test_modules_that_cannot_be_loaded_are_named_and_stop_nothing(tmp_path: Path) -> None:
    _, page = form(tmp_path, "no_such_repairs")
    assert page.multiselect[0].options == []
    shown = " ".join(each.proto.body for each in page.get("html"))
    assert "STREAMFLOW_REPAIRS: there is no module no_such_repairs" in shown
