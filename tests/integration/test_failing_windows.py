"""Windows that fail stop no other stream, and lose nothing: with a real broker and a real database."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from conftest import SettingsFactory
from faults import wait_until
from loads import rows, value
from pipeline import audit, events, folder, produce, stored_values, topics_of, workers
from streamflow.dead_letters.apply import plan_and_apply
from streamflow.dead_letters.report import ReplayOptions, ReplayReport
from streamflow.dead_letters.selection_parser import make_selection
from streamflow.errors import StreamsRefused
from streamflow.postgres import schema
from streamflow.registry import hasher_for, load_streams
from streamflow.settings import Settings

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def sales(number: int, *, free: int = 0, first: int = 0) -> list[bytes]:
    """The last ones are of no pieces."""
    return [
        json.dumps(
            {
                "shop": "ab"[each % 2],
                "price": each,
                "pieces": 1 if each < first + number - free else 0,
                "at": (NOON + timedelta(milliseconds=500 * each)).isoformat(),
            }
        ).encode()
        for each in range(first, first + number)
    ]


@pytest.fixture
def stack(settings: SettingsFactory, database_url: str) -> Iterator[Settings]:
    made = settings(
        DATABASE_URL=database_url,
        STREAMFLOW_STREAMS="failing_windows:USER_EVENTS,failing_windows:BEFORE",
    )
    schema.upgrade(made, load_streams(made))
    with topics_of(made):
        yield made


def with_release(settings: Settings, name: str) -> Settings:
    streams = ("failing_windows:USER_EVENTS", f"failing_windows:{name}")
    return settings.model_copy(update={"streams": streams})


def counted(settings: Settings) -> int:
    return int(value(settings, "SELECT coalesce(sum(counted), 0)::int FROM sales_10s"))


def test_a_where_that_raises_is_one_dead_letter_for_all_stages(
    settings: SettingsFactory, database_url: str, tmp_path: Path
) -> None:
    made = with_release(settings(DATABASE_URL=database_url), "RAISING")
    schema.upgrade(made, load_streams(made))
    with topics_of(made):
        produce(made, "sales", sales(100, free=3))
        with workers(made, folder(tmp_path, "first")):
            wait_until(lambda: counted(made) == 97, 60, "the windows of the others")
            wait_until(
                lambda: value(made, "SELECT count(*) FROM dead_letters") == 3, 60, "dead letters"
            )
            report = audit(made)
        assert report.closed, [str(problem) for problem in report.problems]
        assert value(made, "SELECT count(*) FROM sales") == 97
        assert rows(made, "SELECT DISTINCT error_code, message, stage FROM dead_letters") == [
            (
                "PROCESSING_FAILED",
                "where of dear of the windows sales_10s raised ZeroDivisionError",
                "validator",
            )
        ]
        mended = with_release(made, "MENDED")
        assert schema.upgrade(mended, load_streams(mended)) == []


def test_another_declaration_of_a_table_that_is_there_stops_no_other_stream(
    stack: Settings, tmp_path: Path
) -> None:
    produce(stack, "sales", sales(40))
    with workers(stack, folder(tmp_path, "first")):
        wait_until(lambda: counted(stack) == 40, 60, "the windows of the first release")
    changed = with_release(stack, "AFTER")
    with pytest.raises(StreamsRefused, match=r"taken is new.*give the windows another name"):
        schema.upgrade(changed, load_streams(changed))
    produce(stack, "sales", sales(40, first=40))
    produce(stack, "user-events", events(50)[0])
    with workers(changed, folder(tmp_path, "second")) as running:
        wait_until(
            lambda: value(stack, "SELECT count(*) FROM events") == 50,
            60,
            "events of the other stream",
        )
        wait_until(
            lambda: value(stack, "SELECT coalesce(sum(count), 0)::int FROM window_counts") == 50,
            60,
            "windows of the other stream",
        )
        for worker in ("loader", "analytics"):
            assert running[worker].said("were counted by another declaration (taken is new)")
        assert value(stack, "SELECT count(*) FROM sales") == 40
        assert all(each.process.poll() is None for each in running.values())
    # Declared as before, nothing is lost.
    with workers(stack, folder(tmp_path, "third")):
        wait_until(lambda: counted(stack) == 80, 60, "all windows")
        report = audit(stack)
    assert report.closed, [str(problem) for problem in report.problems]


def test_parts_that_no_stream_declared_when_they_were_loaded_are_replayed(
    stack: Settings, tmp_path: Path
) -> None:
    produce(stack, "sales", sales(40))
    with workers(stack, folder(tmp_path, "first"), ("validator", "analytics")) as running:
        wait_until(lambda: analytics_records(stack) > 0, 60, "parts of windows")
        assert [worker.stop() for worker in running.values()] == [0, 0]
    given_up = with_release(stack, "GIVEN_UP")
    unread = "SELECT count(*) FROM dead_letters WHERE error_code = 'UNKNOWN_TYPE'"
    parts = analytics_records(stack)
    with workers(given_up, folder(tmp_path, "second"), ("loader",)):
        wait_until(lambda: value(stack, unread) == parts, 60, "dead letters of the parts")
        # Without their windows they would fail again.
        assert replayed(given_up).sent == 0
    with workers(stack, folder(tmp_path, "third")):
        assert replayed(stack).sent == parts
        wait_until(lambda: counted(stack) == 40, 60, "all events to be counted")
        report = audit(stack)
    assert report.closed, [str(problem) for problem in report.problems]


def analytics_records(settings: Settings) -> int:
    return len(stored_values(settings, "analytics"))


def replayed(settings: Settings) -> ReplayReport:
    streams = load_streams(settings)
    selection = make_selection(hasher_for(settings, streams), codes=("UNKNOWN_TYPE",))
    options = ReplayOptions(canary=0)
    return plan_and_apply(settings, streams, selection, options, requested_by="tests")
