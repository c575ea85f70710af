"""What a benchmark leaves behind that was killed: found by its name, and removed by the next one.

The name of everything that a benchmark makes says which process on which machine made it, and when
that process began. So it can be told, without asking anybody, that what made it is gone; and what
bears another name is nobody's business here.
"""

import hashlib
import platform
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple, Self

import psutil

from streamflow.contract import format_time
from streamflow.errors import Unavailable
from streamflow.settings import Settings
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

# What names begin with; then comes their maker.
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
    """The process that made something.

    Attributes:
        began: when it started, in whole seconds since the epoch.
        machine: a word for the machine; of containers, for each of them.
        pid: its id there.
    """

    began: int
    machine: str
    pid: int

    @classmethod
    def this(cls) -> Self:
        """This process."""
        process = psutil.Process()
        return cls(int(process.create_time()), _machine(), process.pid)

    @classmethod
    def read(cls, kind: str, name: str) -> Self | None:
        """Who made what bears this name; None where it is no name of a benchmark's.

        Args:
            kind: `TOPIC` (groups, too), `SCHEMA` or `FOLDER`.
            name: the whole name.
        """
        found = _NAMES[kind].match(name)
        if found is None:
            return None
        return cls(int(found["began"], 16), found["machine"], int(found["pid"], 16))

    def __str__(self) -> str:
        return f"{self.began:08x}{self.machine}{self.pid:x}"

    def is_gone(self, now: float) -> bool:
        """Whether it certainly runs no more: no such process on this machine, or, of another
        machine, more than a day old."""
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
    """Removes what benchmarks left behind that run no more; says what it did.

    Args:
        settings: where Kafka and PostgreSQL are.
        database: look there, too.
    """
    folders = {each.name: each for each in Path(tempfile.gettempdir()).glob(f"{FOLDER}*")}
    found = [
        *((TOPIC, name) for name in topic_names(settings)),
        *((TOPIC, name) for name in group_names(settings)),
        *((SCHEMA, name) for name in (schema_names(settings) if database else ())),
        *((FOLDER, name) for name in folders),
    ]
    gone: dict[Maker, set[str]] = {}
    for kind, name in found:
        maker = Maker.read(kind, name)
        if maker is not None and maker.is_gone(time.time()):
            gone.setdefault(maker, set()).add(kind)
            if kind == FOLDER:
                shutil.rmtree(folders[name], ignore_errors=True)
    for maker, kinds in gone.items():
        if SCHEMA in kinds:
            drop_schema(settings, f"{SCHEMA}{maker}")
        topics = remove_topics(settings, f"{TOPIC}{maker}.")
        try:
            groups = f"{remove_groups(settings, f'{TOPIC}{maker}.')} groups"
        except Unavailable:
            groups = "groups later (Kafka has not noticed yet that their members are gone)"
        yield (
            f"removed what a benchmark left that was killed (process {maker.pid}, "
            f"begun {format_time(datetime.fromtimestamp(maker.began, UTC))}): "
            f"{topics} topics, {groups}{', a schema' if SCHEMA in kinds else ''}"
        )
