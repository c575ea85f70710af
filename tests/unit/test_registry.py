"""Modules of the user's own: found in the current folder, and never in place of a library."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from order_streams import ORDERS
from streamflow.dead_letters.repairs import known_repairs
from streamflow.errors import UsageError
from streamflow.registry import load_streams, stream_named
from streamflow.settings import Settings, load_settings
from streamflow.streams.user_events import USER_EVENTS
from streamflow.user_code import import_named
from streamflow_cli import stack
from streamflow_stack import lifecycle, parts
from streamflow_stack.process import own_command
from streamflow_stack.state import StateDirectory

OWN = """
from dataclasses import replace
from streamflow.dead_letters.repairs import repair
from streamflow import Topics
from streamflow.streams.user_events import USER_EVENTS

ORDERS = replace(USER_EVENTS, name="orders")
QUIET = replace(USER_EVENTS, name="quiet", simulate=None)
FOREIGN = replace(USER_EVENTS, name="foreign", topics=Topics(managed=False))

@repair("upper_type", "Writes the type in capitals.")
def upper_type(document, stream, hasher):
    return {**document, "type": document["type"].upper()}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current one: with a stream of the user's own, and with what is called like a library."""
    (tmp_path / "my_own_streams.py").write_text(OWN)
    for name in ("click", "colorsys", "typer"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('this is not the library')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each])
    return tmp_path


def test_streams_and_repairs_are_found_in_the_current_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("STREAMFLOW_STREAMS", "my_own_streams:ORDERS")
    monkeypatch.setenv("STREAMFLOW_REPAIRS", "my_own_streams")
    settings = load_settings()
    assert [stream.name for stream in load_streams(settings)] == ["orders"]
    assert "upper_type" in known_repairs(settings)


@pytest.mark.parametrize(
    ("stream", "without"), [("ORDERS", []), ("QUIET", []), ("FOREIGN", ["producer"])]
)
def test_up_starts_a_producer_unless_it_had_nothing_to_send(
    stream: str, without: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMFLOW_STREAMS", f"my_own_streams:{stream}")
    asked_for: list[list[str]] = []
    monkeypatch.setattr(lifecycle, "up", lambda _, order, __: asked_for.append(order.without))
    stack.up(detach=False, without=None, brokers=None)
    assert asked_for == [without]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (
            "ordres",
            "no stream is called ordres: did you mean orders? Configured: user-events, orders",
        ),
        ("xyz", "no stream is called xyz. Configured: user-events, orders"),
    ],
)
def test_an_unknown_stream_is_answered_with_those_that_there_are(name: str, says: str) -> None:
    streams = (USER_EVENTS, ORDERS)
    assert stream_named(streams, "orders") is ORDERS
    with pytest.raises(UsageError, match=f"^{re.escape(says)}$"):
        stream_named(streams, name)


def test_a_library_comes_before_the_current_folder() -> None:
    assert hasattr(import_named("colorsys"), "rgb_to_hsv")


def test_our_processes_do_not_import_what_lies_in_the_current_folder() -> None:
    done = subprocess.run(
        own_command("--version"), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.startswith("streamflow "), done.stderr


def test_every_part_is_started_so(folder: Path) -> None:
    settings = Settings(
        KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1",
        DATABASE_URL="postgresql://127.0.0.1:1/none",
        STREAMFLOW_STATE_DIR=folder,
    )
    ours = parts.plan(settings, StateDirectory(folder), {})
    commands = [part.launch().command for part in ours if part.launch is not None]
    assert len(commands) == 9
    assert {command[:2] for command in commands} == {(sys.executable, "-P")}
    # Every stream, each with its own events.
    assert [command[4:6] for command in commands if "produce" in command] == [("produce", "--all")]
    # By module, but for the one that has only a script.
    scripts = [Path(command[2]) for command in commands if command[2] != "-m"]
    assert [script.name for script in scripts] == ["dagster-daemon"]
    assert scripts[0].exists()
