"""A request to the ingest worker."""

import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from streaming_workers.ingest.bodies import too_large
from streaming_workers.ingest.problems import Problem

# RFC 8941: a text in quotes, as the draft on Idempotency-Key has it; most clients leave them out.
_KEY: Final = re.compile(r'"(?P<quoted>(?:[^"\\]|\\["\\]){1,255})"|(?P<bare>[!#-\[\]-~]{1,255})')


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

    def idempotency_key(self) -> bytes | None:
        """The SHA-256 of the key; None without one. Raises Problem if it is malformed."""
        given = self.headers.get("idempotency-key")
        if given is None:
            return None
        match = _KEY.fullmatch(given)
        if match is None:
            raise Problem(400, "the Idempotency-Key is not a text of 1 to 255 visible characters")
        return hashlib.sha256((match["quoted"] or match["bare"]).encode()).digest()
