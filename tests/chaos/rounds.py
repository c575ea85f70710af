"""Rounds of broken brokers and broken connections under load; prints how long each took to mend.

    PYTHONPATH=tests .venv/bin/python tests/chaos/rounds.py --kills 20 --breaks 20

A broker of its own is killed (SIGKILL) and started again, or a proxy before it breaks all connections,
while events are produced and the three workers run under `streamflow up`. A round's time is that from
the broker's being up until every group has read past the end seen then. Exits 1 where something was
lost or doubled, an audit does not close, or a round was never mended.
"""

import argparse
import json
import signal
import statistics
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from oracle import Sender, Verdict, compare, wait_until_complete

from folders import Folder, free_offset
from services import ProxiedBrokerService
from streamflow.errors import Unavailable
from streamflow.kafka import clients, offsets
from streamflow.settings import Settings

WORKERS = ("validator", "analytics", "loader")
LEFT_OUT = ("producer", "bridge", "dagster", "dashboard")
FAULTS = ("cut", "reset", "half_close", "stall", "black_hole")
TOPIC = "user-events"
BREAK_SECONDS = 2.0
PAUSE_SECONDS = 5.0  # of undisturbed work before each round
PATIENCE = 180.0  # seconds until a round counts as never mended
POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Round:
    """One round: what was done, how many seconds it took to mend, how many workers had hung, and what
    the audit said of everything produced by then."""

    fault: str
    seconds: float | None
    hangs: int
    audit: str


class Rig:
    """A broker behind a proxy, and the workers that know only the proxy."""

    def __init__(self, directory: Path) -> None:
        self.broker = ProxiedBrokerService(directory / "broker")
        self.folder = Folder(directory / "project", free_offset())
        self.folder.variables["KAFKA_BOOTSTRAP_SERVERS"] = self.broker.proxied
        self._settings = Settings(KAFKA_BOOTSTRAP_SERVERS=self.broker.direct)
        self._admin = clients.admin(self._settings)

    @property
    def database_url(self) -> str:
        return str(json.loads((self.folder.state / "stack.json").read_text())["database_url"])

    def start(self, cleanup: ExitStack) -> None:
        self.broker.start()
        cleanup.callback(self.broker.stop)
        cleanup.enter_context(self.broker.proxy)
        cleanup.callback(self.folder.run, "down")
        self.folder.up(*(part for name in LEFT_OUT for part in ("--without", name)))

    def play(self, fault: str) -> Round:
        """One round of a fault, from before it until all is mended."""
        hangs = self.hangs()
        if fault == "kill":
            self.broker.restart()
        else:
            getattr(self.broker.proxy, fault)()
            threading.Event().wait(BREAK_SECONDS)
            self.broker.proxy.mend()
        up = time.monotonic()
        partitions = offsets.partitions_of(self._admin, [TOPIC])
        ends = {each: end for each, (_, end) in offsets.bounds(self._admin, partitions).items()}
        seconds = None
        while time.monotonic() - up < PATIENCE:
            if all(self._has_read(worker, ends) for worker in WORKERS):
                seconds = time.monotonic() - up
                break
            time.sleep(POLL_SECONDS)
        return Round(fault, seconds, self.hangs() - hangs, self.audit())

    def _has_read(self, worker: str, ends: dict[tuple[str, int], int]) -> bool:
        try:
            found = offsets.committed(self._settings, self._settings.group(worker), list(ends))
        except Unavailable:  # its coordinator is still being elected
            return False
        return all(
            each in found and offsets.read_position(found[each]) >= end
            for each, end in ends.items()
        )

    def hangs(self) -> int:
        """How often a watchdog has ended a worker."""
        # Not all logs: the supervisor's quotes those of the workers.
        logs = self.folder.state / "logs"
        return sum(
            each.read_text(errors="replace").count('"event": "stalled"')
            for worker in WORKERS
            for each in logs.glob(f"{worker}.log*")
        )

    def audit(self) -> str:
        done = self.folder.run("audit", "--json", "--wait", "120", timeout=600)
        try:
            found = json.loads(done.stdout)
        except ValueError:
            return f"fails ({done.returncode}): {done.stderr.strip()[-300:]}"
        if found["closed"]:
            return "closed"
        return f"{found['verdict']}: {found['problems'][:3] or found['pending'][:3]}"


def show(rounds: list[Round], verdict: Verdict, sender: Sender, audit: str) -> bool:
    """Prints the tables; returns whether all is well."""
    say(f"\n{'round':>5}  {'fault':<11}{'recovery s':>11}{'hangs':>7}  audit")
    for number, each in enumerate(rounds, 1):
        say(f"{number:>5}  {each.fault:<11}{shown(each.seconds):>11}{each.hangs:>7}  {each.audit}")
    for name in dict.fromkeys(("kill" if each.fault == "kill" else "break") for each in rounds):
        times = [each.seconds for each in rounds if (each.fault == "kill") == (name == "kill")]
        mended = [each for each in times if each is not None]
        median = statistics.median(mended) if mended else None
        worst = max(mended) if len(mended) == len(times) else None
        say(f"{name}s: {len(times)}, median {shown(median)} s, worst {shown(worst)} s")
    say(f"hangs: {sum(each.hangs for each in rounds)}")
    say(f"sent {sender.sent}, acknowledged {verdict.acknowledged}, given up {sender.failed}")
    for place in verdict.lost:
        unknown = verdict.unknown.get(place, 0)
        say(
            f"{place:<20} lost {verdict.lost[place]}, doubled {verdict.doubled[place]}"
            + (f", never acknowledged {unknown}" if unknown else "")
        )
    say(f"audit: {audit}")
    mended = all(each.seconds is not None and each.audit == "closed" for each in rounds)
    return mended and verdict.exact and audit == "closed"


def shown(seconds: float | None) -> str:
    return "never" if seconds is None else f"{seconds:.1f}"


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=2, help="rounds of a killed broker")
    parser.add_argument("--breaks", type=int, default=2, help="rounds of broken connections")
    parser.add_argument("--rate", type=int, default=2_000, help="events a second")
    parser.add_argument("--faults", default=",".join(FAULTS), help="for the breaks, in turn")
    parser.add_argument("--directory", type=Path, help="kept afterwards; else a temporary one")
    options = parser.parse_args()
    # Ends what it has started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    faults = options.faults.split(",")
    plan = ["kill"] * options.kills
    plan += [faults[number % len(faults)] for number in range(options.breaks)]
    with ExitStack() as cleanup:
        directory = options.directory or Path(
            cleanup.enter_context(tempfile.TemporaryDirectory(prefix="chaos-"))
        )
        rig = Rig(directory)
        rig.start(cleanup)
        rounds = []
        with Sender(rig.broker.direct, TOPIC, options.rate) as sender:
            for fault in plan:
                threading.Event().wait(PAUSE_SECONDS)
                rounds.append(rig.play(fault))
                done = rounds[-1]
                say(
                    f"{len(rounds)}/{len(plan)} {fault}: {shown(done.seconds)} s, {done.hangs} hangs, "
                    f"audit {done.audit}"
                )
        wait_until_complete(sender, rig.database_url)
        audit = rig.audit()
        verdict = compare(sender, rig.broker.direct, rig.database_url)
        return 0 if show(rounds, verdict, sender, audit) else 1


if __name__ == "__main__":
    sys.exit(main())
