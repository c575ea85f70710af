"""Applying a plan: sends its dead letters again, each exactly once even across crashes, at a limited
rate (G8)."""

import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final

from streamflow.dead_letters import plan_store, select, store
from streamflow.dead_letters.plan import (
    SAMPLES,
    PlannedOutcome,
    Planner,
    eligible_statuses,
    make_planner,
    plan,
    redacted,
)
from streamflow.dead_letters.plan_store import PlannedDeadLetter, ReplayPlan
from streamflow.dead_letters.recover import give_up, recover, recover_before_plan
from streamflow.dead_letters.report import ReplayOptions, ReplayReport, Sample
from streamflow.dead_letters.select import Selection, Status
from streamflow.dead_letters.store import Claim, Outcome, RunningReplay
from streamflow.errors import StreamFlowError, UsageError
from streamflow.kafka.transactions import Publisher
from streamflow.postgres.connections import Connection, connect, translated
from streamflow.records import Origin
from streamflow.settings import Settings
from streamflow.stream import Stream

_BATCH: Final = 200  # dead letters in a transaction
_POLL: Final = 0.25  # seconds

# Called with the number of dead letters done, and of those in the plan.
OnProgress = Callable[[int, int], None]
OnPlan = Callable[[ReplayReport], None]

# Why dead letters of a plan are left out, besides their present status.
_GONE: Final = "gone"
_IN_USE: Final = "in use by another process"
_PASSES_NOW: Final = "passing only since the plan was made"


