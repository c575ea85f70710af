"""What a killed benchmark leaves behind: found by its name, and removed by the next one.

The name of everything that a benchmark creates says which process on which machine created it, and when
that process started. So it is known whether that process is gone, and nothing else is touched.
"""

import hashlib
import platform
import re
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Final, NamedTuple, Self

import psutil

from streamflow.contract import format_time
from streamflow.errors import Unavailable
from streamflow.settings import Settings
from streamflow.units import counted
from streamflow_bench.removal import (
    drop_schema,
    group_names,
    remove_groups,
    remove_topics,
    schema_names,
    topic_names,
)

DAY: Final = 86_400  # seconds
_CLOCK: Final = 2.0  # seconds that the start of a process may seem to move with the clock

# Names begin with these; their maker follows.
TOPIC: Final = "bench-"
SCHEMA: Final = "streamflow_bench_"
FOLDER: Final = "streamflow-bench-"

_MAKER: Final = r"(?P<began>[0-9a-f]{8})(?P<machine>[0-9a-f]{8})(?P<pid>[0-9a-f]{1,8})"
_NAMES: Final = {
    TOPIC: re.compile(rf"{TOPIC}{_MAKER}\."),
    SCHEMA: re.compile(rf"{SCHEMA}{_MAKER}$"),
    FOLDER: re.compile(rf"{FOLDER}{_MAKER}-"),
}


class Maker(NamedTuple):
    """The process that created something."""

    began: int  # when it started, in whole seconds since the epoch
    machine: str  # or container
    pid: int

    @classmethod
    def this(cls) -> Self:
        process = psutil.Process()
        return cls(int(process.create_time()), _machine(), process.pid)

    @classmethod
    def read(cls, kind: str, name: str) -> Self | None:
        """The maker of what has this name; None if no benchmark created it. `kind` is `TOPIC` (also of a
        group), `SCHEMA` or `FOLDER`."""
        match = _NAMES[kind].match(name)
        if match is None:
            return None
        return cls(int(match["began"], 16), match["machine"], int(match["pid"], 16))

    def __str__(self) -> str:
        return f"{self.began:08x}{self.machine}{self.pid:x}"

    def is_gone(self, now: float) -> bool:
        """Whether it has certainly ended: there is no such process on this machine, or it is of another
        machine and more than a day old."""
        if self.machine != _machine():
            return now - self.began > DAY
        try:
            return abs(psutil.Process(self.pid).create_time() - self.began) > 1 + _CLOCK
        except psutil.NoSuchProcess:
            return True


def _machine() -> str:
    """Eight hexadecimal digits: another boot, or another container, is another machine."""
    parts = [platform.node(), str(int(psutil.boot_time()) // DAY)]
    with suppress(OSError):
        parts = [
            Path("/proc/sys/kernel/random/boot_id").read_text(),
            str(Path("/proc/self/ns/pid").readlink()),
        ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]


def remove_leftovers(settings: Settings, *, database: bool) -> Iterator[str]:
    """Removes what benchmarks that have ended left behind; yields what it did. Schemas are removed only
    with `database`."""
    folders = {folder.name: folder for folder in Path(tempfile.gettempdir()).glob(f"{FOLDER}*")}
    gone: dict[Maker, set[str]] = defaultdict(set)
    for kind, name in (
        *product([TOPIC], [*topic_names(settings), *group_names(settings)]),
        *product([SCHEMA], schema_names(settings) if database else []),
        *product([FOLDER], folders),
    ):
        maker = Maker.read(kind, name)
        if maker is not None and maker.is_gone(time.time()):
            gone[maker].add(kind)
            if kind == FOLDER:
                shutil.rmtree(folders[name], ignore_errors=True)
    for maker, kinds in gone.items():
        if SCHEMA in kinds:
            drop_schema(settings, f"{SCHEMA}{maker}")
        topics = remove_topics(settings, f"{TOPIC}{maker}.")
        try:
            groups = counted(remove_groups(settings, f"{TOPIC}{maker}."), "group")
        except Unavailable:
            groups = "groups later (Kafka has not noticed yet that their members are gone)"
        yield (
            f"removed what a killed benchmark left (process {maker.pid}, "
            f"started {format_time(datetime.fromtimestamp(maker.began, UTC))}): "
            f"{counted(topics, 'topic')}, {groups}{', a schema' if SCHEMA in kinds else ''}"
        )
