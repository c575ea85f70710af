"""An audit since the last one: what it finds, what it takes for granted, and that it says so."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from faults import wait_until
from loads import execute, value
from pipeline import NOON, event, events, folder, loader_lag, produce, streamflow, workers
from streamflow.audit import looks
from streamflow.audit.ledger import run_audit
from streamflow.audit.report import AuditReport, Verdict
from streamflow.registry import load_streams
from streamflow.settings import Settings

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

COUNTED = "SELECT coalesce(sum(count), 0)::int FROM window_counts"
OLD = 300
AN_EVENT = "DELETE FROM events WHERE (origin_partition, origin_offset) = (1, 40)"
# Neither its record nor its event's is among the first thirty.
A_NOTE = """
DELETE FROM notifications WHERE ctid = (
    SELECT ctid FROM notifications
     WHERE origin_offset BETWEEN 32 AND 58 AND record_offset BETWEEN 32 AND 58 LIMIT 1)
"""
A_TIME = "UPDATE events SET appended_at = now() WHERE (origin_partition, origin_offset) = (1, 40)"
A_WINDOW = """
UPDATE window_counts SET count = count + 1 WHERE ctid = (
    SELECT ctid FROM window_counts WHERE partition = 1
     ORDER BY window_start, event_type, first_offset LIMIT 1)
"""


def audit(settings: Settings, *, since_last: bool = True) -> AuditReport:
    return run_audit(settings, load_streams(settings), patience=60, since_last=since_last)


def kinds(report: AuditReport) -> set[str]:
    return {problem.kind.value for problem in report.problems}


@contextmanager
def proved(settings: Settings, directory: Path) -> Iterator[None]:
    """While workers run, once a full audit has proved the first events."""
    produce(settings, "user-events", events(OLD)[0])
    with workers(settings, directory):
        counted(settings, OLD)
        report = audit(settings, since_last=False)
        assert (report.verdict, report.skipped, report.full_at) == (Verdict.CLOSED, 0, None)
        yield


def counted(settings: Settings, number: int) -> None:
    wait_until(lambda: value(settings, COUNTED) == number, 60, f"{number} events to be counted")
    wait_until(lambda: loader_lag(settings) == 0, 60, "the loader to have read all")


def add_events(settings: Settings, number: int, *, days: int = 0) -> None:
    at = NOON + timedelta(days=days, minutes=5)
    produce(settings, "user-events", [event(each, at=at) for each in range(number)])


def test_it_compares_what_is_new_and_says_what_it_did_not(
    stack_settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looks, "_LEAST", 1)
    with proved(stack_settings, tmp_path):
        before = audit(stack_settings)
        add_events(stack_settings, 30)
        counted(stack_settings, OLD + 30)
        report = audit(stack_settings)
    assert report.verdict is before.verdict is Verdict.CLOSED
    source = [one for one in report.partitions if one.topic.endswith("user-events")]
    assert sum(one.stored for one in source) == 30
    # As many of the others were looked at again.
    assert OLD - 30 - len(source) <= sum(one.skipped for one in source) <= OLD - 30
    assert report.full_at is not None
    assert report.looked_at is not None
    # Windows of the new events are compared, and no others.
    assert sum(one.events.total() for one in report.windows.values()) == 30
    # What was proved of all is remembered.
    assert value(stack_settings, LEDGER) == OLD + 30
    full = audit(stack_settings, since_last=False)
    assert (full.verdict, full.skipped) == (Verdict.CLOSED, 0)
    assert sum(one.events.total() for one in full.windows.values()) == OLD + 30


LEDGER = "SELECT sum(stored)::int FROM audit_ledger WHERE topic LIKE '%.user-events'"


def test_without_a_full_audit_before_it_compares_everything(
    stack_settings: Settings, tmp_path: Path
) -> None:
    produce(stack_settings, "user-events", events(OLD)[0])
    with workers(stack_settings, tmp_path):
        counted(stack_settings, OLD)
        report = audit(stack_settings)
        assert (report.verdict, report.skipped, report.full_at) == (Verdict.CLOSED, 0, None)
        # As after an audit of an older release.
        execute(stack_settings, "UPDATE audit_ledger SET full_at = NULL")
    execute(stack_settings, A_WINDOW)
    assert kinds(audit(stack_settings)) == {"window_differs"}


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        (AN_EVENT, {"missing", "no_event"}),
        (A_NOTE, {"missing", "no_notification"}),
        (A_TIME, {"other_record"}),
    ],
)
def test_every_proved_record_has_its_turn(
    stack_settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    statement: str,
    found: set[str],
) -> None:
    """In slices of thirty: a changed row is found in the second of each partition, and not before."""
    monkeypatch.setattr(looks, "_LEAST", 30)
    with proved(stack_settings, tmp_path):
        pass
    execute(stack_settings, statement)
    first = audit(stack_settings)
    assert first.full_at is not None
    seen = [kinds(first)]
    while not seen[-1] and len(seen) < 6:
        seen.append(kinds(audit(stack_settings)))
    assert set().union(*seen) <= found
    assert len(seen) > 1
    # What is wrong stays wrong: from then on nothing is taken for granted there.
    assert kinds(audit(stack_settings)) >= found


def test_what_a_full_audit_has_found_stays_found(stack_settings: Settings, tmp_path: Path) -> None:
    """A window without new events is not compared, but for where something was wrong."""
    with proved(stack_settings, tmp_path):
        pass
    execute(stack_settings, A_WINDOW)
    taken_for_granted = audit(stack_settings)
    assert taken_for_granted.verdict is Verdict.CLOSED
    assert taken_for_granted.full_at is not None
    assert kinds(audit(stack_settings, since_last=False)) == {"window_differs"}
    assert kinds(audit(stack_settings)) == {"window_differs"}
    execute(stack_settings, A_WINDOW.replace("count + 1", "count - 1"))
    report = audit(stack_settings)
    assert report.verdict is Verdict.CLOSED
    [window] = [one for key, one in report.windows.items() if key[1] == 1]
    assert window.events.total() > 0


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("DELETE FROM events WHERE id = 7 AND {new}", {"missing", "no_event", "window_differs"}),
        (
            "DELETE FROM notifications WHERE event_id = 7 AND {new_note}",
            {"missing", "no_notification"},
        ),
        ("UPDATE window_counts SET count = count + 1 WHERE {new_part}", {"window_differs"}),
        ("DELETE FROM window_counts WHERE {new_part}", {"missing", "window_differs"}),
    ],
)
def test_whatever_is_wrong_with_new_records_is_found(
    stack_settings: Settings, tmp_path: Path, statement: str, found: set[str]
) -> None:
    with proved(stack_settings, tmp_path):
        add_events(stack_settings, 30, days=1)
        counted(stack_settings, OLD + 30)
    since = f"'{NOON + timedelta(hours=12)}'"
    execute(
        stack_settings,
        statement.format(
            new=f"timestamp > {since}",
            new_note=f"time > {since}",
            new_part=f"window_start > {since} AND partition = 1",
        ),
    )
    report = audit(stack_settings)
    assert kinds(report) == found, [(k, w.events, w.counted) for k, w in report.windows.items()]


def test_a_late_event_has_its_old_window_compared(stack_settings: Settings, tmp_path: Path) -> None:
    """And all windows from that one on, but none before it."""
    with proved(stack_settings, folder(tmp_path, "first")):
        add_events(stack_settings, 30, days=1)
        counted(stack_settings, OLD + 30)
        assert audit(stack_settings, since_last=False).closed
        produce(stack_settings, "user-events", [event(1, at=NOON)])
        counted(stack_settings, OLD + 31)
        report = audit(stack_settings)
    assert report.closed
    assert max(one.events.total() for one in report.windows.values()) > 31
    execute(stack_settings, "UPDATE window_counts SET count = count + 1 WHERE late")
    assert kinds(audit(stack_settings)) == set()
    assert kinds(audit(stack_settings, since_last=False)) == {"window_differs"}


# As analytics does that was reset, and counts old events again in other parts.
A_SECOND_PART = """
INSERT INTO window_counts (window_start, window_end, event_type, count, partition, late, first_offset,
                           last_offset, origin_topic, record_topic, record_partition, record_offset)
