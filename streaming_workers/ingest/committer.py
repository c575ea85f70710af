"""Stores requests: many in one Kafka transaction, each exactly once if it has a key.

Requests that come while a transaction commits go into the next one. One with an idempotency key is claimed in
PostgreSQL before, and its positions are noted there before Kafka commits. After any failure the outcome is
found out first: a new producer of the same name fences the old one, so that afterwards its transaction is
committed or never will be. What is not is sent again, as long as somebody waits for it.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

import structlog
from confluent_kafka import KafkaError, KafkaException

from streamflow.calls import call
from streamflow.errors import Fenced, StreamFlowError, Unavailable
from streamflow.kafka.reader import committed_among
from streamflow.kafka.transactions import Publisher
from streamflow.monitoring import BATCH_SECONDS, RECORDS_OUT, SESSIONS
from streamflow.postgres.ingest_requests import Place, places_of
from streamflow.records import Origin
from streamflow.settings import IngestSettings
from streaming_workers.ingest.keys import SETTLE_LIMIT, Keys, not_stored, transactional_id
from streaming_workers.ingest.problems import Problem
from streaming_workers.ingest.submissions import Stored, Submission, Submissions
from streaming_workers.runtime.process import repeat_sessions
from streaming_workers.runtime.watchdog import Watchdog

log = structlog.get_logger()

_IDLE: Final = 0.5  # seconds to wait for a request
# One record cannot be stored, and the others of its transaction can.
_OF_RECORDS: Final = frozenset({
    KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE, KafkaError.INVALID_RECORD,
    KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
})  # fmt: skip

# Is told the topic and the number of records that are stored.
OnStored = Callable[[str, int], None]


class _NotNotedError(Exception):
    """The positions could not be noted: nothing is stored."""


@dataclass(slots=True)
class _Group:
    """The requests of one transaction.

    Attributes:
        batch: of those with a key, and their numbers in it.
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
        on_stored: see its type.
        record_bytes: of the largest record that each topic takes.

    Attributes:
        trouble: why nothing can be stored now; None if it can.
    """

    def __init__(
        self,
        settings: IngestSettings,
        instance: str,
        submissions: Submissions,
        on_stored: OnStored,
        record_bytes: int,
    ) -> None:
        self._settings = settings
        self._transactional_id = transactional_id(settings, instance)
        self._submissions = submissions
        self._on_stored = on_stored
        self._record_bytes = record_bytes
        self._keys = Keys(settings, instance)
        self._stop = threading.Event()
        self._watchdog = Watchdog(
            settings.stall_seconds,
            "ingest",
            advice="requests without an answer may be stored: with their key they can be sent again",
        )
        self._publisher: Publisher
        self._in_hand: _Group | None = None  # of which it is not known what became
        self.trouble: str | None = "starting"

    def run(self) -> None:
        """Stores requests until `stop`, and then those that are waiting. Raises ConfigurationError for what
        only a user can fix."""
        with self._watchdog:
            repeat_sessions(self._try_session, self._stop)
        self._keys.close()

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
        self._publisher = Publisher(self._settings, self._transactional_id, self._record_bytes)
        try:
            self._keys.unsettle()
            self._settle_in_hand()
            self.trouble = None
            while not (self._stop.is_set() and self._submissions.is_empty):
                self._watchdog.turned()
                taken = self._submissions.take(0.0 if self._stop.is_set() else _IDLE)
                if taken:
                    self._send(_Group(taken))
                else:
                    self._keys.confirm()
                self._keys.keep_house()
            self._keys.confirm()
        finally:
            self._publisher.close()

    def _send(self, group: _Group) -> None:
        """Stores a group.

        1. in one database transaction: claim the requests that have a key, but for those that are known;
        2. in one Kafka transaction: produce; note the positions in the database; commit;
        3. answer.

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
        """Claims the requests that have a key, and takes out of the group those that are answered."""
        keyed = [each for each in group.submissions if each.key is not None]
        if not keyed:
            return
        group.batch, group.numbers, answered = self._keys.claim(keyed)
        for each, outcome in answered.items():
            self._submissions.answer(each, outcome)
        group.submissions = [each for each in group.submissions if each not in answered]

    def _note(self, group: _Group, positions: list[Origin]) -> None:
        group.positions = positions
        if group.batch is None:
            return
        places = {
            group.numbers[each]: found for each, found in group.places() if each in group.numbers
        }
        try:
            self._keys.prepare(group.batch, places)
        except StreamFlowError as error:
            group.positions = None
            raise _NotNotedError from error

    def _finish(self, group: _Group) -> None:
        """Kafka has committed."""
        if group.batch is not None:
            self._keys.stored(group.batch)
        for each, places in group.places():
            topic = each.records[0].topic
            RECORDS_OUT.labels(topic).inc(len(places))
            self._on_stored(topic, len(places))
            self._submissions.answer(each, Stored(places))

    def _give_back(self, group: _Group, error: BaseException | None) -> None:
        """Nothing is stored, since the database does not answer: only requests with a key need it."""
        self._answer_all(
            [each for each in group.submissions if each in group.numbers], not_stored(error)
        )
        self._submissions.put_back(each for each in group.submissions if each not in group.numbers)

    def _isolate(self, group: _Group, error: StreamFlowError) -> None:
        """Kafka refuses a record of the group, and nothing of it is stored: each request by itself."""
        self._drop(group)
        if len(group.submissions) == 1:
            log.error("request refused", stream=group.submissions[0].stream, why=str(error))
            self._answer_all(group.submissions, not_stored(error))
        else:
            self._submissions.put_back(group.submissions, alone=True)

    def _settle_in_hand(self) -> None:
        """Finds out what became of the last group of the session before, whose producer is fenced now."""
        group = self._in_hand
        if group is None:
            return
        if self._is_committed(group.positions):
            self._finish(group)
        else:
            self._drop(group)
            self._submissions.put_back(group.submissions)
        self._in_hand = None

    def _is_committed(self, positions: list[Origin] | None) -> bool:
        """Whether Kafka has committed the records of a transaction: then also the first of them."""
        with call("settling requests", SETTLE_LIMIT):
            return bool(positions) and bool(committed_among(self._settings, (positions or [])[:1]))

    def _drop(self, group: _Group) -> None:
        if group.batch is not None:
            self._keys.drop(group.batch)

    def _answer_all(self, submissions: Sequence[Submission], problem: Problem) -> None:
        for each in submissions:
            self._submissions.answer(each, problem)
