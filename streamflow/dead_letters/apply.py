"""Applying a plan: the dead letters of it are sent again, each once, whatever is killed, and at most
as fast as allowed (G8)."""

import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final

from streamflow.dead_letters import plan_store
from streamflow.dead_letters import select as letter_selection
from streamflow.dead_letters import store as replay_store
from streamflow.dead_letters.plan import (
    SAMPLES,
    Planner,
    Verdict,
    eligible_statuses,
    make_planner,
    plan,
    redacted,
)
from streamflow.dead_letters.plan_store import Plan, PlannedLetter
from streamflow.dead_letters.recover import give_up, recover, recover_before_plan
from streamflow.dead_letters.report import Options, Report, Sample
from streamflow.dead_letters.select import Selection, Status
from streamflow.dead_letters.store import Claim, Outcome, Running
from streamflow.errors import StreamFlowError, UsageError
from streamflow.kafka.transactions import Publisher
from streamflow.postgres.connections import Connection, connect, translated
from streamflow.records import Origin
from streamflow.settings import Settings
from streamflow.stream import Stream

_BATCH: Final = 200  # letters in a transaction
_POLL: Final = 0.25  # seconds

# Called with the dead letters done, and those of the plan.
OnProgress = Callable[[int, int], None]
OnPlan = Callable[[Report], None]

# Why dead letters of a plan are left out, besides their status now.
_GONE: Final = "gone"
_IN_USE: Final = "in use by another process"
_PASSES_NOW: Final = "passing only since the plan was made"


