"""A webhook on 127.0.0.1 that keeps what is posted to it."""

import json
import threading
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


class Webhook:
    """Answers with `status`, at first with `first`; `bodies` holds what was posted, by path."""

    def __init__(self, status: int = 200, first: Iterable[int] = (), location: str = "") -> None:
        self.status = status
        statuses = iter(first)
        self.bodies: list[tuple[str, Any]] = []
        webhook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                webhook.bodies.append((self.path, json.loads(body)))
                self.send_response(next(statuses, webhook.status))
                self.send_header("Content-Length", "2")
                if location:
                    self.send_header("Location", location)
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
