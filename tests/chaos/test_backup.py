"""The runbook docs/backup.md, command by command: whatever is lost, what it promises is there afterwards."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from faults import wait_until
from folders import Folder, free_offset
from pipeline import events
from runbook import commands, run_commands

pytestmark = [pytest.mark.acceptance, pytest.mark.chaos, pytest.mark.timeout(1500)]

PAGE = "docs/backup.md"
# Without a simulation, so that `streamflow up` starts no producer and all events are ours.
STREAMS = """
from dataclasses import replace
from quick_windows import USER_EVENTS

USER_EVENTS = replace(USER_EVENTS, simulate=None)
"""
IDS = "SELECT id, count(*) FROM events GROUP BY 1"


@pytest.fixture
def folder(tmp_path: Path, _clean_environment: None) -> Iterator[Folder]:
    made = Folder(tmp_path / "project", free_offset())
    (made.path / "my_streams.py").write_text(STREAMS)
    made.variables |= {
        "STREAMFLOW_STREAMS": "my_streams:USER_EVENTS",
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }
    yield made
    made.run("down", "--purge")


def follow(folder: Folder, heading: str) -> list[str]:
    """Runs the blocks under a heading; returns what each prints. An audit that is a block of its own is to
    be read: it may name losses, which the next block acknowledges."""
    [tools] = commands(PAGE, "Tools")
    return [
        run_commands(
            [*tools, *block],
            folder.path,
            folder.environment,
            codes=(0, 1) if block == ["streamflow audit --wait 120"] else (0,),
        )
        for block in commands(PAGE, heading)
    ]


def query(folder: Folder, text: str) -> list[tuple[int, ...]]:
    shell = run_commands(
        ['eval "$(streamflow env)"', 'echo "$DATABASE_URL"'], folder.path, folder.environment
    )
    with psycopg.connect(shell.strip()) as connection:
        return connection.execute(text.encode()).fetchall()


def send(folder: Folder, first: int, count: int) -> None:
    """Events with the ids from `first` on."""
    file = folder.path / f"{first}.ndjson"
    lines = events(first + count, seed=first)[0][first:]
    file.write_bytes(b"".join(line + b"\n" for line in lines))
    done = folder.run("produce", "--from", file.name)
    assert done.returncode == 0, done.stdout + done.stderr


def wait_loaded(folder: Folder, ids: set[int]) -> None:
    """Each is there, once, and no other: by plain SQL."""
    wait_until(lambda: len(query(folder, IDS)) >= len(ids), 120, "all events to be loaded")
    rows = query(folder, IDS)
    assert {number for number, _ in rows} == ids
    assert {times for _, times in rows} <= {1}


def test_whatever_is_lost_the_runbook_brings_back_what_it_promises(folder: Folder) -> None:
    folder.up()
    send(folder, 0, 500)
    wait_loaded(folder, set(range(500)))
    follow(folder, "Back up")
    assert (folder.path / "backup/streamflow.dump").stat().st_mode & 0o077 == 0

    # PostgreSQL older than Kafka: loaded since the dump, and again; or never yet.
    send(folder, 500, 500)
    wait_loaded(folder, set(range(1000)))
    folder.run("down")
    _, audited, counted = follow(folder, "PostgreSQL is lost")
    assert "The ledger closes" in audited
    assert counted.strip() == "1000|1000"
    wait_loaded(folder, set(range(1000)))

    # Kafka: what was loaded stays, and what comes is new.
    follow(folder, "Kafka is lost")
    wait_loaded(folder, set(range(1000)))
    send(folder, 1000, 500)
    wait_loaded(folder, set(range(1500)))
    assert folder.run("audit", "--wait", "60").returncode == 0

    # Both: as at the dump, and what comes is new.
    follow(folder, "Back up")
    send(folder, 1500, 500)
    wait_loaded(folder, set(range(2000)))
    follow(folder, "Both are lost")
    wait_loaded(folder, set(range(1500)))
    send(folder, 2000, 500)
    wait_loaded(folder, {*range(1500), *range(2000, 2500)})
    assert folder.run("audit", "--wait", "60").returncode == 0
    topics = query(folder, "SELECT count(DISTINCT origin_topic) FROM events")
    assert topics == [(3,)]
