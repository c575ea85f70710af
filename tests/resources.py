"""What a process has taken of the machine."""

from pathlib import Path


def peak_memory(pid: int) -> int:
    """The most memory that a process has had at a time, in MB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1000 for line in lines if line.startswith("VmHWM"))
