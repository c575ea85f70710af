"""The supervisor: starts parts in stages, restarts what died, ends all of it in order.

One thread starts, reaps and decides. Only probes run elsewhere, so that one part that does not
answer delays no other; a child must be started from this thread, because it ends with it.
"""

import json
import os
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from streamflow.calls import HUNG_EXIT_CODE
from streamflow.errors import StackError, StreamFlowError
from streamflow_stack.part import Health, Part, StackReport, Stage
from streamflow_stack.process import Child, end_orphans
from streamflow_stack.signals import StopSignals
from streamflow_stack.state import PartState, StateDirectory, write_atomically

TICK_SECONDS = 0.2
# Between two probes of a part that is up. A worker asks what it depends on no more often; the end of a
# process is seen at once.
PROBE_PAUSE_SECONDS = 2.0
SNAPSHOT_SECONDS = 2.0
FIRST_BACKOFF_SECONDS = 0.5
LAST_BACKOFF_SECONDS = 30.0
# After this long up, the next restart waits for the shortest pause again.
SETTLED_SECONDS = 30.0

UNKNOWN = Health(answered=False, ready=False)


@dataclass
class Member:
    """A part, its process and its health. Times are monotonic."""

    part: Part
    child: Child | None = None
    started: bool = False
    health: Health = UNKNOWN
    asked: Future[Health] | None = None
    ask_at: float = 0.0
    restarts: int = 0
    failures: int = 0
    start_at: float | None = None
    up_since: float | None = None
    last_words: str = ""
    hung_since: float | None = None
    heard_at: float = 0.0
    waits_for: "Member | None" = None

    @property
    def state(self) -> PartState:
        if not self.started:
            return PartState.STOPPED
        if self.waits_for is not None:
            return PartState.STARTING
        if self.child is None and self.part.launch is not None:
            return PartState.RESTARTING if self.start_at is not None else PartState.STOPPED
        if self.health.ready:
            return PartState.UP
        if self.health.hung:
            return PartState.HUNG
        return PartState.NOT_READY if self.health.answered else PartState.STARTING

    @property
    def detail(self) -> str:
        if self.state is PartState.RESTARTING:
            return self.last_words
        if self.waits_for is not None:
            return f"waits for {self.waits_for.part.name}"
        return "" if self.health.ready or not self.started else self.health.detail

    def describe(self) -> dict[str, Any]:
        return {
            "name": self.part.name,
            "state": str(self.state),
            "pid": self.child.pid if self.child else None,
            "restarts": self.restarts,
            "detail": self.detail or None,
            "address": self.part.address,
            "managed": self.part.launch is not None,
        }