class _Stop(Exception):
    """Stops a replay; its text becomes the note of the report."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    settings: Settings
    plan: ReplayPlan
    options: ReplayOptions
    stop: threading.Event
    on_progress: OnProgress


def apply(
    settings: Settings,
    streams: Sequence[Stream],
    plan_id: int,
    *,
    requested_by: str,
    stop: threading.Event | None = None,
    on_progress: OnProgress = lambda _done, _of: None,
) -> ReplayReport:
    """Replays the dead letters of a plan that pass, with the plan's options, and no others.

    Each one is checked again first. One that would fail now keeps its status and is reported as
    failing; one that was replayed since, is gone, or passes only now is left out and counted.

    A plan may be applied twice, concurrently, stopped or killed: no record is lost or sent twice.
    Each send is recorded before and after, the next replay resolves what a killed one left open, and
    dead letters that another replay has locked are skipped.

    Args:
        settings: of broker and database.
        streams: the dead letters are theirs.
        plan_id: of a plan made by `plan`.
        requested_by: recorded with the replay; an address is hashed.
        stop: when set, the replay ends after the current batch.
        on_progress: called after each batch.

    Raises:
        UsageError: the plan is unknown or has expired, or one of its repairs is unknown.
        Unavailable: broker or database does not answer; start it again when they do.
        Fenced: another process has taken this replay over because this one was stalled.
    """
    connection = connect(settings, "replay", statement_timeout=0)
    running: RunningReplay | None = None
    try:
        with translated():
            chosen = _find(connection, plan_id)
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
            request = _Request(
                settings=settings,
                plan=chosen,
                options=options,
                stop=stop or threading.Event(),
                on_progress=on_progress,
            )
            report = _Replay(request, planner, connection, running).run()
        report.recovered = recovered
        return report
    except BaseException as error:
        connection.close()
        if running is not None:
            give_up(settings, running, _why(error))
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
    recovered = recover_before_plan(settings)
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
    on_plan: OnPlan = lambda _plan: None,
    on_progress: OnProgress = lambda _done, _of: None,
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
    )
    report.recovered = [*planned.recovered, *report.recovered]
    report.skipped = dict(Counter(planned.skipped) + Counter(report.skipped))
    return report


def _find(connection: Connection, plan_id: int) -> ReplayPlan:
    chosen = plan_store.find(connection, plan_id)
    if chosen is None:
        raise UsageError(
            f"there is no plan {plan_id}, or it is older than {plan_store.KEPT.days} days: make a new "
            "one with `streamflow dlq replay`"
        )
    return chosen


def _why(error: BaseException) -> str:
    return str(error) if isinstance(error, StreamFlowError) else type(error).__name__


class _Replay:
    """One replay, from its first batch to its report."""

    def __init__(
        self, request: _Request, planner: Planner, connection: Connection, running: RunningReplay
    ) -> None:
        self._request = request
        self._options = request.options
        self._planner = planner
        self._connection = connection
        self._running = running
        self._sent = 0
        self._done = 0
        self._canary_seen = False
        self._began = time.monotonic()
        self._total = plan_store.size(connection, request.plan.id)
        self._left_out: Counter[str] = Counter()

    def run(self) -> ReplayReport:
        state, note = "finished", ""
        publisher = Publisher(self._request.settings, self._running.transactional_id)
        try:
            self._send_all(publisher)
            self._wait(self._options.patience)
        except _Stop as stopped:
            state, note = "stopped", str(stopped)
        finally:
            publisher.close()
        store.settle(self._connection)
        store.finish(self._connection, self._running.id, state, note)
        return self._report(state, note)

    def _send_all(self, publisher: Publisher) -> None:
        for page in plan_store.pages(self._connection, self._request.plan.id):
            left = page
            while left:
                size = self._batch_size()
                batch, left = left[:size], left[size:]
                self._pace()
                self._send(publisher, batch)
                self._done += len(batch)
                self._request.on_progress(self._done, self._total)
                if 0 < self._options.canary <= self._sent and not self._canary_seen:
                    self._watch_canary()
        if self._options.canary and not self._canary_seen:
            self._watch_canary()

    def _batch_size(self) -> int:
        """At most one second's worth of dead letters, and no more than the canary still needs."""
        size = max(1, min(_BATCH, int(self._options.rate)))
        if self._canary_seen or not self._options.canary:
            return size
        return max(1, min(size, self._options.canary - self._sent))

    def _pace(self) -> None:
        """Waits until the rate allows another batch.

        Raises:
            _Stop: on request.
        """
        due = self._began + self._sent / self._options.rate
        if self._request.stop.wait(max(0.0, due - time.monotonic())):
            raise _Stop(
                f"stopped on request; apply plan {self._request.plan.id} again to send the rest"
            )

    def _send(self, publisher: Publisher, planned: Sequence[PlannedDeadLetter]) -> None:
        """Sends a batch.

        1. in one database transaction: lock the dead letters, check them, record what will be sent;
        2. in one Kafka transaction: produce; record the positions in the database; commit;
        3. record that Kafka has committed.

        `recover` can resolve a crash between any two of these steps.
        """
        with self._connection.transaction():
            outcomes = self._judge(planned)
            store.claim(self._connection, self._running.id, list(map(_claim, outcomes)))
        records = [outcome.record for outcome in outcomes if outcome.record is not None]
        if not records:
            return
        claimed = [outcome.letter.id for outcome in outcomes if outcome.record is not None]
        publisher.publish(
            records,
            lambda positions: store.prepare(self._connection, self._running.id, claimed, positions),
        )
        store.confirm(self._connection, self._running.id)
        self._sent += len(records)

    def _judge(self, planned: Sequence[PlannedDeadLetter]) -> list[PlannedOutcome]:
        """Locks and checks dead letters; counts those that are left out."""
        ids = [letter.id for letter in planned]
        letters = select.read(
            self._connection,
            ids,
            group=self._request.settings.group("loader"),
            statuses=eligible_statuses(self._options),
            lock=True,
        )
        passed = {letter.id for letter in planned if letter.passes}
        outcomes, unplanned = [], 0
        for outcome in map(self._planner.judge, letters):
            if outcome.record is None or outcome.letter.id in passed:
                outcomes.append(outcome)
            else:
                unplanned += 1
        missing = set(ids) - {letter.id for letter in letters}
        self._left_out.update(self._reason(status) for status in self._statuses(missing))
        if unplanned:
            self._left_out[_PASSES_NOW] += unplanned
        return outcomes

    def _statuses(self, ids: Collection[Origin]) -> list[Status | None]:
        """The present status of each; None for one that is gone."""
        if not ids:
            return []
        known = select.statuses_of(self._connection, list(ids))
        return [known.get(id_) for id_ in ids]

    def _reason(self, status: Status | None) -> str:
        if status is None:
            return _GONE
        # Eligible but not read: another transaction has locked it.
        return _IN_USE if status in eligible_statuses(self._options) else status.value

    def _watch_canary(self) -> None:
        """Waits until the first dead letters are stored.

        Raises:
            _Stop: one of them was rejected, or not stored in time.
        """
        self._canary_seen = True
        pending = self._wait(self._options.patience)
        rejected = store.count(self._connection, self._running.id, Outcome.REJECTED)
        if rejected:
            raise _Stop(
                f"{rejected} of {self._sent} dead letters of the canary were rejected though they "
                "passed here: do the workers run the same contract? See `streamflow dlq show ID`"
            )
        if pending:
            raise _Stop(
                f"{pending} of {self._sent} dead letters of the canary were not stored within "
                f"{self._options.patience:g} s: check validator and loader with `streamflow status`"
            )

    def _wait(self, patience: float) -> int:
        """Waits until each record sent has an outcome; returns how many have none yet.

        Raises:
            _Stop: on request.
        """
        deadline = time.monotonic() + patience
        while True:
            store.settle(self._connection)
            pending = store.count(self._connection, self._running.id, Outcome.SENT)
            if not pending or time.monotonic() >= deadline:
                return pending
            if self._request.stop.wait(_POLL):
                raise _Stop("stopped on request; what was sent need not be replayed again")

    def _report(self, state: str, note: str) -> ReplayReport:
        outcomes = store.outcomes(self._connection, self._running.id)
        return ReplayReport(
            dry_run=False,
            plan_id=self._request.plan.id,
            replay_id=self._running.id,
            state=state,
            note=note,
            skipped=dict(self._left_out),
            tally=Counter(
                {(code, outcome, why): number for code, outcome, why, number in outcomes}
            ),
            samples=[
                Sample(str(id_), *texts)
                for id_, *texts in store.samples(self._connection, self._running.id, SAMPLES)
            ],
        )


def _claim(planned: PlannedOutcome) -> Claim:
    letter, outcome, record, reason, message = planned
    if record is not None:
        return Claim(letter.id, letter.status, letter.attempt + 1, Outcome.PLANNED, reason, message)
    return Claim(letter.id, letter.status, letter.attempt, outcome, reason, message)
