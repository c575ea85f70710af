"""The real command line: up, status, env, down; crashes of every part, and of the supervisor."""

import contextlib
import itertools
import json
import os
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import psutil
import psycopg
import pytest
import requests
from pydantic import SecretStr

from faults import is_running, kill, wait_until
from folders import Folder, free_offset
from streamflow.settings import DEFAULT_PORTS
from streamflow.settings.platform import all_fields
from streamflow_stack import jars

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
MORE_STREAMS = """
from dataclasses import replace
from streamflow.streams.user_events import USER_EVENTS

LATER = replace(USER_EVENTS, name="later", table="later", rollups=())
"""


PROXIES = [f"{word}_proxy" for word in ("http", "https", "all", "grpc")]
# What other programs want, and what once reached our own: each part that it reaches does not start.
HOSTILE = {
    **dict.fromkeys((*PROXIES, *map(str.upper, PROXIES)), "http://127.0.0.1:9"),
    "LC_ALL": "tr_TR.UTF-8",
    "PGSSLMODE": "require",
    "PGSERVICE": "unknown",
    "PGHOSTADDR": "127.0.0.2",
    "PGOPTIONS": "-c search_path=nowhere",
    "PGDATESTYLE": "unknown",
    "JAVA_TOOL_OPTIONS": "-Duser.language=tr -Xmx2m",
    "STREAMLIT_SERVER_BASE_URL_PATH": "elsewhere",
    "STREAMLIT_SERVER_ADDRESS": "192.0.2.1",
}
# Where we are root, PostgreSQL runs as another user, who passes through these two.
PASSAGES = {".": 0o711, "postgres": 0o711} if os.geteuid() == 0 else {}
ODD_NAME = "pröject, a\\b #1="


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


@pytest.fixture
def odd_folder(tmp_path: Path, _clean_environment: None) -> Iterator[Folder]:
    """A folder whose name means something to Kafka, log4j and Java, in a hostile environment."""
    jars.class_path(lambda _done, _total: None)  # past the proxies below
    made = Folder(tmp_path / ODD_NAME, free_offset())
    made.variables |= HOSTILE
    yield made
    made.run("down", "--purge")


def test_up_status_env_down_purge(odd_folder: Folder, tmp_path: Path) -> None:
    folder = odd_folder
    (folder.path / ".streamlit").mkdir()
    (folder.path / ".streamlit" / "config.toml").write_text('[server]\nbaseUrlPath = "elsewhere"\n')
    # A stream of the user's own is found in his folder; what is called like a library is not.
    (folder.path / "my_streams.py").write_text(MY_STREAMS)
    (folder.path / "more_streams.py").write_text(MORE_STREAMS)
    for library in ("click", "streamlit", "uvicorn"):
        (folder.path / f"{library}.py").write_text("raise RuntimeError('not the library')\n")
    folder.variables["STREAMFLOW_STREAMS"] = "my_streams:MINE"
    files = set(tmp_path.rglob("*"))
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

    dashboard = f"http://127.0.0.1:{DEFAULT_PORTS['dashboard'] + folder.port_offset}/"
    with urllib.request.urlopen(dashboard, timeout=60) as answer:
        assert answer.status == 200
    assert _open_to_others(folder.state) == PASSAGES

    shell = folder.run("env").stdout
    printed = dict(shlex.split(line)[1].split("=", 1) for line in shell.splitlines())
    assert printed["KAFKA_BOOTSTRAP_SERVERS"] == f"127.0.0.1:{9092 + folder.port_offset}"
    with psycopg.connect(printed["DATABASE_URL"]) as connection:
        assert connection.execute("SELECT current_user").fetchone() == ("streamflow",)
    found = folder.run("doctor")
    assert (found.returncode, found.stdout.count("Picked up")) == (0, 0), found.stdout

    # The embedded database's administrator creates the roles that the owner may not.
    assert folder.run("db", "roles", "--apply").returncode == 0

    assert "mine" in {each["topic"] for each in json.loads(folder.run("topics", "--json").stdout)}
    assert "kafka/mine" in _assets(folder)

    _require_running_already(folder)

    _require_unknown(folder)
    wait_until(lambda: folder.run("audit").returncode == 0, 60, "a closed ledger")

    running = [process.pid for process in folder.processes()]
    done = folder.run("down", timeout=30)
    assert done.returncode == 0
    assert not [pid for pid in running if is_running(pid)]
    assert not (folder.state / "stack.json").exists()
    assert folder.run("status").returncode == 1
    assert folder.run("env").returncode == 1

    # As after `eval "$(streamflow env)"`.
    folder.variables |= {**printed, **BOTH}
    folder.up(*SERVICES_ONLY)
    found = folder.status()
    assert {part["managed"] for part in found["parts"][:2]} == {True}
    assert found["failed_streams"] == []

    assert folder.run("down", "--purge").returncode == 0
    left = set(tmp_path.rglob("*")) - files
    assert [path for path in left if "__pycache__" not in path.parts] == []


