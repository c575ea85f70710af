"""Releases of one stream, one after the other, over the same topics and the same database: the workers' own
code in this process, a list for each topic instead of a broker."""

import json
import time
from collections import Counter, defaultdict
from typing import Any

from loads import TRUSTING, FakeRecord, Load, batch, execute, rows
from streamflow.audit.outcomes import accounted_offsets
from streamflow.audit.windows.counts import reconcile
from streamflow.audit.windows.reconciliation import Reconciliation
from streamflow.dead_letters import select, store
from streamflow.dead_letters.plan import make_planner
from streamflow.dead_letters.report import ReplayOptions
from streamflow.dead_letters.store import PlannedOutcome
from streamflow.flow import Batch, Output
from streamflow.postgres import schema
from streamflow.postgres.connections import session
from streamflow.records import Origin, OutRecord, Position
from streamflow.registry import hasher_for
from streamflow.settings import Settings
from streamflow.stream import Stream
from streamflow.windows.progress import Progress
from streaming_workers.analytics import Analytics
from streaming_workers.validator import Validator

_LATER = 4_000_000_000  # seconds since 1970: every window has ended


class Installation:
    """Its releases agree on name and table."""

    def __init__(self, settings: Settings, first: Stream) -> None:
        self.settings = settings
        self.topics: defaultdict[str, list[FakeRecord]] = defaultdict(list)
        self._read: Counter[tuple[str, str]] = Counter()
        self._progress: Position | None = None
        self._load: Load | None = None
        self.release(first)

    def release(self, stream: Stream) -> list[str]:
        """Stops the release before cleanly, upgrades the schema, and lets this one read to the end; returns
        what was done to the schema."""
        self.stop()
        done = schema.upgrade(self.settings, [stream])
        self.stream = stream
        hasher = hasher_for(self.settings, [stream])
        self._validator = Validator(self.settings, [stream], hasher)
        self._load = Load(self.settings, [stream], TRUSTING)
        self._analytics = None
        if stream.event_counts is not None:
            self._analytics = Analytics(self.settings, [stream], clock=lambda: _LATER)
            starts = self._analytics.assign({(stream.topic, 0): self._progress})
            self._read["analytics", stream.topic] = max(0, starts[stream.topic, 0])
        self.run()
        return done

    def stop(self) -> None:
        if self._load is None:
            return
        if self._analytics is not None:
            self._keep(self._analytics.finish(Batch([], [], time.monotonic())))
        self._load.sink.close()
        self._load = None

    def send(self, *events: dict[str, Any] | bytes | None) -> None:
        """To the stream's topic, as they are."""
        for event in events:
            value = json.dumps(event).encode() if isinstance(event, dict) else event
            self._append(OutRecord(self.stream.topic, b"k", value, []))

    def run(self) -> None:
        """Lets all workers read to the end."""
        self.run_validator()
        self.run_analytics()
        self._run_loader()

    def run_validator(self) -> None:
        if records := self._unread("validator", self.stream.topic):
            self._keep(self._validator.process(batch(records)))

    def run_analytics(self) -> None:
        """Twice: a partition that has brought nothing since is idle."""
        for _ in range(2 if self._analytics else 0):
            assert self._analytics is not None
            records = self._unread("analytics", self.stream.topic)
            made = batch(records)
            made = Batch(made.records, made.positions, time.monotonic())
            self._keep(self._analytics.process(made))

    def _run_loader(self) -> None:
        assert self._load is not None
        for topic in self.stream.topic_names:
            if records := self._unread("loader", topic):
                self._load.load(records)
            for record in self._load.delivered:
                self._append(record)
            self._load.delivered.clear()

    def _unread(self, worker: str, topic: str) -> list[FakeRecord]:
        records = self.topics[topic][self._read[worker, topic] :]
        self._read[worker, topic] = len(self.topics[topic])
        return records

    def _keep(self, output: Output | None) -> None:
        for record in output.records if output is not None else ():
            self._append(record)
        for position in output.positions if output is not None else ():
            if position.metadata:
                self._progress = position

    def _append(self, record: OutRecord) -> int:
        log = self.topics[record.topic]
        log.append(
            FakeRecord(
                len(log), record.value, topic=record.topic, key=record.key, headers=record.headers
            )
        )
        return len(log) - 1

    def rows(self, columns: str) -> list[tuple[Any, ...]]:
        return rows(
            self.settings, f"SELECT {columns} FROM {self.stream.table} ORDER BY origin_offset"
        )

    def counts(self) -> dict[str, int]:
        found = rows(
            self.settings, "SELECT event_type, sum(count)::int FROM window_counts GROUP BY 1"
        )
        return dict(found)

    def dead_letters(self) -> list[tuple[int, str, str]]:
        """Those that are open: offset, code and message."""
        return rows(
            self.settings,
            "SELECT source_offset, error_code, message FROM dead_letters WHERE status = 'open' ORDER BY 1",
        )  # type: ignore[return-value]

    def replay(self, *repairs: str) -> list[PlannedOutcome]:
        """Plans a replay of all open dead letters, sends those that pass, and runs; returns the plan."""
        planner = make_planner(self.settings, [self.stream], ReplayOptions(repairs=repairs))
        with session(self.settings, "test") as connection:
            ids = [id_ for page in select.pages(connection, select.Selection()) for id_ in page]
            letters = select.read(connection, ids, group=self.settings.group("loader"))
        planned = list(map(planner.judge, letters))
        for outcome in planned:
            if outcome.record is not None:
                self._sent(outcome.letter.id, self._append(outcome.record))
        self.run()
        with session(self.settings, "test") as connection:
            store.settle(connection)
        return planned

    def _sent(self, letter: Origin, offset: int) -> None:
        assert self._load is not None
        self._load.sent(str(letter), f"{letter.topic}/0/{offset}")
        execute(
            self.settings,
            "UPDATE dead_letters SET status = 'replaying'"
            f" WHERE source_topic = '{letter.topic}' AND source_offset = {letter.offset}",
        )

    def ledger(self) -> dict[int, list[str]]:
        """What became of each record, as the audit reads it."""
        found = defaultdict(list)
        with session(self.settings, "test") as connection:
            within = (0, len(self.topics[self.stream.topic]))
            for offset, outcome, _ in accounted_offsets(
                connection, (self.stream.topic, 0), within, self.stream.table
            ):
                found[offset].append(str(outcome))
        return dict(found)

    def windows(self) -> Reconciliation:
        """As the audit compares them with the events."""
        assert self._progress is not None
        progress = Progress.parse(self._progress.offset, self._progress.metadata)
        assert progress is not None
        with session(self.settings, "test") as connection:
            return reconcile(connection, self.stream, 0, progress)

    def assert_closed(self) -> None:
        """Nothing is lost and nothing doubled."""
        ledger = self.ledger()
        assert sorted(ledger) == list(range(len(self.topics[self.stream.topic])))
        assert {len(outcomes) for outcomes in ledger.values()} == {1}, ledger
        if self.stream.event_counts is not None:
            compared = self.windows()
            assert not compared.differences, compared.differences
