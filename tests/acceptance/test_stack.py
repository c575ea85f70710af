"""The real command line: up, status, env, down; crashes of every part, and of the supervisor."""

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from faults import is_running, kill, wait_until
from folders import Folder, free_offset
from streamflow.settings import DEFAULT_PORTS

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]

ALONE = ("producer", "validator", "analytics", "loader", "bridge", "dashboard")
WORKERS = (*ALONE, "dagster-code", "dagster-webserver", "dagster-daemon")
MANAGED = ("kafka", "postgres", *WORKERS)
SERVICES_ONLY = [part for name in (*ALONE, "dagster") for part in ("--without", name)]

MY_STREAMS = """
from dataclasses import replace
from streamflow.streams.user_events import USER_EVENTS

MINE = replace(USER_EVENTS, name="mine")
"""


@pytest.fixture
def folder(tmp_path: Path, _clean_environment: None) -> Iterator[Folder]:
    made = Folder(tmp_path / "project", free_offset())
    yield made
    made.run("down", "--purge")


@pytest.fixture
def beside(tmp_path: Path, _clean_environment: None) -> Iterator[Folder]:
    made = Folder(tmp_path / "beside", free_offset())
    yield made
    made.run("down", "--purge")


def test_up_status_env_down_purge(folder: Folder) -> None:
    # A stream of the user's own is found in his folder; what is called like a library is not.
    (folder.path / "my_streams.py").write_text(MY_STREAMS)
    for library in ("click", "streamlit", "uvicorn"):
        (folder.path / f"{library}.py").write_text("raise RuntimeError('not the library')\n")
    folder.variables["STREAMFLOW_STREAMS"] = "my_streams:MINE"
    shown = folder.up()
    for word in (*MANAGED, "logs", "streamflow down"):
        assert word in shown

    done = folder.run("status", "--json")
    found = json.loads(done.stdout)
    assert done.returncode == 0
    assert {part["name"] for part in found["parts"] if part["state"] == "up"} == set(MANAGED)
    assert all(part["pid"] and part["restarts"] == 0 for part in found["parts"])
    assert set(found["lag"]) == {
        "notification-group",
        "analytics-group",
        "db-group",
        "websocket-bridge",
    }
    assert set(found["rows"]) >= {"events", "window_counts", "notifications", "dead_letters"}
    wait_until(lambda: (folder.status()["rows"]["events"] or 0) > 0, 60, "the first row")

    shell = folder.run("env").stdout
    printed = dict(
        line.removeprefix("export ").split("=", 1) for line in shell.splitlines() if line
    )
    assert printed["KAFKA_BOOTSTRAP_SERVERS"] == f"127.0.0.1:{9092 + folder.port_offset}"
    with psycopg.connect(printed["DATABASE_URL"].strip("'")) as connection:
        assert connection.execute("SELECT current_user").fetchone() == ("streamflow",)
    assert stat.S_IMODE((folder.state / "stack.json").stat().st_mode) == 0o600

    assert folder.run("doctor").returncode == 0

    topics = json.loads(folder.run("topics", "--json").stdout)
    assert "mine" in {each["topic"] for each in topics}
    assert "kafka/mine" in _assets(folder)

    second = folder.run("up")
    assert second.returncode == 1
    assert f"already runs in {folder.state} (pid {folder.supervisor()})" in second.stderr
    assert second.stderr.count("\n") == 1

    running = [process.pid for process in folder.processes()]
    done = folder.run("down", timeout=30)
    assert done.returncode == 0
    assert not [pid for pid in running if is_running(pid)]
    assert not (folder.state / "stack.json").exists()
    assert folder.run("status").returncode == 1
    assert folder.run("env").returncode == 1

    folder.run("down", "--purge")
    assert not folder.state.exists()