def _require_running_already(folder: Folder) -> None:
    second = folder.run("up")
    assert second.returncode == 1
    assert f"already runs in {folder.state} (pid {folder.supervisor()})" in second.stderr
    assert second.stderr.count("\n") == 1


BOTH = {"STREAMFLOW_STREAMS": "my_streams:MINE,more_streams:LATER"}


def _require_unknown(folder: Folder) -> None:
    """A stream that was declared when the stack was running already: every command says what to do."""
    before = dict(folder.variables)
    folder.variables |= BOTH
    unknown = (
        "stream later is unknown to the running stack, which knows only the streams that were declared when "
        "it started (mine): run `streamflow down`, then `streamflow up`"
    )
    status = folder.status()
    assert status["failed_streams"] == [unknown]
    assert status["unknown"] == ["rows: the database has no later: run `streamflow init`"]
    assert (status["rows"]["later"], status["lag"]["db-group"]) == (None, 0)
    checked = json.loads(folder.run("check", "--json", "later").stdout)
    assert (checked["good"], checked["notes"]) == (True, [unknown])
    produce = ("produce", "--stream", "later", "--count", "1")
    assert folder.run(*produce).stderr.endswith(f"error: {unknown}\n")
    done = folder.run("init")
    assert (done.returncode, done.stderr) == (0, f"warning: {unknown}\n")
    mine, later = done.stdout.split("stream later\n")
    assert mine.splitlines()[:2] == ["stream mine", "  topic mine is there"]
    assert mine.splitlines()[-1] == "  table events is there"
    assert later.splitlines()[0] == "  topic later was created"
    assert later.splitlines()[-2:] == [
        "  table later was created",
        "topics and schema are in place",
    ]
    done = folder.run(*produce)
    assert done.returncode == 0
    assert f"warning: {unknown}\n" in done.stderr
    # A worker that is restarted has the streams of the stack, too.
    restarts = folder.part("loader")["restarts"]
    kill(folder.part("loader")["pid"])
    wait_until(
        lambda: (
            (folder.part("loader")["restarts"], folder.part("loader")["state"])
            == (restarts + 1, "up")
        ),
        60,
        "the loader to be up again",
    )
    status = folder.status()
    assert (status["failed_streams"], status["rows"]["later"]) == ([unknown], 0)
    folder.variables = before


def _open_to_others(directory: Path) -> dict[str, int]:
    """What others than the owner may read, write or enter, with its mode."""
    modes = {}
    for path in (directory, *directory.rglob("*")):
        with contextlib.suppress(FileNotFoundError):
            modes[str(path.relative_to(directory))] = stat.S_IMODE(path.lstat().st_mode)
    return {path: mode for path, mode in modes.items() if mode & 0o077}


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


@pytest.mark.timeout(600)
def test_killed_parts_are_started_again_and_nothing_tells_a_secret(folder: Folder) -> None:
    """Secrets stand in no file, command line or answer, also of a stack in which parts fail."""
    planted = _secrets()
    folder.variables |= planted
    folder.variables |= {"STREAMFLOW_DASHBOARD_SIGN_IN": "token", "STREAMFLOW_ALERT_FOR": "0"}
    said = [folder.up()]
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

    words = {name: value.rpartition("/")[2] for name, value in planted.items()}
    words["password"] = _url(folder).partition("@")[0].rpartition(":")[2]
    of_others = Folder(folder.path, folder.port_offset)
    for name in ("DATABASE_URL", "STREAMFLOW_DAGSTER_DATABASE_URL"):
        words[name] = f"planted-{name}"
        of_others.variables[name] = f"postgresql://ann:{words[name]}@127.0.0.1:9/x"
    for asked, command in itertools.product((folder, of_others), ("status", "doctor", "topics")):
        done = asked.run(command, *(["--json"] if command != "doctor" else []))
        said += [done.stdout, done.stderr]
    found = _told(folder, {name: word.encode() for name, word in words.items()}, said)
    own = {str(folder.state / name) for name in ("stack.json", "postgres/credentials.json")}
    assert found == {path: ["password"] for path in own}


