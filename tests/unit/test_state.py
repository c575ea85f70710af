"""The state directory: closed to others, held by one supervisor, and purged without a trace."""

import errno
import fcntl
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from streamflow.errors import StackError
from streamflow.settings import Settings
from streamflow_cli.stack import ConsoleReport
from streamflow_stack import lifecycle
from streamflow_stack.known_streams import unknown_note, unknown_streams
from streamflow_stack.state import ENTRIES, StateDirectory, state_lock


@pytest.fixture(autouse=True)
def _umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(params=[0, 1000], ids=["root", "user"])
def passage(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """The mode of a folder that leads to the database: where we are root, PostgreSQL runs as another
    user, and passes through to its own."""
    expected = 0o700 if request.param else 0o711
    monkeypatch.setattr(os, "geteuid", lambda: request.param)
    return expected


def test_what_an_earlier_release_has_let_others_read_is_closed(
    tmp_path: Path, passage: int
) -> None:
    tmp_path.chmod(0o755)
    for name in ("kafka", "logs", "dashboard", "dagster", "postgres"):
        (tmp_path / name).mkdir()
    (tmp_path / "status.json").touch()
    StateDirectory(tmp_path).create()
    (tmp_path / "logs" / "kafka.log").touch()
    assert mode(tmp_path / "logs" / "kafka.log") == 0o600
    assert mode(tmp_path / "status.json") == 0o600
    assert {mode(tmp_path / name) for name in ("kafka", "logs", "run", "dashboard", "dagster")} == {
        0o700
    }
    assert (mode(tmp_path), mode(tmp_path / "postgres")) == (passage, passage)


def test_a_new_directory_is_closed(tmp_path: Path, passage: int) -> None:
    StateDirectory(tmp_path / "new").create()
    assert mode(tmp_path / "new") == passage


def test_what_is_linked_or_shared_keeps_its_mode(tmp_path: Path) -> None:
    state, link = tmp_path / "state", tmp_path / "link"
    folders = [tmp_path / name for name in ("ssd", "log", "disk")]
    for folder in (state, *folders):
        folder.mkdir(mode=0o755)
    for name, folder in zip(("kafka", "logs", "postgres"), folders, strict=True):
        (state / name).symlink_to(folder)
    (state / "mine").touch()
    link.symlink_to(folders[2])
    StateDirectory(state).create()
    StateDirectory(link).create()
    assert {mode(folder) for folder in (state, *folders)} == {0o755}


def test_a_linked_directory_is_emptied_and_kept(tmp_path: Path) -> None:
    link, disk = tmp_path / "link", tmp_path / "disk"
    disk.mkdir()
    link.symlink_to(disk)
    StateDirectory(link).create()
    for name in ENTRIES[:2]:
        (link / name).mkdir()
    assert StateDirectory(link).purge() == []
    assert link.is_symlink()
    assert list(disk.iterdir()) == []


def test_a_linked_folder_of_data_is_not_emptied_but_named(tmp_path: Path) -> None:
    state, disk = tmp_path / "state", tmp_path / "disk"
    for folder in (state, disk):
        folder.mkdir()
    (disk / "1").touch()
    (state / "kafka").symlink_to(disk)
    assert StateDirectory(state).purge() == [str(disk)]
    assert (disk / "1").exists()
    assert not (state / "kafka").is_symlink()


def test_the_directory_of_another_user_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(run: Path) -> Iterator[str]:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(run))

    monkeypatch.setattr(lifecycle, "end_leftovers", refused)
    settings = Settings(STREAMFLOW_STATE_DIR=tmp_path)
    with pytest.raises(StackError, match=r"run may not be written .*another user"):
        lifecycle.down(settings, purge=False, report=ConsoleReport(Console()))


def test_a_path_that_kafka_cannot_open_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StackError, match=r"not UTF-8 \(.*\), .*STREAMFLOW_STATE_DIR"):
        StateDirectory(tmp_path / os.fsdecode(b"\xfc")).create()


@pytest.fixture
def state(tmp_path: Path) -> StateDirectory:
    made = StateDirectory(tmp_path)
    made.create()
    return made


def test_one_that_asks_for_the_pid_is_no_supervisor(state: StateDirectory) -> None:
    with (state.directory / "lock").open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        release = threading.Timer(0.1, fcntl.flock, (file, fcntl.LOCK_UN))
        release.start()
        with state_lock(state):
            assert state.supervisor_pid() is not None
        release.join()


def test_streams_that_the_running_stack_does_not_know_are_named_in_one_sentence(
    state: StateDirectory,
) -> None:
    settings = Settings(STREAMFLOW_STATE_DIR=state.directory)
    state.write_coordinates(settings, ["mine"], database_embedded=False)
    assert unknown_note(settings, ["mine", "later"]) is None  # nothing runs
    with state_lock(state):
        assert unknown_note(settings, ["mine"]) is None
        only = "unknown to the running stack, which knows only the streams that were declared"
        assert str(unknown_note(settings, ["a", "mine", "b"])).startswith(
            f"streams a, b are {only}"
        )
        each = unknown_streams(settings, ["a", "mine", "b"])
    assert list(each) == ["a", "b"]
    assert each["b"].startswith(f"stream b is {only}")


def test_a_second_supervisor_is_refused(state: StateDirectory) -> None:
    with state_lock(state), pytest.raises(StackError, match="already runs"), state_lock(state):
        pass
