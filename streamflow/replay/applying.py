"""Sending dead letters again: each once, whatever is killed, and at most as fast as allowed (G8)."""

import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from streamflow.errors import StreamFlowError
from streamflow.kafka.publishing import Publisher
from streamflow.postgres import letter_selection, replay_store
from streamflow.postgres.connections import Connection, connect, translated
from streamflow.postgres.letter_selection import Selection
from streamflow.postgres.replay_store import Claim, Outcome, Running
from streamflow.records import Origin
from streamflow.registry import hasher_for
from streamflow.replay.planning import (
    SAMPLES,
    Planner,
    Verdict,
    eligible,
    left_out,
    make_planner,
)
from streamflow.replay.recovery import give_up, recover
from streamflow.replay.report import Options, Report, Sample
from streamflow.settings import Settings
from streamflow.stream import Stream

_BATCH: Final = 200  # letters in a transaction
_POLL: Final = 0.25  # seconds

# Told: letters done, letters selected.
OnProgress = Callable[[int, int], None]


class _Stop(Exception):
    """Ends a replay in order, with what is to be told of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    settings: Settings
    selection: Selection
    options: Options
    stop: threading.Event
    on_progress: OnProgress


def apply(
    settings: Settings,
    streams: Sequence[Stream],
    selection: Selection,
    options: Options,
    *,
    requested_by: str,
    stop: threading.Event | None = None,
    on_progress: OnProgress = lambda _done, _of: None,
) -> Report:
    """Replays the selected letters that would pass. The others stay as they are, noted as failing.

    Nothing is lost or doubled by running it twice or several at once, by stopping or killing it:
    what is sent is written down before and after, the next replay decides what a killed one left
    open, and letters that another one holds are left to it.

    Args:
        settings: where broker and database are.
        streams: whose letters.
        selection: which letters; its statuses are those that can be replayed.
        options: how.
        requested_by: who is told to have wanted it; an address is hashed.
        stop: ends it in order after the batch in hand.
        on_progress: told after each batch.

    Raises:
        UsageError: a repair or an id is unknown.
        Unavailable: broker or database does not answer; start it again when they do.
        Fenced: another process has taken this replay over, since this one stood still.
    """
    planner = make_planner(settings, streams, options)
    selection = eligible(selection, options)
    requested_by = hasher_for(settings, streams).redact(requested_by.encode()).decode()
    request = _Request(
        settings=settings,
        selection=selection,
        options=options,
        stop=stop or threading.Event(),
        on_progress=on_progress,
    )
    connection = connect(settings, "replay", statement_timeout=0)
    running: Running | None = None
    try:
        with translated():
            recovered = recover(settings, connection)
            replay_store.settle(connection)
            skipped = left_out(connection, selection)
            running = replay_store.begin(
                connection,
                transactional_id=f"{settings.prefix}replay-{uuid.uuid4().hex}",
                requested_by=requested_by,
                selection=selection.as_dict(),
                options=options.as_dict(),
            )
            report = _Replay(request, planner, connection, running).run()
        report.skipped, report.recovered = skipped, recovered
        return report
    except BaseException as error:
        connection.close()
        if running is not None:
            give_up(settings, running, _why(error))
        raise
    finally:
        connection.close()


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
        self._total = letter_selection.count(connection, request.selection, running.started_at)

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
        for ids in letter_selection.pages(
            self._connection, self._request.selection, loaded_until=self._running.started_at
        ):
            left = ids
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
            _Stop: told to.
        """
        due = self._began + self._sent / self._options.rate
        if self._request.stop.wait(max(0.0, due - time.monotonic())):
            raise _Stop("stopped on demand; run it again for the letters that are left")

    def _send(self, publisher: Publisher, ids: Sequence[Origin]) -> None:
        """Sends a batch.

        1. in one database transaction: lock the letters, judge them, write down what is meant;
        2. in one Kafka transaction: produce; write the positions down, in the database; commit;
        3. write down that it is committed.

        A kill between any two of these leaves what `recovery` can tell apart.
        """
        with self._connection.transaction():
            letters = letter_selection.read(
                self._connection,
                ids,
                group=self._request.settings.group("loader"),
                statuses=self._request.selection.statuses,
                lock=True,
            )
            verdicts = [self._planner.judge(letter) for letter in letters]
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
            _Stop: told to.
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
            replay_id=self._running.id,
            state=state,
            note=note,
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
