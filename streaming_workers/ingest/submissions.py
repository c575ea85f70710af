"""Requests that wait to be stored, and how they are taken in groups."""

import hashlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from streamflow.postgres.ingest_requests import Place
from streamflow.records import OutRecord
from streaming_workers.ingest.problems import Problem

_LINGER: Final = 0.005  # seconds: a Kafka transaction costs as much for one request as for many
_MOST_RECORDS: Final = 10_000  # of a transaction, if there are several requests
_PROCESSING: Final = "a request with this Idempotency-Key is being processed: ask again"
_OTHER_BODY: Final = (
    "this Idempotency-Key came with other events before: use a new key for each request"
)


class Stored(NamedTuple):
    """Kafka has committed the records of a request.

    Attributes:
        places: partition and offset of each, in the order of the request.
        repeated: whether an earlier request with the same key has sent them.
    """

    places: Sequence[Place]
    repeated: bool = False


Outcome = Stored | Problem


@dataclass(slots=True, eq=False)
class Submission:
    """A request whose events are valid.

    Args:
        stream: its name.
        key: SHA-256 of its idempotency key; None without one.
        fingerprint: SHA-256 of the records.
        answer: takes what became of it, once; called in another thread.
    """

    stream: str
    records: list[OutRecord]
    key: bytes | None
    fingerprint: bytes
    answer: Callable[[Outcome], None]
    begun: bool = False  # it may be stored
    abandoned: bool = False  # nobody waits for the answer any more: it is not sent again


def processing() -> Problem:
    return Problem(409, _PROCESSING, retry_after=1)


def other_body() -> Problem:
    return Problem(422, _OTHER_BODY)


def fingerprint_of(records: Sequence[OutRecord]) -> bytes:
    """Of the records, in which everything private is hashed."""
    digest = hashlib.sha256()
    for record in records:
        parts = [record.key, record.value]
        parts += (part for name, value in record.headers for part in (name.encode(), value))
        for part in parts:
            digest.update(b"%d," % len(part or b""))
            digest.update(part or b"")
        digest.update(b";")
    return digest.digest()


class Submissions:
    """The queue between the web server and the thread that stores. Thread-safe."""

    def __init__(self) -> None:
        self._waiting: deque[Submission] = deque()
        self._alone: deque[Submission] = deque()  # each to be sent by itself
        self._keys: dict[tuple[str, bytes], bytes] = {}  # fingerprints of what waits or is sent
        self._changed = threading.Condition()

    def put(self, submission: Submission) -> None:
        """Queues a request. Raises Problem if another one with its key is being processed."""
        with self._changed:
            if submission.key is not None:
                place = submission.stream, submission.key
                if place in self._keys:
                    same = self._keys[place] == submission.fingerprint
                    raise processing() if same else other_body()
                self._keys[place] = submission.fingerprint
            self._waiting.append(submission)
            self._changed.notify()

    def put_back(self, submissions: Iterable[Submission], *, alone: bool = False) -> None:
        """Queues requests again that were taken and of which nothing is stored, if somebody still waits."""
        with self._changed:
            queue = self._alone if alone else self._waiting
            for submission in reversed(list(submissions)):
                submission.begun = False
                if submission.abandoned:
                    self._forget(submission)
                else:
                    queue.appendleft(submission)
            self._changed.notify()

    def take(self, seconds: float) -> list[Submission]:
        """The requests to be sent in the next transaction; none if none came within so many seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._alone or self._waiting, seconds)
            if self._alone:
                return self._begin([self._alone.popleft()])
        if self._waiting:
            time.sleep(_LINGER)
        with self._changed:
            taken: list[Submission] = []
            records = 0
            while self._waiting and (
                not taken or records + len(self._waiting[0].records) <= _MOST_RECORDS
            ):
                taken.append(self._waiting.popleft())
                records += len(taken[-1].records)
            return self._begin(taken)

    @staticmethod
    def _begin(taken: list[Submission]) -> list[Submission]:
        for submission in taken:
            submission.begun = True
        return taken

    def abandon(self, submission: Submission) -> bool:
        """Nobody waits for a request any more: one that waits here leaves the queue, which would grow for as
        long as Kafka does not answer. Returns whether it may be stored all the same."""
        with self._changed:
            submission.abandoned = True
            for queue in (self._alone, self._waiting):
                if submission in queue:
                    queue.remove(submission)
                    self._forget(submission)
            return submission.begun

    def answer(self, submission: Submission, outcome: Outcome) -> None:
        """Ends a request."""
        with self._changed:
            self._forget(submission)
        submission.answer(outcome)

    def _forget(self, submission: Submission) -> None:
        if submission.key is not None:
            self._keys.pop((submission.stream, submission.key), None)

    @property
    def is_empty(self) -> bool:
        return not (self._waiting or self._alone)