def _assets(folder: Folder) -> set[str]:
    """What the code server of Dagster has told the webserver."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{DEFAULT_PORTS['dagster'] + folder.port_offset}/graphql",
        data=json.dumps({"query": "{assetNodes{assetKey{path}}}"}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        found = json.load(answer)["data"]["assetNodes"]
    return {"/".join(each["assetKey"]["path"]) for each in found}


def test_killed_parts_are_started_again(folder: Folder) -> None:
    folder.up()
    # Those that hold data alone: the others must outlive that, and not be started again for it.
    for names in (["kafka"], ["postgres"], [*MANAGED][2:]):
        before = {name: folder.part(name)["pid"] for name in names}
        for pid in before.values():
            kill(pid)

        def are_back(before: dict[str, int] = before) -> bool:
            parts = [(folder.part(name), pid) for name, pid in before.items()]
            # One that is back before a part that it needs may end and be started once more.
            return all(
                part["restarts"] >= 1 and part["state"] == "up" and part["pid"] != pid
                for part, pid in parts
            )

        # Nine programs start together here, on cores that other tests use too.
        wait_until(are_back, 240, f"{', '.join(names)} to be up again")
    wait_until(lambda: folder.run("status").returncode == 0, 60, "all parts to be up")


def test_a_killed_supervisor_leaves_nothing_and_up_works_again(folder: Folder) -> None:
    folder.up(*SERVICES_ONLY)
    with psycopg.connect(_url(folder)) as connection:
        connection.execute("CREATE TABLE kept (number integer)")
    children = [process.pid for process in folder.processes()]
    kill(folder.supervisor())
    wait_until(lambda: not [pid for pid in children if is_running(pid)], 20, "the parts' end")
    assert folder.run("status").returncode == 1

    assert "a crashed run left it" in folder.up(*SERVICES_ONLY)

    with psycopg.connect(_url(folder)) as connection:
        connection.execute("SELECT * FROM kept")


def test_a_taken_port_is_named_and_stacks_work_side_by_side(
    folder: Folder, beside: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = DEFAULT_PORTS["kafka"] + folder.port_offset
    with socket.create_server(("127.0.0.1", port)):
        done = folder.run("up", "--detach", *SERVICES_ONLY)
    assert done.returncode == 1
    assert f"port {port} (kafka) is taken by" in done.stderr
    assert f"pid {os.getpid()}" in done.stderr
    assert "STREAMFLOW_PORT_OFFSET" in done.stderr

    folder.up(*SERVICES_ONLY)
    beside.up(*SERVICES_ONLY)
    assert _url(folder) != _url(beside)
    folder.run("down")
    assert beside.run("status").returncode == 0

    # A broker and a database that are given are used, and none is started.
    bootstrap = f"127.0.0.1:{9092 + beside.port_offset}"
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", bootstrap)
    monkeypatch.setenv("DATABASE_URL", _url(beside))
    folder.up(*SERVICES_ONLY)
    assert folder.processes() == []
    found = folder.status()
    states = {part["name"]: (part["state"], part["managed"]) for part in found["parts"]}
    assert states["kafka"] == states["postgres"] == ("up", False)


def test_ctrl_c_ends_all_in_order(folder: Folder) -> None:
    log = folder.path / "output"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "streamflow_cli.app", "up", *SERVICES_ONLY],
            cwd=folder.path,
            env=folder.environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    wait_until(lambda: "next " in log.read_text(), 120, "the first screen")
    children = [child.pid for child in psutil.Process(process.pid).children()]
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(20) == 0
    assert not [pid for pid in children if is_running(pid)]


def test_ctrl_c_while_starting_leaves_nothing(folder: Folder) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "streamflow_cli.app", "up", *SERVICES_ONLY],
        cwd=folder.path,
        env=folder.environment,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    wait_until((folder.state / "run" / "kafka.json").exists, 60, "the broker's start")
    [kafka] = wait_until(lambda: psutil.Process(process.pid).children(), 10, "a child")[:1]
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    assert not is_running(kafka.pid)


def test_a_full_disk_is_said_before_the_start(folder: Folder) -> None:
    code = (
        "import shutil, sys, collections; "
        "usage = collections.namedtuple('usage', 'total used free'); "
        "shutil.disk_usage = lambda _: usage(10, 10, 0); "
        "from streamflow_cli.app import main; sys.argv[1:] = ['up']; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder.path,
        env=folder.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: the disk of")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_state_directory_that_cannot_be_written_is_named(folder: Folder) -> None:
    folder.path.chmod(0o500)
    done = folder.run("up")
    folder.path.chmod(0o700)
    assert done.returncode == 1
    assert "cannot be written" in done.stderr


def test_a_state_path_that_is_a_file_is_named(folder: Folder) -> None:
    folder.state.write_text("")
    done = folder.run("up")
    folder.state.unlink()
    assert done.returncode == 1
    assert "STREAMFLOW_STATE_DIR" in done.stderr


def test_purge_leaves_what_is_not_of_the_stack(folder: Folder) -> None:
    folder.state.mkdir()
    (folder.state / "mine").write_text("precious")
    (folder.state / "kafka").mkdir()
    assert "mine" in folder.run("down", "--purge").stdout
    assert (folder.state / "mine").exists()
    assert not (folder.state / "kafka").exists()
    shutil.rmtree(folder.state)


def test_an_unknown_part_is_a_usage_error(folder: Folder) -> None:
    done = folder.run("up", "--without", "nobody")
    assert done.returncode == 2
    assert "there is no part named nobody" in done.stderr


def _url(folder: Folder) -> str:
    return str(json.loads((folder.state / "stack.json").read_text())["database_url"])
