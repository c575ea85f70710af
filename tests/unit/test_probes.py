"""Probes of parts over HTTP, against a server of this process."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from streamflow.settings import load_process_settings
from streamflow_stack.part import READY
from streamflow_stack.probes import probe_http, probe_worker


class _Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status, _, body = self.path.lstrip("/").partition("/")
        # A worker's two addresses, below one that says how it is.
        code = {"ready": 503, "health": 500 if status == "hung" else 200}.get(body) or int(status)
        self.send_response(code)
        self.end_headers()
        self.wfile.write(b'{"reason": "too  busy"}')

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "")  # and back, after the test
    load_process_settings()
    with ThreadingHTTPServer(("127.0.0.1", 0), _Answers) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{made.server_port}"
        made.shutdown()


def test_our_own_parts_are_asked_past_a_proxy(server: str) -> None:
    assert probe_http(f"{server}/200") == READY
    refusal = probe_http(f"{server}/503")
    assert (refusal.answered, refusal.ready, refusal.detail) == (True, False, "too busy")


def test_a_worker_hangs_only_if_it_says_so(server: str) -> None:
    waiting, hung = probe_worker(f"{server}/waiting"), probe_worker(f"{server}/hung")
    assert (waiting.answered, waiting.ready, waiting.hung) == (True, False, False)
    assert (hung.answered, hung.ready, hung.hung) == (True, False, True)


def test_a_port_without_a_server_does_not_answer() -> None:
    health = probe_http("http://127.0.0.1:1/readyz")
    assert (health.answered, health.ready) == (False, False)
    assert health.detail == "does not answer: [Errno 111] Connection refused"
