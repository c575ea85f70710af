"""Rounds of faults under load, by a seed: after each, an oracle and the audit say what has become of the
records.

    PYTHONPATH=tests .venv/bin/python tests/chaos/rounds.py --seed 7 --minutes 15

A round is some seconds of load, a fault, and the wait until every group has read past the end seen then.
Then the sender pauses, everything arrives, oracle and audit judge all records since the start. Exits 1
where something was lost, doubled or wrong, a round was never mended, or the audit says otherwise than
the oracle.
"""

import argparse
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from losses import LAST, LOSING, PLANTED, planted
from nemesis import FAULTS, SKIPPED
from oracle import Oracle, Sender, Verdict
from rig import TOPIC, WORKERS, Rig

PAUSE_SECONDS = 3.0  # of undisturbed work before each round, and as much again at most
PATIENCE = 180.0  # seconds until a round counts as never mended
POLL_SECONDS = 0.2
CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Round:
    """One round.

    Attributes:
        acknowledged: events that the broker took in this round.
        seconds: until all groups had read past the end that was seen after the fault; None for never.
        hangs: how many workers a watchdog has ended.
        verdict: of everything produced by then.
        audit: what it said of the same.
        lost_before: what was lost in rounds before this one.
    """

    fault: str
    acknowledged: int
    seconds: float | None
    hangs: int
    verdict: Verdict
    audit: str
    lost_before: int = 0

    @property
    def agrees(self) -> bool:
        return (self.audit == CLOSED) == self.verdict.exact

    @property
    def good(self) -> bool:
        if self.fault in PLANTED:
            return self.audit != CLOSED and not self.verdict.exact
        if self.fault in LOSING:
            kept = not (self.verdict.doubled.total() or self.verdict.wrong.total())
            seen = self.verdict.lost.total() > self.lost_before and LOSING[self.fault] in self.audit
            return kept and seen and self.agrees and self.seconds is not None
        return self.verdict.exact and self.audit == CLOSED and self.seconds is not None


def plan(chance: random.Random, names: Sequence[str]) -> Iterator[str]:
    """All of them in some order, again and again."""
    while True:
        yield from chance.sample(names, len(names))


def play(
    rig: Rig,
    oracle: Oracle,
    sender: Sender,
    fault: str,
    chance: random.Random,
    lost_before: int = 0,
) -> Round:
    before, hangs = sum(sender.acknowledged), rig.hangs()
    sender.go_on()
    threading.Event().wait(PAUSE_SECONDS * (1 + chance.random()))
    trouble = ""
    try:
        (FAULTS | LAST)[fault](rig, chance, sender)
    except (AssertionError, subprocess.SubprocessError) as error:
        trouble = f"; the fault itself: {error}"
    over = time.monotonic()
    ends, seconds = rig.ends(), None
    while seconds is None and time.monotonic() - over < PATIENCE:
        if all(rig.has_read(worker, ends) for worker in WORKERS):
            seconds = time.monotonic() - over
        else:
            time.sleep(POLL_SECONDS)
    sender.pause()
    oracle.wait_until_complete(sender)
    # The audit first: it may wait longer for the workers, and what the oracle sees then is final.
    audit = rig.audit() + trouble
    verdict = oracle.compare(sender)
    acknowledged = verdict.acknowledged - before
    return Round(fault, acknowledged, seconds, rig.hangs() - hangs, verdict, audit, lost_before)


def plant(rig: Rig, oracle: Oracle, sender: Sender, what: str) -> Round:
    """A round with a loss that no fault has made: does the audit see what the oracle sees?"""
    before = sum(sender.acknowledged)
    sender.go_on()
    threading.Event().wait(PAUSE_SECONDS)
    sender.pause()
    oracle.wait_until_complete(sender)
    with rig.connect() as connection, planted(connection, what):
        audit, verdict = rig.audit(), oracle.compare(sender)
    return Round(what, verdict.acknowledged - before, 0.0, 0, verdict, audit)


