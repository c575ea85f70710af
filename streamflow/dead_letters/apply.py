"""Applying a plan: sends its dead letters again, each exactly once even across crashes, at a limited
rate (G8)."""

import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from streamflow.dead_letters import plan_store, select, store
from streamflow.dead_letters.plan import (
    SAMPLES,
    Planner,
    eligible_statuses,
    make_planner,
    plan,
    redacted,
)
from streamflow.dead_letters.plan_store import PlannedDeadLetter
from streamflow.dead_letters.recover import give_up, recover
from streamflow.dead_letters.report import ReplayOptions, ReplayReport
from streamflow.dead_letters.select import Selection, Status
from streamflow.dead_letters.store import Outcome, PlannedOutcome, RunningReplay
from streamflow.errors import StreamFlowError
from streamflow.kafka.transactions import Publisher
from streamflow.lineage.runs import lineage_of
from streamflow.lineage.streams import StreamDatasets
from streamflow.postgres.connections import Connection, connect, session, translated
from streamflow.settings import Settings
from streamflow.stream import Stream
from streamflow.units import counted, either

_BATCH: Final = 200  # dead letters in a transaction
_POLL: Final = 0.25  # seconds

OnProgress = Callable[[int, int], None]  # with the number of dead letters done, and of the plan's


class _Stop(Exception):
    """Stops a replay; its text becomes the note of the report."""


def apply(
    settings: Settings,
    streams: Sequence[Stream],
    plan_id: int,
    *,
    requested_by: str,
    stop: threading.Event | None = None,
    on_progress: OnProgress = lambda _done, _of: None,
    run_id: str | None = None,
) -> ReplayReport:
    """Replays the dead letters of a plan that pass, with the plan's options, and no others.

    Each one is checked again first. One that would fail now keeps its status and is reported as
    failing; one that was replayed since, is gone, or passes only now is left out and counted.

    A plan may be applied twice, concurrently, stopped or killed: no record is lost or sent twice.
    Each send is recorded before and after, the next replay resolves what a killed one left open, and
    dead letters that another replay has locked are skipped.

    Args:
        requested_by: recorded with the replay; an address is hashed.
        stop: when set, the replay ends after the current batch.
        on_progress: called after each batch.
        run_id: a UUID that the replay has in lineage; a new one by default.

    Raises:
        UsageError: the plan is unknown or has expired, or one of its repairs is unknown.
        Unavailable: broker or database does not answer; start it again when they do.
        Fenced: another process has taken this replay over because this one was stalled.
    """
    job = StreamDatasets.replay
    with lineage_of(settings, streams, job, run_id=run_id) as written:
        return _apply(
            settings,
            streams,
            plan_id,
            requested_by=requested_by,
            stop=stop or threading.Event(),
            on_progress=on_progress,
            written=written,
        )


def _apply(
    settings: Settings,
    streams: Sequence[Stream],
    plan_id: int,
    *,
    requested_by: str,
    stop: threading.Event,
    on_progress: OnProgress,
    written: Counter[str],
) -> ReplayReport:
    connection = connect(settings, "replay", statement_timeout=0)
    running: RunningReplay | None = None
    try:
        with translated():
            chosen = plan_store.find(connection, plan_id)
            options = ReplayOptions.from_dict(chosen.options)
            planner = make_planner(settings, streams, options)
            recovered = recover(settings, connection)
            store.settle(connection)
            running = store.begin(
                connection,
                transactional_id=f"{settings.prefix}replay-{uuid.uuid4().hex}",
                requested_by=redacted(settings, streams, requested_by),
                plan=chosen,
            )
            report = _Replay(
                settings=settings,
                connection=connection,
                running=running,
                plan_id=plan_id,
                options=options,
                planner=planner,
                stop=stop,
                on_progress=on_progress,
                written=written,
            ).run()
        report.recovered = recovered
        return report
    except BaseException as error:
        connection.close()
        if running is not None:
            known = isinstance(error, StreamFlowError)
            give_up(settings, running, str(error) if known else type(error).__name__)
        raise
    finally:
        connection.close()


def plan_after_recovery(
    settings: Settings,
    streams: Sequence[Stream],
    selection: Selection,
    options: ReplayOptions,
    *,
    requested_by: str,
) -> ReplayReport:
    """As `plan`, after recovering killed replays, so that their dead letters are open again."""
    with session(settings, "replay-recovery") as connection:
        recovered = recover(settings, connection)
        store.settle(connection)
    report = plan(settings, streams, selection, options, requested_by=requested_by)
    report.recovered = recovered
    return report


def plan_and_apply(
    settings: Settings,
    streams: Sequence[Stream],
    selection: Selection,
    options: ReplayOptions,
    *,
    requested_by: str,
    stop: threading.Event | None = None,
    on_plan: Callable[[ReplayReport], None] = lambda _plan: None,
    on_progress: OnProgress = lambda _done, _of: None,
    run_id: str | None = None,
) -> ReplayReport:
    """Makes a plan and applies it; arguments and errors are those of `plan` and `apply`. `on_plan` is
    called with the plan before anything is sent."""
    planned = plan_after_recovery(settings, streams, selection, options, requested_by=requested_by)
    assert planned.plan_id is not None  # noqa: S101 (it was saved)
    on_plan(planned)
    report = apply(
        settings,
        streams,
        planned.plan_id,
        requested_by=requested_by,
        stop=stop,
        on_progress=on_progress,
        run_id=run_id,
    )
    report.recovered = [*planned.recovered, *report.recovered]
    report.skipped = dict(Counter(planned.skipped) + Counter(report.skipped))
    return report


