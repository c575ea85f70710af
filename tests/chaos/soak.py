"""A long run with restarts: memory, descriptors, threads and connections over time, and whether they stay.

    PYTHONPATH=tests .venv/bin/python tests/chaos/soak.py --minutes 30 --rate 2000 --plot soak.png

All parts run under `streamflow up`; every so often one of the workers, the broker or the database is
killed. Samples are written as JSON, and as a plot. Exits 1 where something grows, a record is lost or
doubled, or the audit is not closed.
"""

import argparse
import contextlib
import json
import random
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from nemesis import FAULTS
from oracle import Oracle, Sender
from rig import TOPIC, WORKERS, Rig
from rounds import say

SAMPLE_SECONDS = 5.0
# Of the whole run: parts are killed in its first half. Growth is judged in what follows, once caches are
# filled again.
RESTARTS = 1 / 2
SETTLING = 3 / 5
# A part that was restarted begins low, and fills its caches again.
WARM_SECONDS = 60.0
MEGABYTES_IN_TEN_MINUTES = 1.0
# Each run that ends leaves 0.2 MB in a cache of 128 (`streamflow_dagster.kept_instance`) of the code
# server: until it is full, this is what the 24 runs in ten minutes under this load may add.
FILLING_SECONDS = 4_500.0
FILLING = {"dagster-code": 6.0}
KINDS = ("memory", "descriptors", "threads", "connections")
# The supervisor's children are parts of their own, those of Dagster's code server are runs, which end.
ALONE = ("supervisor", "dagster-code")
RESTARTED = (*WORKERS, "broker", "PostgreSQL")
# Asks its parts at once, in a pool of a thread for each part: the more often all are slow together, the
# sooner the pool is full.
OF_A_POOL = {"supervisor": 15}  # threads, with five of its own
# Their files are as many as their data have segments.
SERVERS = ("broker", "database")
# The JVM takes its heap when it likes, up to -Xmx.
OF_A_HEAP = ("broker",)


@dataclass(frozen=True, slots=True)
class Sample:
    """What a part holds at some second of the run.

    Attributes:
        memory: anonymous memory of its processes in MB. Not shared memory: PostgreSQL fills
            `shared_buffers` once. Nor pages of files: what a process counts of them depends on how many
            others map them, and changes when those end.
        descriptors: of a server without its files of data.
        connections: of the database: how many it serves; of others their TCP connections.
        age: of its main process, in seconds.
        pid: of its main process.
    """

    part: str
    second: float
    memory: float
    descriptors: int
    threads: int
    connections: int
    age: float
    pid: int


def private_memory(process: psutil.Process) -> float:
    """In MB, see `proc_pid_smaps_rollup` in the kernel's documentation."""
    fields = dict(
        line.split()[:2]
        for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()[1:]
    )
    return int(fields["Pss_Anon:"]) * 1024 / 1e6


def sample(part: str, pid: int, began: float) -> Sample | None:
    """None if it has just ended."""
    try:
        root = psutil.Process(pid)
        tree = [root] if part in ALONE else [root, *root.children(recursive=True)]
        memory, descriptors, threads, connections = 0.0, 0, 0, 0
        for process in tree:
            with contextlib.suppress(psutil.NoSuchProcess, OSError):
                memory += private_memory(process)
                descriptors += process.num_fds()
                descriptors -= len(process.open_files()) if part in SERVERS else 0
                threads += process.num_threads()
                connections += len(process.net_connections("tcp"))
        second = time.monotonic() - began
        age = time.time() - root.create_time()
    except psutil.Error:
        return None
    return Sample(part, second, memory, descriptors, threads, connections, age, pid)


def slope(samples: Sequence[Sample], kind: str) -> float:
    """Growth in a second, after Theil and Sen: the median of the slopes between all pairs of one life."""

    def value(of: Sample) -> float:
        filled = OF_A_POOL.get(of.part, 0) if kind == "threads" else 0
        return max(getattr(of, kind), filled)

    slopes = [
        (value(late) - value(early)) / (late.second - early.second)
        for number, early in enumerate(samples)
        for late in samples[number + 1 :]
        if late.pid == early.pid
    ]
    return statistics.median(slopes) if slopes else 0.0


def growing(samples: Sequence[Sample], seconds: float) -> list[str]:
    """What grows, by part and kind."""
    found = []
    by_part: defaultdict[str, list[Sample]] = defaultdict(list)
    for one in samples:
        if one.second > seconds * SETTLING and one.age > WARM_SECONDS:
            by_part[one.part].append(one)
    for part, some in by_part.items():
        filled = [one for one in some if one.age > FILLING_SECONDS]
        for kind in KINDS:
            if kind == "memory" and part in OF_A_HEAP:
                continue
            most = MEGABYTES_IN_TEN_MINUTES if kind == "memory" else 0.5
            judged = some
            if kind == "memory" and part in FILLING:
                judged, most = (filled, most) if filled else (some, FILLING[part])
            rate = slope(judged, kind) * 600
            if rate > most:
                found.append(f"{part}: {kind} grows by {rate:.1f} in ten minutes")
    return found


