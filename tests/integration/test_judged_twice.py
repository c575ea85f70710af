"""Analytics killed with a window open, and a release with another contract after it: the window differs for
good, is acknowledged as that, and nothing else is by that."""

import json
from pathlib import Path
from typing import Any

import pytest

from faults import wait_until
from loads import execute, rows
from pipeline import count, event, folder, streamflow, topic_bounds, workers
from streamflow.kafka import clients
from streamflow.kafka.offsets import GroupOffsets
from streamflow.settings import Settings
from streamflow.windows.progress import Progress

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

WINDOW = "2026-03-01T12:00:00Z USER_LOGIN"


def by(settings: Settings, release: str) -> Settings:
    return settings.model_copy(update={"streams": (f"judged_twice:{release}",)})


def send(settings: Settings, *numbers: int) -> None:
    client = clients.producer(settings)
    for number in numbers:
        client.produce(f"{settings.prefix}user-events", event(number), b"ann", 0)
    assert client.flush(30) == 0


def analytics_progress(settings: Settings) -> Progress | None:
    partition = (f"{settings.prefix}user-events", 0)
    group = GroupOffsets(settings, settings.group("analytics"))
    try:
        kept = group.read([partition]).get(partition)
    finally:
        group.close()
    return Progress.parse(kept.offset, kept.metadata) if kept else None


def analytics_position(settings: Settings) -> int:
    """Everything before it was counted."""
    progress = analytics_progress(settings)
    return progress.position if progress else -1


def resumed(settings: Settings) -> int:
    """Nothing before it will be counted any more."""
    progress = analytics_progress(settings)
    return progress.resume if progress else -1


def wait_counted(settings: Settings) -> None:
    [end] = [
        end for (_, number), (_, end) in topic_bounds(settings, "user-events").items() if not number
    ]
    wait_until(lambda: analytics_position(settings) == end, 60, "analytics to have read everything")


def killed_with_open_windows(settings: Settings, log: Path, stored: int, *sent: int) -> None:
    """All workers read the events; then validator and loader stop, and analytics is killed."""
    with workers(settings, log) as running:
        send(settings, *sent)
        wait_counted(settings)
        wait_until(lambda: count(settings, "SELECT count(*) FROM events") == stored, 60)
        # An open window is no difference, and nothing to acknowledge.
        report = audit(settings, "--acknowledge", wait=30)
        assert report["problems"] == []
        assert rows(settings, "SELECT * FROM window_differences") == []
        running["analytics"].kill()
        assert [running[name].stop() for name in ("validator", "loader")] == [0, 0]


def audit(settings: Settings, *arguments: str, wait: float = 0) -> dict[str, Any]:
    done = streamflow(settings, "audit", "--json", "--wait", str(wait), *arguments)
    assert done.stdout, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    assert (done.returncode == 0) is report["closed"]
    return report


def differences(report: dict[str, Any]) -> list[str]:
    assert {problem["kind"] for problem in report["problems"]} <= {"window_differs"}
    return [problem["message"] for problem in report["problems"]]