@dataclass(slots=True, kw_only=True)
class _Replay:
    """One replay, from its first batch to its report."""

    settings: Settings
    connection: Connection
    running: RunningReplay
    plan_id: int
    options: ReplayOptions
    planner: Planner
    stop: threading.Event
    on_progress: OnProgress
    written: Counter[str]  # records by topic
    sent: int = 0
    canary_seen: bool = False
    began: float = field(default_factory=time.monotonic)
    left_out: Counter[str] = field(default_factory=Counter)

    def run(self) -> ReplayReport:
        state, note = "finished", ""
        publisher = Publisher(
            self.settings, self.running.transactional_id, self.planner.record_bytes
        )
        try:
            self._send_all(publisher)
            self._wait()
        except _Stop as stopped:
            state, note = "stopped", str(stopped)
        finally:
            publisher.close()
        store.settle(self.connection)
        store.finish(self.connection, self.running.id, state, note)
        return self._report(state, note)

    def _send_all(self, publisher: Publisher) -> None:
        done, total = 0, plan_store.size(self.connection, self.plan_id)
        for page in plan_store.pages(self.connection, self.plan_id):
            left = page
            while left:
                size = self._batch_size()
                batch, left = left[:size], left[size:]
                self._pace()
                self._send(publisher, batch)
                done += len(batch)
                self.on_progress(done, total)
                if 0 < self.options.canary <= self.sent and not self.canary_seen:
                    self._watch_canary()
        if self.options.canary and not self.canary_seen:
            self._watch_canary()

    def _batch_size(self) -> int:
        """At most one second's worth of dead letters, and no more than the canary still needs."""
        size = max(1, min(_BATCH, int(self.options.rate)))
        if self.canary_seen or not self.options.canary:
            return size
        return max(1, min(size, self.options.canary - self.sent))

    def _pace(self) -> None:
        """Waits until the rate allows another batch; raises _Stop on request."""
        due = self.began + self.sent / self.options.rate
        if self.stop.wait(max(0.0, due - time.monotonic())):
            raise _Stop(f"stopped on request; apply plan {self.plan_id} again to send the rest")

    def _send(self, publisher: Publisher, planned: Sequence[PlannedDeadLetter]) -> None:
        """Sends a batch.

        1. in one database transaction: lock the dead letters, check them, record what will be sent;
        2. in one Kafka transaction: produce; record the positions in the database; commit;
        3. record that Kafka has committed.

        `recover` can resolve a crash between any two of these steps.
        """
        with self.connection.transaction():
            outcomes = self._judge(planned)
            store.claim(self.connection, self.running.id, outcomes)
        records = [outcome.record for outcome in outcomes if outcome.record is not None]
        if not records:
            return
        claimed = [outcome.letter.id for outcome in outcomes if outcome.record is not None]
        publisher.publish(
            records,
            lambda positions: store.prepare(self.connection, self.running.id, claimed, positions),
        )
        store.confirm(self.connection, self.running.id)
        self.sent += len(records)
        self.written.update(record.topic for record in records)

    def _judge(self, planned: Sequence[PlannedDeadLetter]) -> list[PlannedOutcome]:
        """Locks and checks dead letters; counts those that are left out."""
        ids = [letter.id for letter in planned]
        letters = select.read(
            self.connection,
            ids,
            group=self.settings.group("loader"),
            statuses=eligible_statuses(self.options),
            lock=True,
        )
        passed = {letter.id for letter in planned if letter.passes}
        outcomes = []
        for outcome in map(self.planner.judge, letters):
            if outcome.record is None or outcome.letter.id in passed:
                outcomes.append(outcome)
            else:
                self.left_out["passing only since the plan was made"] += 1
        missing = list(set(ids) - {letter.id for letter in letters})
        if missing:
            known = select.statuses_of(self.connection, missing)
            self.left_out.update(self._reason(known.get(id_)) for id_ in missing)
        return outcomes

    def _reason(self, status: Status | None) -> str:
        if status is None:
            return "gone"
        # Eligible but not read: another transaction has locked it.
        eligible = status in eligible_statuses(self.options)
        return "in use by another process" if eligible else status.value

    def _watch_canary(self) -> None:
        """Waits until the first dead letters are stored.

        Raises:
            _Stop: one of them was rejected, or not stored in time.
        """
        self.canary_seen = True
        pending = self._wait()
        rejected = store.count(self.connection, self.running.id, Outcome.REJECTED)
        if rejected:
            raise _Stop(
                f"{rejected} of {counted(self.sent, 'dead letter')} of the canary "
                f"{either(rejected, 'was', 'were')} rejected "
                "after passing here: do the workers run the same contract? See `streamflow dlq show ID`"
            )
        if pending:
            raise _Stop(
                f"{pending} of {counted(self.sent, 'dead letter')} of the canary "
                f"{either(pending, 'was', 'were')} not stored within "
                f"{self.options.patience:g} s: check validator and loader with `streamflow status`"
            )

    def _wait(self) -> int:
        """Waits until each record sent has an outcome; returns how many have none yet. Raises _Stop on
        request."""
        deadline = time.monotonic() + self.options.patience
        while True:
            store.settle(self.connection)
            pending = store.count(self.connection, self.running.id, Outcome.SENT)
            if not pending or time.monotonic() >= deadline:
                return pending
            if self.stop.wait(_POLL):
                raise _Stop("stopped on request; what was sent need not be replayed again")

    def _report(self, state: str, note: str) -> ReplayReport:
        return ReplayReport(
            dry_run=False,
            plan_id=self.plan_id,
            replay_id=self.running.id,
            state=state,
            note=note,
            skipped=dict(self.left_out),
            tally=store.tally(self.connection, self.running.id),
            samples=store.samples(self.connection, self.running.id, SAMPLES),
        )
