"""Requests with an idempotency key, from their claim to the settling of what a killed worker has left.

A claim that is not confirmed may be stored or not. Whoever has fenced the worker that made it asks Kafka
whether its records are committed.
"""

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final, NamedTuple

import structlog

from streamflow.calls import call
from streamflow.errors import ConfigurationError, StreamFlowError, Unavailable
from streamflow.kafka.reader import committed_among
from streamflow.kafka.transactions import Publisher
from streamflow.postgres.ingest_requests import Earlier, IngestRequests, Keyed, Place
from streamflow.records import Origin
from streamflow.settings import IngestSettings
from streaming_workers.ingest.problems import Problem
from streaming_workers.ingest.submissions import (
    Outcome,
    Stored,
    Submission,
    other_body,
    processing,
)

log = structlog.get_logger()

SETTLE_LIMIT: Final = 120.0  # seconds; another producer's open transaction ends by its time-out
_KEEP_HOUSE_EVERY: Final = 15.0  # seconds
# Longer than any transaction that is not hanging: what is open for so long has no worker any more, and if it
# has, that is fenced.
_STALE: Final = 60.0  # seconds
_HOUR: Final = 3600.0


class Claimed(NamedTuple):
    """What became of requests that were to be claimed."""

    batch: int | None  # None if none is claimed
    numbers: dict[Submission, int]  # of those that are claimed, in the batch
    answered: dict[Submission, Outcome]  # the others


def transactional_id(settings: IngestSettings, instance: str) -> str:
    return f"{settings.prefix}ingest-{instance}"


def not_stored(error: BaseException | None) -> Problem:
    return Problem(503, f"nothing is stored: {error}", retry_after=5, outcome="not stored")


class Keys:
    """The keys of one ingest worker; for the thread that stores.

    Raises nothing where the database does not answer: then no request with a key is claimed, and what is not
    confirmed is settled later.
    """

    def __init__(self, settings: IngestSettings, instance: str) -> None:
        self._settings = settings
        self._instance = instance
        self._requests = IngestRequests(settings, instance)
        self._stored: list[int] = []  # batches to be confirmed
        self._settled = False  # whether this instance has left nothing open
        self._logged = ""  # why requests are not stored now
        self._kept_house_at = time.monotonic()
        self._is_expiring = False  # whether there may be more old keys

    def unsettle(self) -> None:
        """This instance may have left something open, and is fenced."""
        self._settled = False

    def claim(self, keyed: Sequence[Submission]) -> Claimed:
        """Claims requests of which nothing is known."""
        asked = [Keyed(each.stream, each.key or b"", each.fingerprint) for each in keyed]
        try:
            self._settle_own()
            claim = self._requests.claim(asked, self._stored)
        except (Unavailable, ConfigurationError) as error:
            self._log_once(error)
            return Claimed(None, {}, dict.fromkeys(keyed, not_stored(error)))
        self._stored, self._logged = [], ""
        numbers = {keyed[number]: number for number in claim.claimed}
        answered = {
            each: _known(each, claim.earlier.get(number))
            for number, each in enumerate(keyed)
            if each not in numbers
        }
        return Claimed(claim.batch if numbers else None, numbers, answered)

    def _log_once(self, error: StreamFlowError) -> None:
        self.unsettle()
        if self._logged != str(error):
            self._logged = str(error)
            log.warning("requests with a key are not stored", why=self._logged)

    def prepare(self, batch: int, places: Mapping[int, Sequence[Place]]) -> None:
        """As `IngestRequests.prepare`, which raises."""
        try:
            self._requests.prepare(batch, places)
        except StreamFlowError:
            self.unsettle()
            raise

    def stored(self, batch: int) -> None:
        """Kafka has committed a batch. It is confirmed with the next claim: until then, whoever settles it
        asks Kafka."""
        self._stored.append(batch)

    def drop(self, batch: int) -> None:
        """Nothing of a batch is stored: its requests are not claimed any more."""
        self.unsettle()
        with suppress(StreamFlowError):
            self._requests.drop([batch])

    def confirm(self) -> None:
        """Confirms what is stored, without waiting for a claim."""
        with suppress(StreamFlowError):
            self._confirm()

    def _confirm(self) -> None:
        if self._stored:
            self._requests.confirm(self._stored)
            self._stored = []

    def _settle_own(self) -> None:
        if not self._settled:
            self._confirm()
            self._settle(self._instance)
            self._settled = True

    def _settle(self, instance: str) -> None:
        with call("settling requests", SETTLE_LIMIT):
            self._requests.settle(instance, self._is_committed)

    def _is_committed(self, stream: str, place: Place) -> bool:
        position = Origin(self._settings.prefix + stream, *place)
        return bool(committed_among(self._settings, [position]))

    def keep_house(self) -> None:
        """Now and then: settles what workers have left open that do not run any more, and forgets old keys, a
        few at a time."""
        is_due = time.monotonic() - self._kept_house_at > _KEEP_HOUSE_EVERY
        try:
            if is_due:
                self._kept_house_at = time.monotonic()
                self._settle_all()
            if is_due or self._is_expiring:
                hours = self._settings.ingest_key_hours
                self._is_expiring = self._requests.expire(hours * _HOUR)
                self._logged = ""
        except StreamFlowError as error:
            self._is_expiring = False
            self._log_once(error)

    def _settle_all(self) -> None:
        # Where requests without a key never cease, no claim comes that does it: another worker would take
        # this one for gone.
        self._confirm()
        self._settle_own()
        for instance in self._requests.stale(_STALE):
            log.warning("settling", instance=instance, why="it has left requests open")
            with call("init_transactions", SETTLE_LIMIT):
                Publisher(self._settings, transactional_id(self._settings, instance)).close()
            self._settle(instance)

    def close(self) -> None:
        self._requests.close()


def _known(submission: Submission, earlier: Earlier | None) -> Outcome:
    """The answer to a request whose key another one has claimed."""
    if earlier is not None and earlier.fingerprint != submission.fingerprint:
        return other_body()
    if earlier is None or earlier.places is None:
        return processing()
    return Stored(earlier.places, repeated=True)
