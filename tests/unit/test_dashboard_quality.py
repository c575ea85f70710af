"""The Quality page, by what Dagster's GraphQL interface answers."""

import re
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from streamflow import http
from streamlit_app.measure.dagster import Dagster
from streamlit_app.measure.demand import Demand
from streamlit_app.pages import quality

RUNNING = ("again", "IN_PROGRESS", None)
RED = ("before", "FAILED", {"severity": "ERROR", "description": "7 offsets are missing"})
GREEN = ("first", "SUCCEEDED", {"severity": "ERROR", "description": "all is there"})


Executions = tuple[tuple[str, str, dict[str, Any] | None], ...]


def answer(query: str, executions: Executions) -> dict[str, Any]:
    """What Dagster answers that has one check, with these executions from the newest."""
    if "assetNodes" in query:
        check = {"name": "no_gaps", "description": "", "blocking": False}
        path = {"path": ["postgres", "events"]}
        return {"assetNodes": [{"assetKey": path, "assetChecksOrError": {"checks": [check]}}]}
    return {
        "e0": [
            {
                "runId": run_id,
                "status": status,
                "timestamp": time.time() - 60 * age,
                "evaluation": evaluation and {"metadataEntries": [], **evaluation},
            }
            for age, (run_id, status, evaluation) in enumerate(executions)
        ]
    }


@pytest.fixture
def demand() -> Iterator[Demand]:
    made = Demand()
    made.start()
    yield made
    made.stop()


def _script() -> None:
    from streamlit_app.pages import quality  # AppTest runs the source of this function alone

    quality.render()


@pytest.mark.parametrize(
    ("executions", "failed", "result"),
    [
        ((RUNNING, RED, GREEN), "1", "failed"),
        # An older run that has not ended is no news.
        ((RED, RUNNING, GREEN), "1", "failed"),
        ((RUNNING, GREEN, RED), "0", "passed"),
        ((RUNNING,), "0", "never run"),
    ],
)
def test_a_check_keeps_its_result_while_it_runs_again(
    executions: Executions,
    failed: str,
    result: str,
    demand: Demand,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def request(*_: str, json: dict[str, Any], **__: float) -> SimpleNamespace:
        data = answer(json["query"], executions)
        return SimpleNamespace(ok=True, json=lambda: {"data": data})

    monkeypatch.setattr(http, "request", request)
    server = SimpleNamespace(demand=demand, dagster=Dagster("http://127.0.0.1:9"))
    monkeypatch.setattr(quality, "serving", lambda: server)
    page = AppTest.from_function(_script).run()
    assert not page.exception
    assert {metric.label: metric.value for metric in page.metric} == {
        "Passed": str(int(result == "passed")),
        "Failed": failed,
        "Warnings": "0",
        "Never run": str(int(result == "never run")),
    }
    [row] = re.findall(r"<tr>(?:(?!</tr>).)*no_gaps.*?</tr>", page.get("html")[0].proto.body)
    assert result in row
    assert ("running since" in row) == (executions[0] is RUNNING)
    assert ("7 offsets are missing" in row) == (result == "failed")