def _secrets() -> dict[str, str]:
    """A word of its own for every setting that is a secret, but for those that name a database to use."""
    names = [
        name
        for name, field in all_fields().items()
        if SecretStr in get_args(field.annotation) and "DATABASE_URL" not in name
    ]
    assert len(names) > 6
    planted = {name: f"planted-{name}" for name in names}
    # Nothing listens there, so that what is sent fails.
    return planted | {"STREAMFLOW_WEBHOOK_URL": "http://127.0.0.1:9/planted-STREAMFLOW_WEBHOOK_URL"}


def _told(folder: Folder, words: dict[str, bytes], said: list[str]) -> dict[str, list[str]]:
    """Which of the words stand where: in command lines, in what commands have printed, in files."""
    places = {f"output {number}": text.encode() for number, text in enumerate(said)}
    for process in psutil.process_iter(["cmdline"]):
        places[f"process {process.pid}"] = " ".join(process.info["cmdline"] or ()).encode()
    for path in folder.state.rglob("*"):
        # Files come and go; others are sockets.
        with contextlib.suppress(OSError):
            if path.is_file():
                places[str(path)] = path.read_bytes()
    found = {
        place: [name for name, word in words.items() if word in content]
        for place, content in places.items()
    }
    return {place: names for place, names in found.items() if names}


def test_a_killed_supervisor_leaves_nothing_and_up_works_again(
    folder: Folder, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    folder.state.symlink_to(disk)
    folder.up(*SERVICES_ONLY)
    with psycopg.connect(_url(folder)) as connection:
        connection.execute("CREATE TABLE kept (number integer)")
    children = [process.pid for process in folder.processes()]
    # What migrating takes, 20 MB, was another process's.
    assert "sqlalchemy" not in Path(f"/proc/{folder.supervisor()}/maps").read_text()
    kill(folder.supervisor())
    wait_until(lambda: not [pid for pid in children if is_running(pid)], 20, "the parts' end")
    assert folder.run("status").returncode == 1

    assert "a crashed run left it" in folder.up(*SERVICES_ONLY)

    with psycopg.connect(_url(folder)) as connection:
        connection.execute("SELECT * FROM kept")

    done = folder.run("down", "--purge")
    assert (done.returncode, done.stderr) == (0, "")
    assert folder.state.is_symlink()
    assert list(disk.iterdir()) == []


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


def test_events_are_taken_by_http_if_that_is_enabled(folder: Folder) -> None:
    assert "ingest" not in folder.up(*SERVICES_ONLY)
    folder.run("down")
    folder.variables["STREAMFLOW_INGEST_ENABLED"] = "true"
    assert "(HTTP)" in folder.up(*SERVICES_ONLY)
    [part] = [part for part in folder.status()["parts"] if part["name"] == "ingest"]
    assert part["state"] == "up"
    port = DEFAULT_PORTS["ingest"] + folder.port_offset
    event = {"id": 1, "type": "USER_LOGIN", "user": "ann", "timestamp": "2026-03-01T12:00:00Z"}

    def sent() -> requests.Response:
        url = f"http://127.0.0.1:{port}/v1/streams/user-events"
        return requests.post(url, json=event, headers={"Idempotency-Key": "k"}, timeout=60)

    first = sent()
    assert (first.status_code, first.json()["accepted"]) == (200, 1)
    # Killed and started again, it knows the key.
    kill(part["pid"])
    wait_until(
        lambda: any(
            one["name"] == "ingest" and one["state"] == "up" and one["restarts"] == 1
            for one in folder.status()["parts"]
        ),
        60,
        "the part to be up again",
    )
    again = sent()
    assert (again.json(), again.headers["idempotency-replayed"]) == (first.json(), "true")


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
