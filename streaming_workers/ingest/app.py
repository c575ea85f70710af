"""The web application that takes events: ``POST /v1/streams/NAME``."""

import asyncio
import hashlib
import hmac
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import orjson

from streamflow.monitoring import INGEST_REQUESTS, INGEST_WAITING, RECORDS_IN, RECORDS_REJECTED
from streamflow.records import OutRecord, Rejection
from streamflow.settings import IngestSettings
from streaming_workers.ingest.bodies import ENCODINGS, events_of, too_large
from streaming_workers.ingest.intake import Intake, Judged
from streaming_workers.ingest.problems import Problem, invalid_events
from streaming_workers.ingest.submissions import Outcome, Stored, Submission, Submissions

_STREAMS: Final = "/v1/streams/"
_JSON: Final = ("content-type", "application/json")
# RFC 8941: a text in quotes, as the draft on Idempotency-Key has it; most clients leave them out.
_KEY: Final = re.compile(r'"(?P<quoted>(?:[^"\\]|\\["\\]){1,255})"|(?P<bare>[!#-\[\]-~]{1,255})')
_LARGE: Final = 65_536  # bytes of a body that is looked at in another thread
_RETRY_SECONDS: Final = 1

Answer = tuple[int, Sequence[tuple[str, str]], bytes]
# Answers a GET; whether the token is needed.
Page = tuple[Callable[[], Answer], bool]


class Request:
    """A request as ASGI hands it over."""

    def __init__(self, scope: Mapping[str, Any], receive: Any) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.headers = {
            name.decode("latin-1"): value.decode("latin-1").strip()
            for name, value in scope["headers"]
        }
        self._receive = receive

    async def body(self, most: int, reserve: Callable[[int], None]) -> bytes:
        """The body; `reserve` is told its bytes as they come. Raises Problem if they are more than `most`."""
        declared = self.headers.get("content-length", "")
        if declared.isdigit() and int(declared) > most:
            raise too_large(most)
        pieces: list[bytes] = []
        size = 0
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise Problem(400, "the body is not complete")
            piece = message.get("body", b"")
            size += len(piece)
            if size > most:
                raise too_large(most)
            reserve(len(piece))
            pieces.append(piece)
            if not message.get("more_body"):
                return b"".join(pieces)


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
        key = _key_of(request.headers)
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
            INGEST_WAITING.set(self._waiting)

        try:
            body = await self._body(request, reserve)
            records = await self._judged(intake, request.headers, body)
            return await self._store(intake.stream.name, records, key)
        finally:
            self._waiting -= reserved
            INGEST_WAITING.set(self._waiting)

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

    async def _judged(
        self, intake: Intake, headers: Mapping[str, str], body: bytes
    ) -> list[OutRecord]:
        judge = partial(self._judge, intake, headers, body)
        judged = await asyncio.to_thread(judge) if len(body) > _LARGE else judge()
        RECORDS_IN.labels(intake.stream.topic).inc(len(judged))
        rejected = [(at, one) for at, one in enumerate(judged) if isinstance(one, Rejection)]
        if rejected:
            for _, rejection in rejected:
                RECORDS_REJECTED.labels(rejection.code.value).inc()
            raise invalid_events(rejected, len(judged))
        return [one for one in judged if isinstance(one, OutRecord)]

    def _judge(self, intake: Intake, headers: Mapping[str, str], body: bytes) -> list[Judged]:
        events = events_of(headers, body)
        most = self._settings.ingest_max_events
        if len(events) > most:
            raise Problem(413, f"more than {most:,} events: send several requests")
        return intake.records(events)

    async def _store(self, stream: str, records: list[OutRecord], key: bytes | None) -> Answer:
        loop = asyncio.get_running_loop()
        stored: asyncio.Future[Outcome] = loop.create_future()

        def answer(outcome: Outcome) -> None:
            loop.call_soon_threadsafe(_resolve, stored, outcome)

        fingerprint = b"" if key is None else _fingerprint(records)
        submission = Submission(stream, records, key, fingerprint, answer)
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


def _key_of(headers: Mapping[str, str]) -> bytes | None:
    given = headers.get("idempotency-key")
    if given is None:
        return None
    match = _KEY.fullmatch(given)
    if match is None:
        raise Problem(400, "the Idempotency-Key is not a text of 1 to 255 visible characters")
    return hashlib.sha256((match["quoted"] or match["bare"]).encode()).digest()


def _fingerprint(records: Sequence[OutRecord]) -> bytes:
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


def _accepted(stored: Stored) -> Answer:
    records = [{"partition": partition, "offset": offset} for partition, offset in stored.places]
    headers = [_JSON, ("idempotency-replayed", "true")] if stored.repeated else [_JSON]
    return 200, headers, orjson.dumps({"accepted": len(records), "records": records})


def _resolve(stored: asyncio.Future[Outcome], outcome: Outcome) -> None:
    if not stored.done():
        stored.set_result(outcome)