class _Stop(Exception):
    """Ends a replay in order, with what the report says of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    settings: Settings
    plan: Plan
    options: Options
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
) -> Report:
    """Replays the dead letters of a plan that pass, with the plan's options, and no others.

    Each is judged again first. One that would fail now stays as it is, noted as failing; one that
    was replayed meanwhile, is gone, or passes only since the plan was made is left out, and the
    report counts it.

    Nothing is lost or doubled by applying a plan twice or several times at once, by stopping or
    killing it: what is sent is written down before and after, the next replay decides what a killed
    one left open, and dead letters that another one holds are left to it.

    Args:
        settings: where broker and database are.
        streams: whose dead letters.
        plan_id: of a plan that `plan` has made.
        requested_by: who wants it, for the record; an address is hashed.
        stop: ends it in order after the batch in hand.
        on_progress: called after each batch.

    Raises:
        UsageError: there is no such plan, it is too old, or a repair of it is unknown.
        Unavailable: broker or database does not answer; start it again when they do.
        Fenced: another process has taken this replay over, since this one stood still.
    """
    connection = connect(settings, "replay", statement_timeout=0)
    running: Running | None = None
    try:
        with translated():
            found = _find(connection, plan_id)
            options = Options.from_dict(found.options)
            planner = make_planner(settings, streams, options)
            recovered = recover(settings, connection)
            replay_store.settle(connection)
            running = replay_store.begin(
                connection,
                transactional_id=f"{settings.prefix}replay-{uuid.uuid4().hex}",
                requested_by=redacted(settings, streams, requested_by),
                plan=found,
            )
            request = _Request(
                settings=settings,
                plan=found,
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
    options: Options,
    *,
    requested_by: str,
) -> Report:
    """As `plan`, but decides first what killed replays left: their dead letters are open again."""
    recovered = recover_before_plan(settings)
    report = plan(settings, streams, selection, options, requested_by=requested_by)
    report.recovered = recovered
    return report


def plan_and_apply(
    settings: Settings,
    streams: Sequence[Stream],
    selection: Selection,
    options: Options,
    *,
    requested_by: str,
    stop: threading.Event | None = None,
    on_plan: OnPlan = lambda _plan: None,
    on_progress: OnProgress = lambda _done, _of: None,
) -> Report:
    """Makes a plan and applies it at once; arguments and errors are those of `plan` and `apply`.
    `on_plan` is called with the plan before anything is sent."""
    planned = plan_after_recovery(settings, streams, selection, options, requested_by=requested_by)
    assert planned.plan_id is not None  # noqa: S101 (it was written down)
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


def _find(connection: Connection, plan_id: int) -> Plan:
    found = plan_store.find(connection, plan_id)
    if found is None:
        raise UsageError(
            f"there is no plan {plan_id}, or it is older than {plan_store.KEPT.days} days: make a new "
            "one with `streamflow dlq replay`"
        )
    return found


def _why(error: BaseException) -> str:
    return str(error) if isinstance(error, StreamFlowError) else type(error).__name__


class _Replay:
    """One replay, from its first batch to its report."""

    def __init__(
        self, request: _Request, planner: Planner, connection: Connection, running: Running
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

    def run(self) -> Report:
        state, note = "finished", ""
        publisher = Publisher(self._request.settings, self._running.transactional_id)
        try:
            self._send_all(publisher)
            self._wait(self._options.patience)
        except _Stop as stopped:
            state, note = "stopped", str(stopped)
        finally:
            publisher.close()
        replay_store.settle(self._connection)
        replay_store.finish(self._connection, self._running.id, state, note)
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
        """As many letters as may be sent in a second, and not more than the canary lacks."""
        size = max(1, min(_BATCH, int(self._options.rate)))
        if self._canary_seen or not self._options.canary:
            return size
        return max(1, min(size, self._options.canary - self._sent))

    def _pace(self) -> None:
        """Waits until the rate allows another batch.

        Raises:
            _Stop: it was asked to end.
        """
        due = self._began + self._sent / self._options.rate
        if self._request.stop.wait(max(0.0, due - time.monotonic())):
            raise _Stop(
                f"stopped on demand; apply plan {self._request.plan.id} again for the dead letters "
                "that are left"
            )

    def _send(self, publisher: Publisher, planned: Sequence[PlannedLetter]) -> None:
        """Sends a batch.

        1. in one database transaction: lock the letters, judge them, write down what is meant;
        2. in one Kafka transaction: produce; write the positions down, in the database; commit;
        3. write down that it is committed.

        A kill between any two of these leaves what `recovery` can tell apart.
        """
        with self._connection.transaction():
            verdicts = self._judge(planned)
            replay_store.claim(self._connection, self._running.id, list(map(_claim, verdicts)))
        records = [each.record for each in verdicts if each.record is not None]
        if not records:
            return
        claimed = [each.letter.id for each in verdicts if each.record is not None]
        publisher.publish(
            records,
            lambda positions: replay_store.prepare(
                self._connection, self._running.id, claimed, positions
            ),
        )
        replay_store.confirm(self._connection, self._running.id)
        self._sent += len(records)

    def _judge(self, planned: Sequence[PlannedLetter]) -> list[Verdict]:
        """Locks and judges dead letters; counts those that are left out."""
        ids = [each.id for each in planned]
        letters = letter_selection.read(
            self._connection,
            ids,
            group=self._request.settings.group("loader"),
            statuses=eligible_statuses(self._options),
            lock=True,
        )
        passed = {each.id for each in planned if each.passes}
        verdicts, unplanned = [], 0
        for verdict in map(self._planner.judge, letters):
            if verdict.record is None or verdict.letter.id in passed:
                verdicts.append(verdict)
            else:
                unplanned += 1
        missing = set(ids) - {letter.id for letter in letters}
        self._left_out.update(self._reason(status) for status in self._statuses(missing))
        if unplanned:
            self._left_out[_PASSES_NOW] += unplanned
        return verdicts

    def _statuses(self, ids: Collection[Origin]) -> list[Status | None]:
        """The status now of each of these; None for one that is gone."""
        if not ids:
            return []
        known = letter_selection.statuses_of(self._connection, list(ids))
        return [known.get(each) for each in ids]

    def _reason(self, status: Status | None) -> str:
        if status is None:
            return _GONE
        # Eligible, and yet not read: it is locked.
        return _IN_USE if status in eligible_statuses(self._options) else status.value

    def _watch_canary(self) -> None:
        """Waits for the first letters' end.

        Raises:
            _Stop: one of them was refused, or is not seen in time.
        """
        self._canary_seen = True
        pending = self._wait(self._options.patience)
        refused = replay_store.rejected(self._connection, self._running.id)
        if refused:
            raise _Stop(
                f"{refused} of {self._sent} letters of the canary were refused though the plan let "
                "them pass: do the workers run the same contract? See `streamflow dlq show ID`"
            )
        if pending:
            raise _Stop(
                f"{pending} of {self._sent} letters of the canary were not seen within "
                f"{self._options.patience:g} s: see with `streamflow status` whether validator and "
                "loader work"
            )

    def _wait(self, patience: float) -> int:
        """Waits until all that was sent has become something; returns how much has not.

        Raises:
            _Stop: it was asked to end.
        """
        deadline = time.monotonic() + patience
        while True:
            replay_store.settle(self._connection)
            pending = replay_store.pending(self._connection, self._running.id)
            if not pending or time.monotonic() >= deadline:
                return pending
            if self._request.stop.wait(_POLL):
                raise _Stop("stopped on demand; what was sent needs no second replay")

    def _report(self, state: str, note: str) -> Report:
        found = replay_store.outcomes(self._connection, self._running.id)
        return Report(
            dry_run=False,
            plan_id=self._request.plan.id,
            replay_id=self._running.id,
            state=state,
            note=note,
            skipped=dict(self._left_out),
            tally=Counter({(code, outcome, why): number for code, outcome, why, number in found}),
            samples=[
                Sample(str(id_), *texts)
                for id_, *texts in replay_store.samples(self._connection, self._running.id, SAMPLES)
            ],
        )


def _claim(verdict: Verdict) -> Claim:
    letter = verdict.letter
    return Claim(
        letter.id,
        letter.status,
        letter.attempt + 1 if verdict.record is not None else letter.attempt,
        Outcome.PLANNED if verdict.record is not None else verdict.outcome,
        verdict.reason,
        verdict.message,
    )
