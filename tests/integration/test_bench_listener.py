"""The benchmark's own client, at a real bridge: what it notes and how it ends."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from faults import free_ports, wait_until
from listeners import bridge_process
from pipeline import environment, event, produce
from streamflow.settings import Settings
from streamflow_bench.listener import CONNECTED, Note, read_notes

pytestmark = pytest.mark.integration

TOKEN = "a token of the tests"


@contextmanager
def listener(
    settings: Settings, port: int, file: Path, **changes: str
) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        [sys.executable, "-m", "streamflow_bench.listener", str(file)],
        env=environment(settings, STREAMFLOW_BRIDGE_PORT=str(port), **changes),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def notes(file: Path) -> list[Note]:
    return read_notes(file.read_bytes()) if file.exists() else []


def noted(file: Path, count: int) -> None:
    wait_until(lambda: len(notes(file)) >= count, 60, f"{count} notes")


def test_it_notes_every_event_in_order_and_says_why_it_ends(
    stack_settings: Settings, tmp_path: Path
) -> None:
    file, log = tmp_path / "notes", tmp_path / "bridge.log"
    with (
        bridge_process(stack_settings, log, STREAMFLOW_BRIDGE_TOKEN=TOKEN) as bridge,
        listener(stack_settings, bridge.port, file, STREAMFLOW_BRIDGE_TOKEN=TOKEN) as client,
    ):
        noted(file, 1)
        # One key, so one partition and one order.
        produce(stack_settings, "user-events", [event(1)])
        noted(file, 2)
        produce(stack_settings, "user-events", [event(number) for number in range(2, 1_002)])
        noted(file, 1_002)
        found = notes(file)
        assert found[0].number == CONNECTED
        assert sorted(number for number, _ in found) == list(range(1_002))
        times = [at for _, at in found]
        assert times == sorted(times)
        bridge.kill()
        assert client.wait(60) == 1
        assert client.stderr is not None
        assert client.stderr.read() == "error: the bridge has closed the connection\n"


def test_it_is_told_what_it_missed(stack_settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "notes"
    # A bridge that holds one record for a client, and gets many at once.
    with (
        bridge_process(
            stack_settings, tmp_path / "bridge.log", STREAMFLOW_BRIDGE_QUEUE="1"
        ) as bridge,
        listener(stack_settings, bridge.port, file),
    ):
        noted(file, 1)
        produce(stack_settings, "user-events", [event(number) for number in range(1, 3_001)])

        def accounted() -> int:
            found = notes(file)
            came = sum(number > CONNECTED for number, _ in found)
            return came - sum(min(number, 0) for number, _ in found)

        wait_until(lambda: accounted() >= 3_000, 60, "all events, had or missed")
        assert accounted() == 3_000
        assert any(number < 0 for number, _ in notes(file))


def test_a_refusal_is_told(stack_settings: Settings, tmp_path: Path) -> None:
    log = tmp_path / "bridge.log"
    with (
        bridge_process(stack_settings, log, STREAMFLOW_BRIDGE_TOKEN=TOKEN) as bridge,
        listener(stack_settings, bridge.port, tmp_path / "notes") as client,
    ):
        assert client.wait(60) == 1
        assert client.stderr is not None
        assert "error: the bridge refuses: " in (said := client.stderr.read())
        assert "the token is missing or wrong" in said
        assert TOKEN not in said


def test_no_bridge_is_told(stack_settings: Settings, tmp_path: Path) -> None:
    [port] = free_ports(1)
    with listener(stack_settings, port, tmp_path / "notes") as client:
        assert client.wait(60) == 1
        assert client.stderr is not None
        assert f"error: the bridge at 127.0.0.1:{port}: " in client.stderr.read()