class Supervisor:
    """Runs the parts of one stack. Use it from the main thread."""

    def __init__(
        self,
        state: StateDirectory,
        parts: Sequence[Part],
        report: StackReport,
        signals: StopSignals,
    ) -> None:
        self.members = [Member(part) for part in parts]
        self._state = state
        self._report = report
        self._signals = signals
        self._pool = ThreadPoolExecutor(len(self.members) or 1, thread_name_prefix="probe")
        self._written = ""
        self._written_at = 0.0

    def start(self, stage: Stage) -> None:
        """Prepares and starts the parts of a stage; `_tick` starts those that wait for another one.

        Raises:
            StackError: a service cannot be started. Parts of the last stage are retried.
            KeyboardInterrupt: a stop signal came meanwhile.
        """
        for member in self._of(stage):
            member.waits_for = self._named(member.part.after)
            member.started = True
            if stage is Stage.SERVICES:
                with self._signals.interrupting():
                    member.part.prepare(self._report)
                self._launch(member)
            elif member.waits_for is None:
                self._try_start(member)
            self._tick()

    def wait_until_up(self, stage: Stage, seconds: float, *, strict: bool) -> list[Member]:
        """Waits for a stage; returns the members that are not up after `seconds`.

        Raises:
            StackError: with `strict`, a part died before it was up.
            KeyboardInterrupt: a stop signal came meanwhile.
        """
        deadline = time.monotonic() + seconds
        while True:
            self._tick()
            missing = [member for member in self._of(stage) if member.state is not PartState.UP]
            for member in missing:
                if strict and member.restarts + member.failures > 0:
                    raise StackError(
                        f"{member.part.name} does not start, it {member.last_words}; "
                        f"its log is in {self._state.logs}"
                    )
            if not missing or time.monotonic() > deadline:
                return missing
            self._signals.wait(TICK_SECONDS)
            if self._signals.requested:
                raise KeyboardInterrupt

    def watch(self) -> None:
        while not self._signals.requested:
            self._tick()
            self._signals.wait(TICK_SECONDS)

    def stop(self) -> None:
        """Ends what runs, last stage first; what does not end in time is killed."""
        hurry = max(self._signals.count, 1)
        self._pool.shutdown(wait=False, cancel_futures=True)
        for stage in sorted(Stage, reverse=True):
            members = self._of(stage)
            awaited = {member.part.after for member in members}
            self._stop([m for m in members if m.part.name not in awaited], hurry)
            self._stop([m for m in members if m.part.name in awaited], hurry)
            self._write_snapshot(always=True)

    def _stop(self, members: Sequence[Member], hurry: int) -> None:
        """Ends some parts together; more than `hurry` stop signals end the wait."""
        running = [(member, member.child) for member in members if member.child]
        descendants = [process for _, child in running for process in child.descendants()]
        for _, child in running:
            child.ask_to_stop()
        begun = time.monotonic()
        for member, child in running:
            deadline = begun + member.part.stop_seconds
            while not child.wait(0) and time.monotonic() < deadline:
                if self._signals.count > hurry:
                    break
                self._signals.wait(TICK_SECONDS)
            if not child.wait(0):
                self._report.say(f"{member.part.name} does not end in time: killing it")
                child.kill()
        # A Dagster run in progress outlives the code server that started it.
        for line in end_orphans(descendants):
            self._report.say(line)
        for member in members:
            member.child = member.start_at = member.waits_for = None
            member.health, member.started = UNKNOWN, False

    def _of(self, stage: Stage) -> list[Member]:
        return [member for member in self.members if member.part.stage is stage]

    def _named(self, name: str | None) -> Member | None:
        return next((member for member in self.members if member.part.name == name), None)

    def _tick(self) -> None:
        now = time.monotonic()
        for member in self.members:
            if not member.started:
                continue
            if member.waits_for is not None:
                if member.waits_for.state is PartState.UP:
                    member.waits_for = None
                    self._try_start(member)
                continue
            if member.child and member.child.poll() is not None:
                self._on_death(member, member.child, now)
            if member.start_at is not None and now >= member.start_at:
                member.restarts += self._try_start(member)
            self._probe(member, now)
        self._write_snapshot()

    def _launch(self, member: Member) -> None:
        """Starts a part's process, if it has one. Raises StackError if it cannot be started."""
        launch = member.part.launch
        member.started = True
        member.health, member.asked, member.ask_at = UNKNOWN, None, 0.0
        member.start_at = member.up_since = member.hung_since = None
        member.heard_at = time.monotonic()
        if launch is not None:
            pid_file = self._state.run / f"{member.part.name}.json"
            member.child = Child(member.part.name, launch(), pid_file)

    def _try_start(self, member: Member) -> bool:
        """Prepares and starts a part; plans the next try if it cannot be started."""
        try:
            with self._signals.interrupting():
                member.part.prepare(self._report)
            self._launch(member)
        except KeyboardInterrupt:
            return False
        except (StreamFlowError, OSError) as error:
            member.last_words = str(error)
            self._schedule(member, time.monotonic())
            return False
        return True

    def _on_death(self, member: Member, child: Child, now: float, why: str = "") -> None:
        child.wait(0)
        member.last_words = why or child.last_words()
        if why or child.poll() == HUNG_EXIT_CODE:
            # No crash loop: a hang takes its time, and is best restarted at once.
            member.failures = 0
        member.child, member.health = None, UNKNOWN
        if member.up_since is not None and now - member.up_since > SETTLED_SECONDS:
            member.failures = 0
        self._schedule(member, now)

    def _schedule(self, member: Member, now: float) -> None:
        pause = min(FIRST_BACKOFF_SECONDS * 2**member.failures, LAST_BACKOFF_SECONDS)
        member.failures += 1
        member.start_at = now + pause
        self._report.say(f"{member.part.name} {member.last_words}: starting it in {pause:g} s")

    def _probe(self, member: Member, now: float) -> None:
        if member.asked is not None and member.asked.done():
            # A new process is not judged by its predecessor's answer.
            if member.child or member.part.launch is None:
                self._judge(member, member.asked.result(), now)
                self._end_if_hung(member, now)
            member.asked = None
            member.ask_at = now + (PROBE_PAUSE_SECONDS if member.health.ready else TICK_SECONDS)
        waiting = member.child is None and member.part.launch is not None
        if member.asked is None and not waiting and now >= member.ask_at:
            member.asked = self._pool.submit(member.part.probe)

    def _judge(self, member: Member, health: Health, now: float) -> None:
        if health.answered:
            member.heard_at = now
        if not health.hung:
            member.hung_since = None
        elif member.hung_since is None:
            member.hung_since = now
        if not health.ready and member.up_since is not None:
            # It was up before, so it is not starting.
            health = replace(health, answered=True)
        was_ready, member.health = member.health.ready, health
        if health.ready and not was_ready:
            member.up_since = now
            if member.restarts:
                self._report.say(f"{member.part.name} is up again (restarts: {member.restarts})")
        elif was_ready and not health.ready:
            self._report.say(f"{member.part.name} is not ready: {health.detail}")

    def _end_if_hung(self, member: Member, now: float) -> None:
        """Kills a process that is past its part's patience; `_tick` then sees its end."""
        child, patience = member.child, member.part.patience
        if child is None or patience is None or child.poll() is not None:
            return
        if member.hung_since is not None and now - member.hung_since > patience.hung:
            why = member.health.detail
        elif now - member.heard_at > patience.silent:
            why = f"has not answered for {now - member.heard_at:.0f} s"
        else:
            return
        child.kill()
        self._on_death(member, child, now, f"{why} and was killed")

    def _write_snapshot(self, *, always: bool = False) -> None:
        parts = json.dumps([member.describe() for member in self.members])
        now = time.monotonic()
        if always or parts != self._written or now - self._written_at > SNAPSHOT_SECONDS:
            self._written, self._written_at = parts, now
            content = {"pid": os.getpid(), "updated_at": time.time(), "parts": json.loads(parts)}
            write_atomically(self._state.snapshot, json.dumps(content))
