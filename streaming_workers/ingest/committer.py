"""Stores requests: many in one Kafka transaction, each exactly once if it has a key.

Requests that come while a transaction commits go into the next one. One with an idempotency key is claimed in
PostgreSQL before, and its positions are noted there before Kafka commits. After any failure the outcome is
found out first: a new producer of the same name fences the old one, so that afterwards its transaction is
committed or never will be. What is not is sent again, as long as somebody waits for it.
"""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

import structlog
from confluent_kafka import KafkaError, KafkaException

from streamflow.calls import call
from streamflow.errors import ConfigurationError, Fenced, StreamFlowError, Unavailable
from streamflow.kafka.reader import committed_among
from streamflow.kafka.transactions import Publisher
from streamflow.monitoring import BATCH_SECONDS, RECORDS_OUT, SESSIONS
from streamflow.postgres.ingest_requests import IngestRequests, Keyed, Place, places_of
from streamflow.records import Origin
from streamflow.settings import IngestSettings
from streaming_workers.ingest.problems import Problem
from streaming_workers.ingest.submissions import (
    Stored,
    Submission,
    Submissions,
    other_body,
    processing,
)
from streaming_workers.runtime.process import repeat_sessions
from streaming_workers.runtime.watchdog import Watchdog

log = structlog.get_logger()

_IDLE: Final = 0.5  # seconds to wait for a request
_SETTLE_LIMIT: Final = 120.0  # seconds; another producer's open transaction ends by its time-out
_KEEP_HOUSE_EVERY: Final = 15.0  # seconds
# Longer than any transaction that is not hanging: what is open for so long has no worker any more, and if it
# has, that is fenced.
_STALE: Final = 60.0  # seconds
_HOUR: Final = 3600.0
# One record cannot be stored, and the others of its transaction can.
_OF_RECORDS: Final = frozenset({
    KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE,
    KafkaError.INVALID_RECORD, KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_PARTITION, KafkaError.TOPIC_AUTHORIZATION_FAILED,
})  # fmt: skip


class _NotNotedError(Exception):
    """The positions could not be noted: nothing is stored."""


@dataclass(slots=True)
class _Group:
    """The requests of one transaction.

    Attributes:
        numbers: of the requests with a key, in the batch.
        positions: of all records, once they are known.
    """

    submissions: list[Submission]
    batch: int | None = None
    numbers: dict[Submission, int] = field(default_factory=dict)
    positions: list[Origin] | None = None

    def places(self) -> Iterator[tuple[Submission, list[Place]]]:
        """Each request with the places of its records."""
        places = iter(places_of(self.positions or ()))
        for submission in self.submissions:
            yield submission, list(islice(places, len(submission.records)))


