"""Child processes that end with their parent, and pid files that prove whose a process is."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil

from streamflow.errors import StackError
from streamflow_stack.account import Account

LOG_LIMIT_BYTES = 20_000_000
LEFTOVER_SECONDS = 10.0
ORPHAN_SECONDS = 3.0
# psutil derives a process's start from the boot time, which moves a little with the clock.
CREATE_TIME_TOLERANCE_SECONDS = 2.0

# Most specific first: the system's own reason, then what the program calls an error.
_REASONS = (
    re.compile(r"already in use|No space left|Permission denied|Cannot allocate|OutOfMemory"),
    re.compile(r"\b(ERROR|FATAL|PANIC|error)\b"),
    re.compile(r"\w"),
)
# A frame of a Java stack trace, and what the JVM says of variables such as JAVA_TOOL_OPTIONS.
_NO_REASON = re.compile(r"\s+(at \S+\(|\.\.\. \d+ )|Picked up ")
_LAUNCHER = Path(__file__).with_name("tied_exec.py")


@dataclass(frozen=True)
class Launch:
    command: tuple[str, ...]  # never with a secret: everyone can read it in ``ps``
    log: Path  # for standard output and error
    environment: Mapping[str, str] = field(default_factory=dict)
    inherits: bool = True  # whether `environment` is added to ours, or is all that there is
    directory: Path | None = None
    own_log: Path | None = None  # log that the program writes itself, if it says more
    account: Account | None = None  # user to run as, if not the current one
    stop_signal: signal.Signals = signal.SIGTERM


def own_command(*arguments: str, module: str = "streamflow_cli.app") -> tuple[str, ...]:
    """A command line of ours, or of a library's module. Modules in the current folder do not shadow
    what it imports."""
    return (sys.executable, "-P", "-m", module, *arguments)


def wrap(launch: Launch) -> list[str]:
    """The command line that ties the process to this one before it becomes the program."""
    options = {
        "parent": os.getpid(),
        "death_signal": int(launch.stop_signal),
        **(asdict(launch.account) if launch.account else {}),
    }
    return [sys.executable, "-I", "-S", str(_LAUNCHER), json.dumps(options), *launch.command]


def environment_of(launch: Launch) -> dict[str, str]:
    return {**(os.environ if launch.inherits else {}), **launch.environment}


class Child:
    """A running child process. Start it from the main thread: it ends with the thread that started it."""

    def __init__(self, name: str, launch: Launch, pid_file: Path) -> None:
        """Raises StackError if log or pid file cannot be written, or the program cannot be run."""
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("a child would end with the thread that started it")
        self.name = name
        self.launch = launch
        self._pid_file = pid_file
        try:
            launch.log.parent.mkdir(parents=True, exist_ok=True)
            _rotate(launch.log)
            # What is in the logs already is of an earlier run.
            self._read_from = {log: _size(log) for log in (launch.own_log, launch.log) if log}
            with launch.log.open("ab") as log:
                self._process = subprocess.Popen(  # noqa: S603 (our own command)
                    wrap(launch),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=launch.directory,
                    env=environment_of(launch),
                    # Ctrl-C must reach the supervisor only: it ends the parts in order.
                    start_new_session=True,
                )
            self.pid = self._process.pid
            write_pid_file(pid_file, name, self.pid, launch.stop_signal)
        except OSError as error:
            raise StackError(f"{name} cannot be started: {error}") from error

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self._process.poll()

    def ask_to_stop(self) -> None:
        if self.poll() is None:
            self._process.send_signal(self.launch.stop_signal)

    def wait(self, seconds: float) -> bool:
        try:
            self._process.wait(max(seconds, 0.0))
        except subprocess.TimeoutExpired:
            return False
        self._pid_file.unlink(missing_ok=True)
        return True

    def kill(self) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        self._pid_file.unlink(missing_ok=True)

    def descendants(self) -> list[psutil.Process]:
        with contextlib.suppress(psutil.Error):
            return psutil.Process(self.pid).children(recursive=True)
        return []

    def stop(self, seconds: float) -> None:
        self.ask_to_stop()
        if not self.wait(seconds):
            self.kill()

    def last_words(self) -> str:
        code = self._process.returncode
        if code is None:
            return "is running"
        ended = f"ended with code {code}" if code >= 0 else f"was ended by {_signal_name(-code)}"
        lines = (last_reason(log, start) for log, start in self._read_from.items())
        line = next(filter(None, lines), "") if code >= 0 else ""
        return f"{ended}: {line}" if line else ended


def write_pid_file(path: Path, name: str, pid: int, stop_signal: signal.Signals) -> None:
    """Records a process, with what proves later that the pid is still the same process."""
    path.parent.mkdir(parents=True, exist_ok=True)
    created = None
    with contextlib.suppress(psutil.Error):
        created = psutil.Process(pid).create_time()
    content = {"name": name, "pid": pid, "created": created, "stop_signal": int(stop_signal)}
    path.write_text(json.dumps(content))


def find_process(path: Path) -> psutil.Process | None:
    """The process of a pid file, if it still runs and is provably the recorded one."""
    try:
        recorded = json.loads(path.read_text())
        process = psutil.Process(int(recorded["pid"]))
        difference = abs(process.create_time() - float(recorded["created"]))
        alive = process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except (OSError, ValueError, TypeError, KeyError, psutil.Error):
        return None
    return process if alive and difference < CREATE_TIME_TOLERANCE_SECONDS else None


def end_leftovers(directory: Path) -> Iterator[str]:
    """Ends what a crashed run left behind and removes its pid files; yields what it did."""
    leftovers = []
    for path in sorted(directory.glob("*.json")):
        process = find_process(path)
        name = path.stem
        if process is None:
            path.unlink(missing_ok=True)
            yield f"removed the pid file of {name}: a crashed run left it"
            continue
        stop_signal = signal.Signals(json.loads(path.read_text()).get("stop_signal", 15))
        with contextlib.suppress(psutil.Error):
            process.send_signal(stop_signal)
        leftovers.append((name, process, path))
    psutil.wait_procs([process for _, process, _ in leftovers], timeout=LEFTOVER_SECONDS)
    for name, process, path in leftovers:
        with contextlib.suppress(psutil.Error):
            if process.is_running():
                process.kill()
                process.wait(LEFTOVER_SECONDS)
        path.unlink(missing_ok=True)
        yield f"ended {name} (pid {process.pid}) of a crashed run"


def end_orphans(processes: Iterable[psutil.Process]) -> Iterator[str]:
    left = [process for process in processes if process.is_running()]
    for process in left:
        # It may just have ended.
        with contextlib.suppress(psutil.Error):
            line = f"ending {process.name()} (pid {process.pid}), which its parent left behind"
            process.terminate()
            yield line
    _, stubborn = psutil.wait_procs(left, timeout=ORPHAN_SECONDS)
    for process in stubborn:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(stubborn, timeout=ORPHAN_SECONDS)


def last_reason(path: Path, start: int = 0) -> str:
    """As `reason_in`, of a log. Reads from byte `start`, at most the last 64 kB."""
    try:
        with path.open("rb") as log:
            log.seek(max(_size(path) - 65_536, start))
            return reason_in(log.read().decode("utf-8", "replace"))
    except OSError:
        return ""


def reason_in(output: str, limit: int = 300) -> str:
    """The line that says best why a program ended; at most `limit` characters, empty if there is none."""
    lines = [" ".join(line.split()) for line in output.splitlines() if not _NO_REASON.match(line)]
    best = next(
        (line for pattern in _REASONS for line in reversed(lines) if pattern.search(line)), ""
    )
    return best if len(best) <= limit else best[: limit - 1] + "…"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _rotate(log: Path) -> None:
    if _size(log) > LOG_LIMIT_BYTES:
        log.replace(log.with_suffix(log.suffix + ".1"))


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
