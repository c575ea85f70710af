"""The web application that takes events: ``POST /v1/streams/NAME``."""

import asyncio
import hmac
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

import orjson

from streamflow.monitoring import INGEST_REQUESTS, INGEST_WAITING, RECORDS_IN, RECORDS_REJECTED
from streamflow.records import OutRecord, Rejection
from streamflow.settings import IngestSettings
from streaming_workers.ingest.bodies import ENCODINGS, events_of
from streaming_workers.ingest.intake import Intake
from streaming_workers.ingest.problems import Problem, invalid_events
from streaming_workers.ingest.request import Request
from streaming_workers.ingest.submissions import (
    Outcome,
    Stored,
    Submission,
    Submissions,
    fingerprint_of,
)
from streaming_workers.runtime.web import Answer

_STREAMS: Final = "/v1/streams/"
_JSON: Final = ("content-type", "application/json")
_LARGE: Final = 65_536  # bytes of a body that is looked at in another thread
_RETRY_SECONDS: Final = 1

# Answers a GET; whether the token is needed.
Page = tuple[Callable[[], Answer], bool]


class Answers:
    """Hands answers over from the thread that stores: the event loop is woken once for many."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[asyncio.Future[Outcome], Outcome]] = deque()
        self._is_woken = False

    def put(self, stored: "asyncio.Future[Outcome]", outcome: Outcome) -> None:
        """Called in any thread."""
        self._waiting.append((stored, outcome))
        if not self._is_woken:
            self._is_woken = True
            stored.get_loop().call_soon_threadsafe(self._hand_over)

    def _hand_over(self) -> None:
        # First: what is added from here on wakes the loop again, or is handed over below.
        self._is_woken = False
        while self._waiting:
            stored, outcome = self._waiting.popleft()
            if not stored.done():
                stored.set_result(outcome)


class IngestApp:
    """The ASGI application. It belongs to one event loop.

    Args:
        settings: all settings.
        intakes: what each stream takes, by its name.
        others: why other streams take nothing, by their names.
        submissions: the queue of what is to be stored.
        pages: answers to GET, by path.
    """

    def __init__(
        self,
        settings: IngestSettings,
        intakes: Mapping[str, Intake],
        others: Mapping[str, str],
        submissions: Submissions,
        pages: Mapping[str, Page],
    ) -> None:
        self._settings = settings
        self._intakes = intakes
        self._others = others
        self._submissions = submissions
        self._pages = pages
        self._waiting = 0  # bytes of requests that are not answered
        INGEST_WAITING.set_function(lambda: self._waiting)
        self._answers = Answers()
        token = settings.ingest_token
        self._token = None if token is None else token.get_secret_value().encode()

    async def __call__(self, scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1000})
            return
        try:
            status, headers, body = await self._answer(Request(scope, receive))
        except Problem as problem:
            status, headers, body = problem.status, problem.headers, problem.body
        INGEST_REQUESTS.labels(status).inc()
        raw = [(name.encode(), value.encode()) for name, value in headers]
        raw.append((b"content-length", b"%d" % len(body)))
        await send({"type": "http.response.start", "status": status, "headers": raw})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, request: Request) -> Answer:
        if request.path.startswith(_STREAMS):
            self._require_token(request)
            if request.method != "POST":
                raise Problem(405, "send events with POST", headers=[("allow", "POST")])
            return await self._take(self._intake(request), request)
        if request.path not in self._pages:
            raise Problem(404, "send events to POST /v1/streams/NAME; GET /docs explains it")
        if request.method not in ("GET", "HEAD"):
            raise Problem(405, "this page is read with GET", headers=[("allow", "GET, HEAD")])
        page, needs_token = self._pages[request.path]
        if needs_token:
            self._require_token(request)
        # Some ask the broker, which may take its time.
        return await asyncio.to_thread(page)

    def _require_token(self, request: Request) -> None:
        if self._token is None:
            return
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        raw = given.strip().encode("latin-1")  # as the bytes came
        if scheme.lower() != "bearer" or not hmac.compare_digest(raw, self._token):
            raise Problem(
                401,
                "send the token of STREAMFLOW_INGEST_TOKEN as `Authorization: Bearer TOKEN`",
                headers=[("www-authenticate", "Bearer")],
            )

    def _intake(self, request: Request) -> Intake:
        name = request.path.removeprefix(_STREAMS)
        if name in self._intakes:
            return self._intakes[name]
        if name in self._others:
            raise Problem(404, f"this stream takes nothing by HTTP: {self._others[name]}")
        raise Problem(404, "there is no such stream", streams=sorted(self._intakes))

    async def _take(self, intake: Intake, request: Request) -> Answer:
        """Stores the events of a request."""
        key = request.idempotency_key()
        reserved = 0

        def reserve(size: int) -> None:
            nonlocal reserved
            is_full = self._waiting + size > self._settings.ingest_queue_bytes
            if is_full and self._waiting > reserved:
                raise Problem(
                    429,
                    "too many events wait for Kafka: nothing is stored, send this again later",
                    retry_after=_RETRY_SECONDS,
                )
            reserved += size
            self._waiting += size

        try:
            body = await self._body(request, reserve)
            judge = partial(self._judged, intake, request.headers, body, keyed=key is not None)
            records, fingerprint = await asyncio.to_thread(judge) if len(body) > _LARGE else judge()
            stored: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
            answer = partial(self._answers.put, stored)
            submission = Submission(intake.stream.name, records, key, fingerprint, answer)
            return await self._store(submission, stored)
        finally:
            self._waiting -= reserved

    async def _body(self, request: Request, reserve: Callable[[int], None]) -> bytes:
        encoding = request.headers.get("content-encoding", "").lower()
        decompress = ENCODINGS.get(encoding)
        if decompress is None:
            accepted = [("accept-encoding", "gzip")]
            raise Problem(415, "the content encoding is not gzip", headers=accepted)
        most = self._settings.ingest_max_bytes
        # Known before a byte is read, if the client says so.
        declared = request.headers.get("content-length", "")
        reserve(min(int(declared), most) if declared.isdigit() else 0)
        came = await request.body(most, reserve if not declared.isdigit() else lambda _size: None)
        body = decompress(came, most)
        reserve(len(body) - len(came) if body is not came else 0)
        return body

    def _judged(
        self, intake: Intake, headers: Mapping[str, str], body: bytes, *, keyed: bool
    ) -> tuple[list[OutRecord], bytes]:
        """The records of a request's events, and if it has a key their fingerprint."""
        events = events_of(headers, body)
        most = self._settings.ingest_max_events
        if len(events) > most:
            raise Problem(413, f"more than {most:,} events: send several requests")
        judged = intake.records(events)
        RECORDS_IN.labels(intake.stream.topic).inc(len(judged))
        rejected = [(at, one) for at, one in enumerate(judged) if isinstance(one, Rejection)]
        if rejected:
            for _, rejection in rejected:
                RECORDS_REJECTED.labels(rejection.code.value).inc()
            raise invalid_events(rejected, len(judged))
        records = [one for one in judged if isinstance(one, OutRecord)]
        # Without its trace: a retry may belong to another span.
        fingerprint = fingerprint_of(records) if keyed else b""
        return intake.traced(records, headers), fingerprint

    async def _store(self, submission: Submission, stored: "asyncio.Future[Outcome]") -> Answer:
        self._submissions.put(submission)
        try:
            async with asyncio.timeout(self._settings.ingest_timeout):
                outcome = await stored
        except TimeoutError:
            raise self._too_late(submission) from None
        except asyncio.CancelledError:
            self._submissions.abandon(submission)
            raise
        if isinstance(outcome, Problem):
            raise outcome
        return _accepted(outcome)

    def _too_late(self, submission: Submission) -> Problem:
        seconds = f"{self._settings.ingest_timeout:g} s"
        if not self._submissions.abandon(submission):
            why = f"Kafka took nothing within {seconds}: nothing is stored, send this again later"
            return Problem(503, why, retry_after=5, outcome="not stored")
        what = "with this key finds it out" if submission.key else "may store the events twice"
        return Problem(
            503,
            f"Kafka has not confirmed within {seconds} that the events are stored: they may be, and the "
            f"same request {what}",
            retry_after=5,
            outcome="unknown",
        )


def _accepted(stored: Stored) -> Answer:
    records = [{"partition": partition, "offset": offset} for partition, offset in stored.places]
    headers = [_JSON, ("idempotency-replayed", "true")] if stored.repeated else [_JSON]
    return 200, headers, orjson.dumps({"accepted": len(records), "records": records})