class Committer:
    """Takes requests from a queue and stores them, in a thread of its own.

    Args:
        settings: all settings.
        instance: stable name of this worker. Another one that runs under the same name fences this one.
        submissions: the queue.
    """

    def __init__(self, settings: IngestSettings, instance: str, submissions: Submissions) -> None:
        self._settings = settings
        self._instance = instance
        self._submissions = submissions
        self._requests = IngestRequests(settings, instance)
        self._stop = threading.Event()
        self._watchdog = Watchdog(
            settings.stall_seconds,
            "ingest",
            advice="requests without an answer may be stored: with their key they can be sent again",
        )
        self._publisher: Publisher
        self._in_hand: _Group | None = None  # of which it is not known what became
        self._stored: list[int] = []  # batches to be confirmed
        self._settled = False  # whether this instance has left nothing open in the database
        self._logged = ""  # why requests with a key are not stored now
        self._kept_house_at = time.monotonic()
        self.trouble: str | None = "starting"  # why nothing can be stored now

    def run(self) -> None:
        """Stores requests until `stop`, and then those that are waiting. Raises ConfigurationError for what
        only a user can fix."""
        with self._watchdog:
            repeat_sessions(self._try_session, self._stop)
        self._requests.close()

    def stop(self) -> None:
        self._stop.set()

    def health(self) -> tuple[bool, str]:
        return self._watchdog.health()

    def _try_session(self) -> None:
        self._watchdog.turned()
        try:
            self._run_session()
        except (Unavailable, Fenced) as error:
            self.trouble = str(error)
            log.warning("session ended", why=str(error), kind=type(error).__name__)
            self._watchdog.turned()
            raise

    def _run_session(self) -> None:
        SESSIONS.inc()
        self._publisher = Publisher(self._settings, self._transactional_id(self._instance))
        try:
            self._settled = False
            self._settle_in_hand()
            self.trouble = None
            while not (self._stop.is_set() and self._submissions.is_empty):
                self._watchdog.turned()
                taken = self._submissions.take(0.0 if self._stop.is_set() else _IDLE)
                if taken:
                    self._send(_Group(taken))
                else:
                    self._confirm()
                if time.monotonic() - self._kept_house_at > _KEEP_HOUSE_EVERY:
                    self._keep_house()
            self._confirm()
        finally:
            self._publisher.close()

    def _transactional_id(self, instance: str) -> str:
        return f"{self._settings.prefix}ingest-{instance}"

    def _send(self, group: _Group) -> None:
        """Stores a group.

        1. in one database transaction: claim the requests that have a key, but for those that are known;
        2. in one Kafka transaction: produce; note the positions in the database; commit;
        3. answer. That the batch is stored is noted with the next claim: until then, whoever settles it asks
           Kafka.

        Raises Unavailable or Fenced if the outcome of 2 is unknown; the group is in hand then.
        """
        began = time.monotonic()
        self._claim(group)
        if not group.submissions:
            return
        records = [record for each in group.submissions for record in each.records]
        self._in_hand = group
        try:
            self._publisher.publish(records, lambda positions: self._note(group, positions))
        except _NotNotedError as error:
            self._give_back(group, error.__cause__)
        except StreamFlowError as error:
            cause = error.__cause__
            if not (isinstance(cause, KafkaException) and cause.args[0].code() in _OF_RECORDS):
                raise
            self._isolate(group, error)
        else:
            self._finish(group)
            BATCH_SECONDS.observe(time.monotonic() - began)
        self._in_hand = None

    def _claim(self, group: _Group) -> None:
        """Claims the requests that have a key, and takes out of the group what is answered."""
        keyed = [each for each in group.submissions if each.key is not None]
        if not keyed:
            return
        asked = [Keyed(each.stream, each.key or b"", each.fingerprint) for each in keyed]
        try:
            self._settle_own()
            claim = self._requests.claim(asked, self._stored)
        except (Unavailable, ConfigurationError) as error:
            self._settled = False
            self._log_once(error)
            self._answer_all(keyed, _not_stored(error))
            group.submissions = [each for each in group.submissions if each.key is None]
            return
        self._stored, self._logged = [], ""
        group.numbers = {keyed[number]: number for number in claim.claimed}
        group.batch = claim.batch if claim.claimed else None
        for number, each in enumerate(keyed):
            if each in group.numbers:
                continue
            group.submissions.remove(each)
            earlier = claim.earlier.get(number)
            if earlier is not None and earlier.fingerprint != each.fingerprint:
                self._submissions.answer(each, other_body())
            elif earlier is None or earlier.places is None:
                self._submissions.answer(each, processing())
            else:
                self._submissions.answer(each, Stored(earlier.places, repeated=True))

    def _log_once(self, error: StreamFlowError) -> None:
        if self._logged != str(error):
            self._logged = str(error)
            log.warning("requests with a key are not stored", why=self._logged)

    def _note(self, group: _Group, positions: list[Origin]) -> None:
        if group.batch is not None:
            group.positions = positions
            places = {
                group.numbers[each]: found
                for each, found in group.places()
                if each in group.numbers
            }
            try:
                self._requests.prepare(group.batch, places)
            except StreamFlowError as error:
                group.positions = None
                raise _NotNotedError from error
        group.positions = positions

    def _finish(self, group: _Group) -> None:
        """Kafka has committed."""
        if group.batch is not None:
            self._stored.append(group.batch)
        for each, places in group.places():
            RECORDS_OUT.labels(each.records[0].topic).inc(len(places))
            self._submissions.answer(each, Stored(places))

    def _give_back(self, group: _Group, error: BaseException | None) -> None:
        """Nothing is stored, since the database does not answer: only requests with a key need it."""
        self._settled = False
        keyed = [each for each in group.submissions if each in group.numbers]
        self._answer_all(keyed, _not_stored(error))
        self._submissions.put_back(each for each in group.submissions if each not in group.numbers)

    def _isolate(self, group: _Group, error: StreamFlowError) -> None:
        """Kafka refuses a record of the group, and nothing of it is stored: each request by itself."""
        self._drop(group)
        if len(group.submissions) == 1:
            log.error("request refused", stream=group.submissions[0].stream, why=str(error))
            self._answer_all(group.submissions, _not_stored(error))
        else:
            self._submissions.put_back(group.submissions, alone=True)

    def _settle_in_hand(self) -> None:
        """Finds out what became of the last group of the session before, whose producer is fenced now."""
        group, positions = self._in_hand, self._in_hand.positions if self._in_hand else None
        if group is None:
            return
        with call("settling requests", _SETTLE_LIMIT):
            stored = bool(positions) and bool(
                committed_among(self._settings, (positions or [])[:1])
            )
        if stored:
            self._finish(group)
        else:
            self._drop(group)
            self._submissions.put_back(group.submissions)
        self._in_hand = None

    def _drop(self, group: _Group) -> None:
        """Nothing of a group is stored: its requests are not claimed any more."""
        if group.batch is not None:
            self._settled = False
            with suppress(StreamFlowError):
                self._requests.drop([group.batch])

    def _settle_own(self) -> None:
        """Settles what this instance has left open in the database, in an earlier session or process."""
        if self._settled:
            return
        self._confirm_now()
        self._settle(self._instance)
        self._settled = True

    def _settle(self, instance: str) -> None:
        with call("settling requests", _SETTLE_LIMIT):
            self._requests.settle(instance, self._is_committed)

    def _is_committed(self, stream: str, place: Place) -> bool:
        position = Origin(self._settings.prefix + stream, *place)
        return bool(committed_among(self._settings, [position]))

    def _confirm(self) -> None:
        with suppress(StreamFlowError):
            self._confirm_now()

    def _confirm_now(self) -> None:
        if self._stored:
            self._requests.confirm(self._stored)
            self._stored = []

    def _keep_house(self) -> None:
        """Settles what workers have left open that do not run any more, and forgets old keys."""
        self._kept_house_at = time.monotonic()
        try:
            self._settle_own()
            for instance in self._requests.stale(_STALE):
                log.warning("settling", instance=instance, why="it has left requests open")
                with call("init_transactions", _SETTLE_LIMIT):
                    Publisher(self._settings, self._transactional_id(instance)).close()
                self._settle(instance)
            self._requests.expire(self._settings.ingest_key_hours * _HOUR)
        except StreamFlowError as error:
            log.warning("housekeeping failed", why=str(error))

    def _answer_all(self, submissions: Sequence[Submission], problem: Problem) -> None:
        for each in submissions:
            self._submissions.answer(each, problem)


def _not_stored(error: BaseException | None) -> Problem:
    return Problem(503, f"nothing is stored: {error}", retry_after=5, outcome="not stored")