SELECT window_start, window_end, event_type, 1, partition, late, free.first, free.first, origin_topic,
       record_topic, record_partition, 5000
  FROM window_counts, (SELECT min(each) AS first FROM generate_series(0, 50) AS each
                        WHERE each NOT IN (SELECT first_offset FROM window_counts)) AS free
 WHERE partition = 1 ORDER BY window_start LIMIT 1
"""


def test_a_part_that_came_since_has_its_window_compared(
    stack_settings: Settings, tmp_path: Path
) -> None:
    """Whatever events it is of."""
    with proved(stack_settings, tmp_path):
        pass
    execute(stack_settings, A_SECOND_PART)
    assert "window_differs" in kinds(audit(stack_settings))


def test_where_analytics_goes_back_nothing_is_taken_for_granted(
    stack_settings: Settings, tmp_path: Path
) -> None:
    with proved(stack_settings, tmp_path):
        pass
    # As if more had been counted than analytics says now.
    execute(
        stack_settings,
        "UPDATE audit_ledger SET windows_proved_through = proved_through + 1"
        " WHERE topic LIKE '%.user-events'",
    )
    execute(stack_settings, A_WINDOW)
    assert kinds(audit(stack_settings)) == {"window_differs"}


def test_the_command_says_what_it_has_not_looked_at(
    stack_settings: Settings, tmp_path: Path
) -> None:
    with proved(stack_settings, tmp_path):
        pass
    done = streamflow(stack_settings, "audit", "--since-last", "--wait", "0", COLUMNS="400")
    assert done.returncode == 0, done.stderr
    assert (
        "windows without new events, and rows 10,000 or more offsets behind the end of a log, not since 20"
        in " ".join(done.stdout.split())
    )
    assert "not compared" not in streamflow(stack_settings, "audit", "--wait", "0").stdout