def plot(samples: Sequence[Sample], restarts: Sequence[tuple[float, str]], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(len(KINDS), 1, sharex=True, figsize=(11, 13), layout="constrained")
    parts = sorted({one.part for one in samples})
    for axis, kind in zip(axes, KINDS, strict=True):
        for part in parts:
            of_part = [one for one in samples if one.part == part]
            minutes = [one.second / 60 for one in of_part]
            axis.plot(minutes, [getattr(one, kind) for one in of_part], label=part, linewidth=1)
        for second, _ in restarts:
            axis.axvline(second / 60, color="0.8", linewidth=0.7, zorder=0)
        axis.set_ylabel("memory, MB" if kind == "memory" else kind)
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    axes[0].legend(ncols=4, fontsize="small", loc="upper left", bbox_to_anchor=(0, 1.32))
    axes[-1].set_xlabel("minutes; grey: one part was killed")
    figure.savefig(path, dpi=110)


def pids(rig: Rig) -> dict[str, int]:
    found = {"broker": rig.broker.pid, "database": rig.database.pid}
    with contextlib.suppress(OSError, ValueError):
        snapshot = json.loads((rig.folder.state / "status.json").read_text())
        found |= {part["name"]: part["pid"] for part in snapshot["parts"] if part["pid"]}
        found["supervisor"] = rig.folder.supervisor()
    return found


def watch(rig: Rig, sender: Sender, seconds: float, restart_every: float, seed: int) -> tuple[
    list[Sample], list[tuple[float, str]]
]:  # fmt: skip
    """Samples for so long, and restarts one after the other."""
    chance, began = random.Random(seed), time.monotonic()
    samples: list[Sample] = []
    restarts: list[tuple[float, str]] = []
    while (now := time.monotonic() - began) < seconds:
        if now > (len(restarts) + 1) * restart_every and now < seconds * RESTARTS:
            name = RESTARTED[len(restarts) % len(RESTARTED)]
            restarts.append((now, name))
            FAULTS[f"SIGKILL {name}"](rig, chance, sender)
        taken = (sample(part, pid, began) for part, pid in pids(rig).items())
        samples += [one for one in taken if one is not None]
        threading.Event().wait(SAMPLE_SECONDS)
    return samples, restarts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--rate", type=int, default=2_000, help="events a second")
    parser.add_argument("--restart-every", type=float, default=85.0, help="seconds")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--plot", type=Path, default=Path("soak.png"))
    parser.add_argument("--samples", type=Path, default=Path("soak.json"))
    parser.add_argument("--without", action="append", default=["producer"], metavar="PART")
    options = parser.parse_args()
    with ExitStack() as cleanup:
        directory = cleanup.enter_context(tempfile.TemporaryDirectory(prefix="soak-"))
        rig = Rig(Path(directory), left_out=options.without)
        rig.start(cleanup)
        sender = cleanup.enter_context(Sender(rig.broker.direct, TOPIC, options.rate))
        seconds = options.minutes * 60
        samples, restarts = watch(rig, sender, seconds, options.restart_every, options.seed)
        sender.pause()
        oracle = Oracle(rig.broker.direct, rig.database.url)
        oracle.wait_until_complete(sender)
        # The audit first: it may wait longer for the workers, and what the oracle sees then is final.
        audit = rig.audit()
        verdict = oracle.compare(sender)
    options.samples.write_text(json.dumps([asdict(one) for one in samples]))
    plot(samples, restarts, options.plot)
    say(
        f"{'part':<14}{'samples':>8}{'memory, MB':>22}{'descriptors':>14}{'threads':>12}{'connections':>14}"
    )
    for part in sorted({one.part for one in samples}):
        some = [one for one in samples if one.part == part]
        ranges = [
            f"{min(getattr(one, kind) for one in some):.0f} to {max(getattr(one, kind) for one in some):.0f}"
            for kind in KINDS
        ]
        say(f"{part:<14}{len(some):>8}{ranges[0]:>22}{ranges[1]:>14}{ranges[2]:>12}{ranges[3]:>14}")
    grows = growing(samples, seconds)
    for line in grows:
        say(line)
    say(
        f"{verdict.acknowledged:,} acknowledged in {options.minutes:g} minutes with {len(restarts)} "
        f"restarts: lost {verdict.lost.total()}, doubled {verdict.doubled.total()}, wrong "
        f"{verdict.wrong.total()}; audit {audit}; {'flat' if not grows else 'NOT flat'}"
    )
    return 0 if verdict.exact and audit == "closed" and not grows else 1


if __name__ == "__main__":
    # Ends what it has started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