def show(rounds: list[Round], seed: int, names: Sequence[str]) -> bool:
    """Prints the table, and which of the faults had no turn in the time; returns whether all is well."""
    head = (
        "fault",
        "runs",
        "acknowledged",
        "recovered in, s",
        "hangs",
        "lost",
        "doubled",
        "wrong",
        "audit",
    )
    say(f"\nseed {seed}\n\n| {' | '.join(head)} |\n|---|" + "--:|" * (len(head) - 2) + "---|")
    for fault, some in groupby(sorted(rounds, key=lambda one: one.fault), lambda one: one.fault):
        of_fault = list(some)
        seconds = [one.seconds for one in of_fault]
        mended = [each for each in seconds if each is not None]
        times = f"{statistics.median(mended):.1f}, at most {max(mended):.1f}" if mended else "never"
        if len(mended) < len(seconds):
            times += f"; never: {len(seconds) - len(mended)}"
        cells = (
            fault, len(of_fault), f"{sum(one.acknowledged for one in of_fault):,}", times,
            sum(one.hangs for one in of_fault),
            max(one.verdict.lost.total() - one.lost_before for one in of_fault),
            *(_worst(of_fault, what) for what in ("doubled", "wrong")), _audits(of_fault),
        )  # fmt: skip
        say(f"| {' | '.join(map(str, cells))} |")
    bad = [one for one in rounds if not one.good]
    good = bool(rounds) and not bad
    for one in bad:
        say(f"{one.fault}: {_seconds(one.seconds)} s; {_described(one.verdict)}; audit {one.audit}")
    left = [name for name in names if name not in {one.fault for one in rounds}]
    if left:
        say(f"not played: {'; '.join(left)}")
    total = sum(one.acknowledged for one in rounds)
    say(
        f"\n{len(rounds)} rounds, {total:,} acknowledged; {'all well' if good else 'NOT as promised'}"
    )
    return good


def _worst(rounds: list[Round], what: str) -> int:
    return max(getattr(one.verdict, what).total() for one in rounds)


def _audits(rounds: list[Round]) -> str:
    agreeing = sum(one.agrees for one in rounds)
    closed = sum(one.audit == CLOSED for one in rounds)
    return f"closed {closed}, agrees {agreeing} of {len(rounds)}"


def _described(verdict: Verdict) -> str:
    parts = {"lost": +verdict.lost, "doubled": +verdict.doubled, "wrong": +verdict.wrong}
    return ", ".join(f"{what} {dict(where)}" for what, where in parts.items() if where) or "exact"


def _seconds(seconds: float | None) -> str:
    return "never" if seconds is None else f"{seconds:.1f}"


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=15.0, help="after which no round begins")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--rate", type=int, default=1_000, help="events a second")
    parser.add_argument("--faults", help="only these, separated by semicolons")
    parser.add_argument("--lock-seconds", type=float, default=60.0)
    parser.add_argument("--directory", type=Path, help="kept afterwards; else a temporary one")
    options = parser.parse_args(arguments)
    chance = random.Random(options.seed)
    names = options.faults.split(";") if options.faults else [*FAULTS, *PLANTED, *LAST]
    assert FAULTS.keys() | PLANTED.keys() | LAST.keys() >= {*names}, names
    outcome: list[bool] = []
    with ExitStack() as cleanup:
        directory = options.directory or Path(
            cleanup.enter_context(tempfile.TemporaryDirectory(prefix="chaos-"))
        )
        rig = Rig(directory)
        rig.lock_seconds = options.lock_seconds
        rig.start(cleanup)
        until, rounds = time.monotonic() + options.minutes * 60, list[Round]()
        oracle = Oracle(rig.broker.direct, rig.database.url)
        sender = cleanup.enter_context(Sender(rig.broker.direct, TOPIC, options.rate))
        # Also where a round ends the run.
        cleanup.callback(lambda: outcome.append(show(rounds, options.seed, names)))
        for name in SKIPPED.keys() & {*names}:
            say(f"skipped: {name}: {SKIPPED[name]}")
        faults = [name for name in names if name in FAULTS.keys() - SKIPPED.keys()]
        for fault in plan(chance, faults) if faults else ():
            if time.monotonic() > until:
                break
            rounds.append(_said(play(rig, oracle, sender, fault, chance)))
        lost = 0
        for fault in (name for name in (*PLANTED, *LAST) if name in names):
            if fault in PLANTED:
                rounds.append(_said(plant(rig, oracle, sender, fault)))
            else:
                rounds.append(_said(play(rig, oracle, sender, fault, chance, lost)))
                lost = rounds[-1].verdict.lost.total()
    return 0 if all(outcome) else 1


def _said(done: Round) -> Round:
    say(
        f"{time.strftime('%H:%M:%S')} {done.fault}: {done.acknowledged:,} acknowledged, "
        f"{_seconds(done.seconds)} s, {done.hangs} hangs, {_described(done.verdict)}, audit {done.audit}"
    )
    return done


if __name__ == "__main__":
    # Ends what it has started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
