"""An older dump of PostgreSQL beside a Kafka that went on: the short form of `tests/chaos/test_backup.py`, by
the commands of `docs/backup.md` that touch the database."""

from pathlib import Path

import pytest

from faults import wait_until
from pipeline import audit, count, environment, events, folder, produce, workers
from runbook import commands, run_commands
from streamflow.erasure import erase
from streamflow.postgres.forgotten import Kind
from streamflow.registry import load_streams
from streamflow.settings import Settings

pytestmark = [
    pytest.mark.integration,
    pytest.mark.chaos,
    pytest.mark.usefixtures("exact_row_counts"),
]

PAGE = "docs/backup.md"
# It runs with its owner's rights.
OPEN_TO_ALL = (
    "SELECT count(*) FROM pg_proc WHERE proname = 'create_day_partition'"
    " AND has_function_privilege('public', oid, 'EXECUTE')"
)


def follow(heading: str, settings: Settings, path: Path) -> None:
    """Runs what the page shows, but for the commands on a whole stack."""
    lines = [
        line
        for line in commands(PAGE, heading)[0]
        if "streamflow " not in line and ".streamflow" not in line and line != "servers"
    ]
    assert any("$DATABASE_URL" in line for line in lines)
    execute(lines, settings, path)


def execute(lines: list[str], settings: Settings, path: Path) -> None:
    [tools] = commands(PAGE, "Tools")
    run_commands([*tools, *lines], path, environment(settings))


def test_an_older_dump_beside_kafka_is_exact_again(
    stack_settings: Settings, tmp_path: Path
) -> None:
    """And who was forgotten since the dump stays so, by `docs/privacy.md`."""
    valid, invalid = events(300, invalid=0.1)[0], events(300, invalid=0.1, seed=2)[0]
    stored = "SELECT count(*) FROM events"
    accounted = f"SELECT ({stored}) + (SELECT count(*) FROM dead_letters)"
    theirs = f"{stored} WHERE \"user\" = 'user-12'"
    save_list, restore_list = commands("docs/privacy.md", "Restoring a backup")
    with workers(stack_settings, folder(tmp_path, "before")) as running:
        produce(stack_settings, "user-events", valid)
        wait_until(lambda: count(stack_settings, accounted) == 300, 60, "the first events")
        follow("Back up", stack_settings, tmp_path)
        produce(stack_settings, "user-events", invalid)
        wait_until(lambda: count(stack_settings, accounted) == 600, 60, "the others")
        before = count(stack_settings, stored)
        assert count(stack_settings, theirs) == 2
        streams = load_streams(stack_settings)
        subject = erase.parse_subject(stack_settings, streams, Kind.USER, "user-12")
        erase.apply(stack_settings, streams, subject, requested_by="tests")
        assert [worker.stop() for worker in running.values()] == [0, 0, 0]
    execute(save_list, stack_settings, tmp_path)
    follow("PostgreSQL is lost", stack_settings, tmp_path)
    assert count(stack_settings, accounted) == 300
    assert count(stack_settings, OPEN_TO_ALL) == 0
    assert count(stack_settings, theirs) == 1
    execute(restore_list, stack_settings, tmp_path)
    assert count(stack_settings, theirs) == 0
    with workers(stack_settings, folder(tmp_path, "after")):
        report = audit(stack_settings)
    assert report.closed, report
    assert count(stack_settings, accounted) == 600
    assert count(stack_settings, stored) == before
    identities = "SELECT count(DISTINCT (origin_partition, origin_offset)) FROM events"
    assert count(stack_settings, identities) == before
    assert count(stack_settings, theirs) == 0
