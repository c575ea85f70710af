"""The last step before a child's own program: tie it to its parent, drop root, then exec.

Run as a script (``python -I -S tied_exec.py JSON PROGRAM ARGUMENT …``) so that nothing of Python runs
between fork and exec in the supervisor, which has threads. Linux only ties and capabilities are
skipped elsewhere; there the next start finds leftovers by their pid files.

JSON holds ``parent`` (pid), ``death_signal``, and optionally ``uid``, ``gid`` and ``capability``, see
``streamflow_stack.account``.
"""

import ctypes
import json
import os
import signal
import struct
import sys

PR_SET_PDEATHSIG = 1
PR_SET_KEEPCAPS = 8
PR_SET_SECUREBITS = 28
SECBIT_NO_SETUID_FIXUP = 1 << 2
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
LINUX_CAPABILITY_VERSION_3 = 0x20080522


def main(arguments: list[str]) -> None:
    """Becomes the program; only returns by raising."""
    options, command = json.loads(arguments[0]), arguments[1:]
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    linux = sys.platform.startswith("linux")
    libc = ctypes.CDLL(None, use_errno=True) if linux else None
    if options.get("uid") is not None:
        capability = options.get("capability") if libc else None
        # Without the first, access(2), with which PostgreSQL looks for its own programs, would not count the
        # capability. A container may not allow that: the second is enough where only the data is closed.
        if (
            libc
            and capability is not None
            and libc.prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0) != 0
        ):
            _call(libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0), "keep capabilities")
        os.setgroups([])
        os.setgid(options["gid"])
        os.setuid(options["uid"])
        if libc and capability is not None:
            _keep_only(libc, capability)
    if libc:
        # Last, because a change of user clears it.
        _call(libc.prctl(PR_SET_PDEATHSIG, options["death_signal"], 0, 0, 0), "bind to parent")
        if os.getppid() != options["parent"]:
            raise SystemExit("the supervisor is gone")
    os.execv(command[0], command)  # noqa: S606 (no shell is the point)


def _keep_only(libc: ctypes.CDLL, capability: int) -> None:
    """Keeps one capability through exec, in this process and its children."""
    mask = 1 << capability
    header = struct.pack("=Ii", LINUX_CAPABILITY_VERSION_3, 0)
    # Two words each of effective, permitted, inheritable; the capabilities in use are in the first.
    data = struct.pack("=6I", mask, mask, mask, 0, 0, 0)
    _call(libc.capset(header, data), "set capabilities")
    raised = libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0)
    _call(raised, "pass on capabilities")


def _call(result: int, what: str) -> None:
    if result != 0:
        raise SystemExit(f"cannot {what}: {os.strerror(ctypes.get_errno())}")


if __name__ == "__main__":
    main(sys.argv[1:])
