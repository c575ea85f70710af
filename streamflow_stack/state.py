"""The state directory: what a stack keeps on disk, and who holds it.

lock          held by the running supervisor (flock), contains its pid
run/          pid files, one per part
logs/         one log per part, and up.log of a detached `up`
status.json   the parts as the supervisor last saw them
stack.json    where broker and database listen, with the password (0600), and the streams, while they run
kafka/, postgres/   the data
"""

import contextlib
import fcntl
import json
import os
import shutil
import stat
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import tenacity

from streamflow.errors import StackError
from streamflow.settings import COORDINATES_FILE, Settings

SNAPSHOT_FILE = "status.json"
# Everything that belongs to a stack; `down --purge` removes these and no other file.
ENTRIES = (
    "kafka",
    "postgres",
    "run",
    "logs",
    "dagster",
    "dashboard",
    "produce",
    SNAPSHOT_FILE,
    COORDINATES_FILE,
    "lock",
)


class PartState(StrEnum):
    STARTING = "starting"
    UP = "up"
    NOT_READY = "not ready"
    HUNG = "hung"
    RESTARTING = "restarting"
    STOPPED = "stopped"
    OFF = "off"


@dataclass(frozen=True)
class StateDirectory:
    directory: Path

    @property
    def logs(self) -> Path:
        return self.directory / "logs"

    @property
    def run(self) -> Path:
        return self.directory / "run"

    @property
    def coordinates(self) -> Path:
        return self.directory / COORDINATES_FILE

    @property
    def snapshot(self) -> Path:
        return self.directory / SNAPSHOT_FILE

    def create(self) -> None:
        """Makes the directory. From now on what this process and its children write is for their user
        only, and so is what is there. Raises StackError if it cannot be made or written."""
        try:
            os.fsencode(self.directory).decode()
        except UnicodeDecodeError:
            shown = os.fsencode(self.directory).decode(errors="replace")
            raise StackError(
                f"the path of the state directory is not UTF-8 ({shown}), which Kafka cannot open: "
                "set STREAMFLOW_STATE_DIR to another folder"
            ) from None
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            os.umask(0o077)
            for folder in (self.logs, self.run):
                folder.mkdir(exist_ok=True)
            self._close()
            probe = self.directory / f".probe-{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise StackError(
                f"the state directory {self.directory} cannot be written ({error.strerror}): "
                "set STREAMFLOW_STATE_DIR to a folder of yours"
            ) from error

    def _close(self) -> None:
        """Takes from others what an earlier release has let them read. What a link leads to keeps its
        mode, and so does a directory that holds more than a stack: others may use it."""
        paths = [self.directory / name for name in ENTRIES]
        if {path.name for path in self.directory.iterdir()} <= set(ENTRIES):
            paths.append(self.directory)
        for path in paths:
            passage = path in (self.directory, self.directory / "postgres")
            mode = passage_mode() if passage else 0o700 if path.is_dir() else 0o600
            with contextlib.suppress(FileNotFoundError, PermissionError):
                if not path.is_symlink() and stat.S_IMODE(path.stat().st_mode) & 0o777 & ~mode:
                    path.chmod(mode)

    def write_coordinates(
        self, settings: Settings, streams: Sequence[str], *, database_embedded: bool
    ) -> None:
        """Of a stack with these settings, as `streamflow.settings.sources` reads them, and the names of its
        streams."""
        url = settings.database_url.get_secret_value() if settings.database_url else ""
        content = {
            "kafka_bootstrap_servers": settings.bootstrap,
            "database_url": url,
            "database_embedded": database_embedded,
            "port_offset": settings.port_offset,
            "brokers": settings.brokers,
            "streams": list(streams),
        }
        write_atomically(self.coordinates, json.dumps(content))

    def supervisor_pid(self) -> int | None:
        try:
            with (self.directory / "lock").open("r") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    return int(lock.read().strip() or 0)
        except (OSError, ValueError):
            pass
        return None

    def wait_until_free(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self.supervisor_pid() is not None:
            if time.monotonic() > deadline:
                return False
            # A lock can be waited for without limit or not at all, so it is asked again.
            time.sleep(0.05)
        return True

    def purge(self) -> list[str]:
        """Removes data, logs and everything else of the stack; returns what is left: what is not ours,
        and folders that the user has linked to. Raises StackError if something cannot be removed."""
        left = []
        try:
            for name in ENTRIES:
                path = self.directory / name
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                    continue
                if path.is_dir():
                    left.append(str(path.resolve()))
                path.unlink(missing_ok=True)
            left += sorted(path.name for path in self.directory.iterdir())
            if not left and not self.directory.is_symlink():
                self.directory.rmdir()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StackError(f"{error.filename} cannot be removed: {error.strerror}") from error
        return left


@contextlib.contextmanager
def state_lock(state: StateDirectory) -> Iterator[None]:
    """Holds a state directory for one supervisor; ends with the process at the latest. Raises StackError
    if another supervisor holds it."""
    with (state.directory / "lock").open("a+") as file:
        try:
            # Who asks for the supervisor's pid holds the lock for an instant, too.
            for attempt in tenacity.Retrying(
                retry=tenacity.retry_if_exception_type(BlockingIOError),
                wait=tenacity.wait_fixed(0.02),
                stop=tenacity.stop_after_delay(0.5),
                reraise=True,
            ):
                with attempt:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StackError(already_running(state)) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        try:
            yield
        finally:
            # The file stays: removing it would let two hold it.
            with contextlib.suppress(OSError):
                file.truncate(0)


def state_of(settings: Settings) -> StateDirectory:
    return StateDirectory(settings.state_dir.absolute())


def read_snapshot(directory: Path) -> dict[str, Any]:
    """The supervisor's last snapshot, or nothing.

    Returns:
        ``pid``, ``updated_at`` (seconds since the epoch) and ``parts``, a list of ``name``,
        ``state``, ``pid``, ``restarts``, ``detail``, ``address`` and ``managed``.
    """
    try:
        content = json.loads((directory / SNAPSHOT_FILE).read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def passage_mode() -> int:
    """The mode of a folder above the database's data. Where we are root, PostgreSQL runs as another user,
    who passes through; the data itself is closed to all but that user."""
    return 0o711 if os.geteuid() == 0 else 0o700


def already_running(state: StateDirectory) -> str:
    pid = state.supervisor_pid()
    return (
        f"a stack already runs in {state.directory} (pid {pid or 'unknown'}): see `streamflow "
        "status`, end it with `streamflow down`, or start another one beside it with "
        "STREAMFLOW_STATE_DIR and STREAMFLOW_PORT_OFFSET"
    )


def write_atomically(path: Path, content: str) -> None:
    """Replaces a file, for its owner only, in one step: no reader sees half of it."""
    temporary = path.with_name(f"{path.name}.new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(content)
    temporary.replace(path)
