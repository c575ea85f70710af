"""What can be known to go wrong before anything is started: disk and ports."""

import contextlib
import errno
import shutil
import socket
from collections.abc import Iterable
from pathlib import Path

import psutil

from streamflow.errors import StackError

MINIMUM_FREE_BYTES = 1_000_000_000


def check_disk(directory: Path, minimum: int = MINIMUM_FREE_BYTES) -> None:
    """Raises StackError if fewer than `minimum` bytes are free for broker and database."""
    free = shutil.disk_usage(directory).free
    if free < minimum:
        raise StackError(
            f"the disk of {directory} has {free / 1e9:.1f} GB left, {minimum / 1e9:.1f} GB are "
            "needed: make room, or set STREAMFLOW_STATE_DIR to another disk"
        )


def explain_os_error(error: OSError, directory: Path) -> StackError:
    where = error.filename or directory
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return StackError(
            f"the disk is full, {where} cannot be written: make room, or set "
            "STREAMFLOW_STATE_DIR to another disk; nothing that was stored is lost"
        )
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return StackError(
            f"{where} may not be written ({error.strerror}): it may belong to another user; "
            "set STREAMFLOW_STATE_DIR to a folder of yours"
        )
    return StackError(f"the operating system refused {where}: {error.strerror}")


def check_ports(host: str, wanted: Iterable[tuple[str, int]]) -> None:
    """Raises StackError if a part cannot listen on its port; names port, part and who holds it."""
    for part, port in wanted:
        if not is_free(host, port):
            raise StackError(
                f"port {port} ({part}) is taken by {described(owner(port))}: end that, or "
                "choose other ports with STREAMFLOW_PORT_OFFSET=1000 (any number)"
            )


def is_free(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # Connections of a former run that are still closing do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno in {errno.EADDRINUSE, errno.EACCES}:
                return False
            raise StackError(f"cannot listen on {host}: {error.strerror}") from error
        except OverflowError:
            raise StackError(
                f"port {port} does not exist: choose a smaller STREAMFLOW_PORT_OFFSET"
            ) from None
    return True


def free_ports(count: int, host: str = "127.0.0.1") -> list[int]:
    """Ports on which nobody listens now."""
    with contextlib.ExitStack() as open_sockets:
        sockets = [open_sockets.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((host, 0))
        return [int(each.getsockname()[1]) for each in sockets]


def free_port(host: str) -> int:
    """A port on which nobody listens now."""
    [port] = free_ports(1, host)
    return port


def owner(port: int) -> tuple[str, int] | None:
    """Name and pid of the process that listens on a port, if the system shows it."""
    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            address = connection.laddr if connection.status == psutil.CONN_LISTEN else None
            if address and address.port == port and connection.pid:
                return psutil.Process(connection.pid).name(), connection.pid
    return None


def described(holder: tuple[str, int] | None) -> str:
    return f"{holder[0]} (pid {holder[1]})" if holder else "another process"
