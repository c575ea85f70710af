"""The user that PostgreSQL runs as, when we are root: it refuses to run as root itself.

Folders above the data or the programs that only root may enter (``/root``, a ``mktemp -d``) would
stop that user. Instead of opening those folders to everyone, the database process keeps the one
capability that lets it pass, and only where needed.
"""

import contextlib
import os
import pwd
import shutil
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from streamflow.errors import StackError

USER = "streamflow-postgres"

CAP_DAC_OVERRIDE = 1
CAP_DAC_READ_SEARCH = 2


@dataclass(frozen=True)
class Account:
    uid: int
    gid: int
    capability: int | None = None  # number of the Linux capability that it keeps


def database_account(data: Path, *programs: Path) -> Account | None:
    """The account to run the database with, able to reach its data and programs; None when we are not
    root: the database then runs as the current user.

    Args:
        data: the data directory; when it exists, its owner keeps it.
        programs: files that it must be able to execute.

    Raises:
        StackError: we are root and there is no unprivileged user, or it cannot reach a path.
    """
    if os.geteuid() != 0:
        return None
    owner = data.stat().st_uid if data.exists() else 0
    entry = pwd.getpwuid(owner) if owner else _find_or_create_user()
    closed = [folder for path in (data, *programs) for folder in _closed_folders(path)]
    if not closed:
        return Account(entry.pw_uid, entry.pw_gid)
    # Reading and searching is enough unless the programs themselves are root's alone to execute.
    programs_open = all(path.stat().st_mode & stat.S_IXOTH for path in programs)
    wanted = CAP_DAC_READ_SEARCH if programs_open else CAP_DAC_OVERRIDE
    for capability in (wanted, CAP_DAC_OVERRIDE):
        if capability in _permitted_capabilities():
            return Account(entry.pw_uid, entry.pw_gid, capability)
    raise StackError(
        f"PostgreSQL cannot run as root, and its user {entry.pw_name} may not enter {closed[0]}: "
        f"run `chmod o+x {closed[0]}`, or move the project or STREAMFLOW_STATE_DIR, or do not be "
        "root"
    )


def _closed_folders(path: Path) -> list[Path]:
    """The folders above `path`, and a program itself, that others may not enter."""
    paths = [path, *path.parents] if path.is_file() else list(path.parents)
    return [path for path in reversed(paths) if not path.stat().st_mode & stat.S_IXOTH]


def _find_or_create_user() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(USER)
    except KeyError:
        pass
    useradd = shutil.which("useradd") or "/usr/sbin/useradd"
    command = [useradd, "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", USER]
    # It fails on a read-only /etc and where a second stack was faster; the look-up below decides.
    with contextlib.suppress(OSError):
        subprocess.run(command, check=False, capture_output=True)  # noqa: S603 (our own command)
    for name in (USER, "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise StackError(
        f"PostgreSQL cannot run as root: create a user named {USER}, or do not be root"
    )


def _permitted_capabilities() -> set[int]:
    if not sys.platform.startswith("linux"):
        return set()
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    mask = int(status.get("CapPrm", "0"), 16)
    return {number for number in range(64) if mask >> number & 1}