def test_a_stricter_release_counts_fewer_and_that_can_be_acknowledged(
    stack_settings: Settings, tmp_path: Path
) -> None:
    patient, strict = by(stack_settings, "PATIENT"), by(stack_settings, "STRICT")
    killed_with_open_windows(patient, folder(tmp_path, "first"), 3, 1, 500, 2)
    with workers(strict, tmp_path) as running:
        wait_until(lambda: resumed(strict) == 3, 60, "analytics to have closed the window")
        [said] = differences(audit(strict, wait=60))
        assert f"window {WINDOW}: 3 events, 2 counted" in said
        assert "streamflow audit --acknowledge" in said
        # Nobody has acknowledged it yet.
        assert audit(strict)["verdict"] == "open"
        report = audit(strict, "--acknowledge", wait=60)
        assert (report["verdict"], report["window_differences"]) == ("closed", 1)
        assert (
            report["windows"][f"{stack_settings.prefix}user-events[0]"]["window_differences"] == 1
        )
        assert report["lost"] == 0
        assert rows(strict, "SELECT difference FROM window_differences") == [(1,)]
        assert audit(strict, wait=60)["verdict"] == "closed"

        # What is new is a problem, in the same window also; what is proved cannot be acknowledged.
        execute(strict, "UPDATE window_counts SET count = count - 1 WHERE count = 2")
        for _ in range(2):
            [said] = differences(audit(strict, "--acknowledge"))
            assert said.endswith("3 events, 1 counted")
        execute(strict, "UPDATE window_counts SET count = count + 1 WHERE count = 1")
        assert audit(strict)["verdict"] == "closed"

        # Late events are counted as ever; workers that are behind are waited for.
        assert running["analytics"].stop() == 0
        send(strict, 3)
        wait_until(lambda: count(strict, "SELECT count(*) FROM events") == 4, 60)
        report = audit(strict, "--acknowledge")
        assert (report["verdict"], report["problems"]) == ("not_yet", [])
    with workers(strict, tmp_path):
        report = audit(strict, wait=60)
        assert (report["verdict"], report["window_differences"]) == ("closed", 1)


def test_events_that_no_worker_will_count_are_not_in_open_windows(
    stack_settings: Settings, tmp_path: Path
) -> None:
    """The next release rejects all of them, and no event follows: nothing is open that may close."""
    patient, strict = by(stack_settings, "PATIENT"), by(stack_settings, "STRICT")
    killed_with_open_windows(patient, folder(tmp_path, "first"), 3, 500, 501, 502)
    with workers(strict, tmp_path):
        wait_until(lambda: resumed(strict) == 3, 60, "analytics to have read them again")
        report = audit(strict, wait=60)
        [said] = differences(report)
        assert f"window {WINDOW}: 3 events, 0 counted" in said
        assert (report["verdict"], report["in_open_windows"]) == ("open", 0)
        # What follows does not change it, nor whether it can be acknowledged.
        send(strict, 1)
        wait_until(lambda: count(strict, "SELECT count(*) FROM window_counts") == 1, 60)
        [said] = differences(audit(strict, wait=60))
        assert f"window {WINDOW}: 4 events, 1 counted" in said
        report = audit(strict, "--acknowledge", wait=60)
        assert (report["verdict"], report["window_differences"]) == ("closed", 3)
    log = (tmp_path / "analytics.log").read_text()
    assert log.count("records that were read again were rejected") == 1


def test_what_was_handed_over_is_compared_before_its_window_closes(
    stack_settings: Settings, tmp_path: Path
) -> None:
    patient = by(stack_settings, "PATIENT")
    with workers(patient, tmp_path) as running:
        send(patient, 1, 2)
        wait_counted(patient)
        wait_until(lambda: count(patient, "SELECT count(*) FROM events") == 2, 60)
        assert audit(patient, wait=30)["in_open_windows"] == 2
        assert running["analytics"].stop() == 0
        report = audit(patient, wait=60)
        assert (report["verdict"], report["in_open_windows"]) == ("closed", 0)
        execute(patient, "UPDATE window_counts SET count = 1")
        [said] = differences(audit(patient, wait=60))
        assert said.endswith("2 events, 1 counted")


@pytest.mark.chaos  # half a minute; the stricter release goes the same way
def test_a_wider_release_counts_more_and_that_can_be_acknowledged(
    stack_settings: Settings, tmp_path: Path
) -> None:
    """As where the stricter release is rolled back."""
    patient, wide = by(stack_settings, "PATIENT_STRICT"), by(stack_settings, "QUICK")
    killed_with_open_windows(patient, folder(tmp_path, "first"), 2, 1, 500, 2)
    with workers(wide, tmp_path):
        wait_until(lambda: resumed(wide) == 3, 60, "analytics to have closed the window")
        [said] = differences(audit(wide, wait=60))
        assert f"window {WINDOW}: 2 events, 3 counted" in said
        report = audit(wide, "--acknowledge", wait=60)
        assert (report["verdict"], report["window_differences"]) == ("closed", 1)
        assert rows(wide, "SELECT difference FROM window_differences") == [(-1,)]
