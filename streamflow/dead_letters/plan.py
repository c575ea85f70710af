"""Planning a replay: which dead letters would pass now, and as which record (G8)."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from typing import Any, Final, NamedTuple, cast

from confluent_kafka import Message

from streamflow.dead_letters import plan_store, select
from streamflow.dead_letters.plan_store import PlannedDeadLetter
from streamflow.dead_letters.repairs import Repair, choose
from streamflow.dead_letters.report import ReplayOptions, ReplayReport
from streamflow.dead_letters.select import DeadLetter, Selection, Status
from streamflow.dead_letters.store import Outcome, PlannedOutcome, Sample
from streamflow.errors import ErrorCode, UsageError
from streamflow.postgres.connections import STATEMENT_TIMEOUT, Connection, session
from streamflow.postgres.forgotten import Forgotten, read_forgotten
from streamflow.postgres.rows.derived import notification_line, window_count_line
from streamflow.postgres.rows.windows import WindowRows, rows_of, window_of
from streamflow.postgres.windows.tables import window_tables
from streamflow.privacy import Hasher
from streamflow.records import (
    ATTEMPT_HEADER,
    NOTIFY_STAGE,
    ORIGIN_HEADER,
    Headers,
    OutRecord,
    Record,
    Rejection,
)
from streamflow.registry import hasher_for
from streamflow.settings import Settings
from streamflow.stream import Stream
from streamflow.stream_topics import MAX_RECORD_BYTES, Topics
from streamflow.units import counted
from streamflow.user_code import name_of_fault

SAMPLES: Final = 3  # of each kind
_OVERHEAD: Final = 1024  # bytes of a record batch and of one record around its content
_HEADER_OVERHEAD: Final = 16  # bytes of lengths around a header
_HIGHEST_ATTEMPT: Final = 999_999


class Obstacle(StrEnum):
    """Why a dead letter is not sent, besides the error codes of its contract."""

    NOT_REPLAYABLE = "NOT_REPLAYABLE"
    FORGOTTEN = "FORGOTTEN"
    NOT_OURS = "NOT_OURS"
    NOT_LOADED_YET = "NOT_LOADED_YET"
    REPAIR_FAILED = "REPAIR_FAILED"
    TOO_LARGE = "TOO_LARGE"
    TRUNCATED = "TRUNCATED"
    TOO_MANY_ATTEMPTS = "TOO_MANY_ATTEMPTS"


class _Refused(Exception):
    def __init__(self, reason: str, message: str, *, unrepaired: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.unrepaired = unrepaired


class _Target(NamedTuple):
    """A topic that dead letters can be replayed to.

    Attributes:
        check: returns a rejection for a record that would be rejected there, else anything.
        stream: whose source topic it is, so that repairs apply; None for a derived topic.
    """

    check: Callable[[Record], object]
    max_bytes: int = MAX_RECORD_BYTES
    stream: Stream | None = None


class Planner:
    """Decides what a replay does with each dead letter. Pure: equal input gives equal output.

    Args:
        streams: dead letters go back to their topics only.
        repairs: applied in this order to dead letters of a stream's source topic.
        max_attempts: a dead letter with so many attempts is quarantined.
        force: ignore `max_attempts`.
        forgotten: whose dead letters are not sent.
    """

    def __init__(
        self,
        streams: Sequence[Stream],
        hasher: Hasher,
        repairs: Sequence[Repair],
        *,
        max_attempts: int,
        force: bool = False,
        forgotten: Forgotten | None = None,
    ) -> None:
        self._hasher = hasher
        self._forgotten = forgotten
        self._repairs = repairs
        self._max_attempts = max_attempts
        # Of the largest record that each of their topics takes.
        self.record_bytes = min(
            (stream.topics.max_record_bytes for stream in streams), default=MAX_RECORD_BYTES
        )
        self._force = force
        windows = {
            table.name: WindowRows(table) for stream in streams for table in window_tables(stream)
        }
        self._targets = {
            topic: target
            for stream in reversed(streams)
            for topic, target in _derived_targets(stream, windows).items()
        }
        for stream in streams:
            self._targets[stream.topic] = _Target(
                stream.read, stream.topics.max_record_bytes, stream
            )

    def judge(self, letter: DeadLetter) -> PlannedOutcome:
        """Whether a dead letter would pass, and the record that would be sent."""
        try:
            record = self._record(letter)
        except _Refused as refused:
            at_limit = refused.reason == Obstacle.TOO_MANY_ATTEMPTS
            outcome = Outcome.QUARANTINED if at_limit else Outcome.FAILS
            return PlannedOutcome(
                letter, outcome, None, refused.reason, str(refused), refused.unrepaired
            )
        return PlannedOutcome(letter, Outcome.PASSES, record)

    def _record(self, letter: DeadLetter) -> OutRecord:
        target = self._targets.get(letter.id.topic)
        if target is None:
            reason = "it did not come from a topic of a configured stream"
            raise _Refused(Obstacle.NOT_REPLAYABLE, reason)
        self._require_replayable(letter)
        value = letter.value
        if target.stream is not None and value is not None:
            value = self._repaired(value, target.stream)
        decoded = target.check(_record(letter, value))
        if isinstance(decoded, Rejection):
            unrepaired = bool(self._repairs) and value == letter.value
            raise _Refused(decoded.code.value, decoded.message, unrepaired=unrepaired)
        # Last: a plan tells first what would fail anyway.
        if target.stream is not None and not target.stream.topics.takes_replays:
            raise _Refused(Obstacle.NOT_OURS, _not_ours(target.stream.topics))
        headers = [
            *letter.original_headers,
            (ORIGIN_HEADER, letter.identity.encode()),
            (ATTEMPT_HEADER, str(min(letter.attempt + 1, _HIGHEST_ATTEMPT)).encode()),
        ]
        if _size(letter.key, value, headers) > target.max_bytes:
            raise _Refused(Obstacle.TOO_LARGE, f"the topic takes {target.max_bytes} bytes")
        return OutRecord(letter.id.topic, letter.key, value, headers)

    def _require_replayable(self, letter: DeadLetter) -> None:
        if letter.error_code == ErrorCode.FOREIGN_RECORD:
            raise _Refused(
                Obstacle.NOT_REPLAYABLE,
                "StreamFlow did not write it into this derived topic: a replay would sign it as its own",
            )
        if letter.stage == NOTIFY_STAGE:
            reason = "its event is stored and counted; only the notification could not be made"
            raise _Refused(Obstacle.NOT_REPLAYABLE, reason)
        if self._forgotten and self._forgotten.of_content(*letter.pieces) is not None:
            reason = "it belongs to a forgotten subject: run `streamflow forget --again --apply`"
            raise _Refused(Obstacle.FORGOTTEN, reason)
        if letter.truncated is not None:
            reason = f"{letter.truncated}; produce the whole record again from its source"
            raise _Refused(Obstacle.TRUNCATED, reason)
        if not letter.is_read:
            reason = "the loader has not passed the failed record yet: wait for it"
            raise _Refused(Obstacle.NOT_LOADED_YET, reason)
        if letter.attempt >= self._max_attempts and not self._force:
            reason = (
                f"replayed {counted(letter.attempt, 'time')}; the limit is "
                f"{counted(self._max_attempts, 'attempt')}"
            )
            raise _Refused(Obstacle.TOO_MANY_ATTEMPTS, reason)

    def _repaired(self, value: bytes, stream: Stream) -> bytes:
        """The repaired value; the identical bytes where no repair changes anything."""
        if not self._repairs:
            return value
        try:
            document = json.loads(value)
            before = json.dumps(document)
        except (ValueError, RecursionError):
            return value
        if not isinstance(document, dict):
            return value
        for repair in self._repairs:
            try:
                document = repair(document, stream, self._hasher)
                after = json.dumps(document)
            except BaseException as error:  # noqa: BLE001 (a user's function; fails only this dead letter)
                # The error's message could quote the value.
                reason = f"{repair.name} raised {name_of_fault(error)}"
                raise _Refused(Obstacle.REPAIR_FAILED, reason) from None
            if not isinstance(document, dict):
                raise _Refused(
                    Obstacle.REPAIR_FAILED,
                    f"{repair.name} returned {type(document).__name__}, not a document",
                )
        return value if after == before else _encoded(document)


def _not_ours(topics: Topics) -> str:
    if topics.managed:
        return (
            "Topics(replays=False) of its stream forbids it: let the producer send the record again"
        )
    return (
        "it would pass, but its topic is another owner's, and a replay appends to it for all who read it: "
        "let the producer send the record again, or declare Topics(managed=False, replays=True) if the "
        "owner allows it"
    )


def _encoded(document: dict[str, Any]) -> bytes:
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    try:
        return text.encode()
    except UnicodeEncodeError:  # a lone surrogate: the contract rejects it by name
        return json.dumps(document).encode()


def _derived_targets(stream: Stream, windows: Mapping[str, WindowRows]) -> dict[str, _Target]:
    def of_windows(record: Record) -> bytes | Rejection:
        name = window_of(record.value())
        if name is None:
            return window_count_line(record, stream.topic)
        rows = rows_of(name, windows)
        return rows if isinstance(rows, Rejection) else rows.line(record, stream.topic)

    return {
        stream.analytics_topic: _Target(of_windows),
        stream.notifications_topic: _Target(notification_line),
    }


def _record(letter: DeadLetter, value: bytes | None) -> Record:
    """A dead letter as the record that would be sent. Its position does not matter."""
    headers: list[tuple[str, str | bytes | None]] = [*letter.original_headers]
    message = Message(
        topic=letter.id.topic, partition=0, offset=0, key=letter.key, value=value, headers=headers
    )
    return cast("Record", message)


def _size(key: bytes | None, value: bytes | None, headers: Headers) -> int:
    size = _OVERHEAD + len(key or b"") + len(value or b"")
    return size + sum(
        len(name.encode()) + len(content or b"") + _HEADER_OVERHEAD for name, content in headers
    )


def make_planner(settings: Settings, streams: Sequence[Stream], options: ReplayOptions) -> Planner:
    """A planner with the repairs named in the options; UsageError if one is unknown."""
    hasher = hasher_for(settings, streams)
    repairs = choose(settings, options.repairs)
    with session(settings, "replay-plan", statement_timeout=STATEMENT_TIMEOUT) as connection:
        forgotten = read_forgotten(connection, hasher)
    return Planner(
        streams,
        hasher,
        repairs,
        max_attempts=options.max_attempts,
        force=options.force,
        forgotten=forgotten,
    )


def eligible_statuses(options: ReplayOptions) -> tuple[Status, ...]:
    """The statuses of dead letters that a replay may send."""
    return (Status.OPEN, Status.QUARANTINED) if options.force else (Status.OPEN,)


def left_out(connection: Connection, selection: Selection) -> dict[str, int]:
    """How many of the dead letters named by id are not eligible now, by status; UsageError if an id is
    unknown."""
    known = select.statuses_of(connection, selection.ids)
    missing = [str(id_) for id_ in selection.ids if id_ not in known]
    if missing:
        raise UsageError(
            f"there is no dead letter {missing[0]}: `streamflow dlq list` shows their ids"
        )
    return dict(Counter(s.value for s in known.values() if s not in selection.statuses))


def plan(
    settings: Settings,
    streams: Sequence[Stream],
    selection: Selection,
    options: ReplayOptions,
    *,
    requested_by: str,
) -> ReplayReport:
    """Decides what a replay of the selected dead letters would do and saves that as a plan for `apply`.
    Changes nothing else.

    The plan is made from one snapshot, in one transaction. Expired plans are removed.

    Raises:
        UsageError: a repair or an id is unknown, or `force` comes without ids.
        Unavailable: the database does not answer.
    """
    planner = make_planner(settings, streams, options)
    if options.force and not selection.ids:
        raise UsageError("force replays quarantined dead letters, which must be named by id")
    selection = replace(selection, statuses=eligible_statuses(options))
    report = ReplayReport(dry_run=True)
    with session(settings, "replay-plan") as connection:
        plan_store.remove_old(connection)
        with connection.transaction():
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            report.skipped = left_out(connection, selection)
            report.plan_id = plan_store.create(
                connection,
                requested_by=redacted(settings, streams, requested_by),
                selection=selection.as_dict(),
                options=options.as_dict(),
            )
            for ids in select.pages(connection, selection):
                letters = select.read(
                    connection, ids, group=settings.group("loader"), statuses=selection.statuses
                )
                outcomes = list(map(planner.judge, letters))
                planned = [
                    PlannedDeadLetter(outcome.letter.id, outcome.record is not None)
                    for outcome in outcomes
                ]
                plan_store.add(connection, report.plan_id, planned)
                _tally(report, outcomes)
    return report


def redacted(settings: Settings, streams: Sequence[Stream], name: str) -> str:
    """With addresses hashed, and without NUL, as it may be stored."""
    name = name.replace("\0", "")
    return hasher_for(settings, streams).redact(name.encode("utf-8", "replace")).decode()


def _tally(report: ReplayReport, outcomes: Sequence[PlannedOutcome]) -> None:
    seen = Counter((sample.error_code, sample.reason) for sample in report.samples)
    for letter, outcome, _, reason, message, unrepaired in outcomes:
        code = letter.error_code
        report.unrepaired += unrepaired
        report.tally[code, outcome, reason] += 1
        if reason and seen[code, reason] < SAMPLES:
            seen[code, reason] += 1
            report.samples.append(Sample(str(letter.id), code, reason, message))
