"""Events that their contract accepts and their table refuses: dead letters that were counted."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from faults import wait_until
from loads import execute, value
from pipeline import audit, event, events, produce, streamflow, workers
from streamflow.settings import Settings

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

COUNTED = "SELECT coalesce(sum(count), 0)::int FROM window_counts"


def test_the_ledger_closes_over_them_and_over_their_replays(
    stack_settings: Settings, tmp_path: Path
) -> None:
    execute(
        stack_settings, "ALTER TABLE events ADD CONSTRAINT odd CHECK (id NOT IN (13, 77, 9001))"
    )
    # One is far ahead of the broker's clock: it was counted before its window closed.
    ahead = event(9_001, at=datetime.now(UTC) + timedelta(days=1))
    produce(stack_settings, "user-events", [*events(300)[0], ahead])
    with workers(stack_settings, tmp_path):

        def is_counted(number: int) -> None:
            wait_until(lambda: value(stack_settings, COUNTED) == number, 60, f"{number} counted")
            report = audit(stack_settings)
            assert report.closed, report.problems

        is_counted(301)
        assert value(stack_settings, "SELECT count(*) FROM events") == 298
        assert (
            value(stack_settings, "SELECT count(*) FROM dead_letters WHERE stage = 'loader'") == 3
        )

        execute(stack_settings, "ALTER TABLE events DROP CONSTRAINT odd")
        execute(stack_settings, "ALTER TABLE events ADD CONSTRAINT odd CHECK (id <> 77)")
        done = streamflow(stack_settings, "dlq", "replay", "--apply", "--canary", "0")
        assert done.returncode == 1, done.stdout + done.stderr
        # What is replayed is counted where the replay lies, as its window had counted it before.
        is_counted(304)
        assert value(stack_settings, "SELECT count(*) FROM events") == 300

        execute(stack_settings, "ALTER TABLE events DROP CONSTRAINT odd")
        done = streamflow(stack_settings, "dlq", "replay", "--apply", "--canary", "0")
        assert done.returncode == 0, done.stdout + done.stderr
        is_counted(305)
        assert value(stack_settings, "SELECT count(*) FROM events") == 301
