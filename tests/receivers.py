"""Receivers of spans (OTLP over HTTP) and of OpenLineage events on 127.0.0.1, which keep what they get."""

import gzip
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span


class Receiver:
    """Answers with `status`; with `hangs` it does not answer before the end."""

    def __init__(self, status: int = 200, *, hangs: bool = False) -> None:
        self.status = status
        self.posted: list[tuple[str, dict[str, str], bytes]] = []
        self.asked = threading.Event()
        self._ended = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                receiver.asked.set()
                if hangs:
                    receiver._ended.wait(60)
                    return
                receiver.posted.append((self.path, dict(self.headers), body))
                self.send_response(receiver.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            # Whoever hangs up is no error of the test.
            def handle_error(self, *_: object) -> None:
                pass

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def bodies(self, path: str) -> Iterator[bytes]:
        for asked, _, body in list(self.posted):
            assert asked == path, asked
            yield body


class SpanReceiver(Receiver):
    @property
    def variables(self) -> dict[str, str]:
        """The environment of a process that sends its spans here, and soon."""
        return {
            "STREAMFLOW_TRACING": "true",
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.url,
            "OTEL_BSP_SCHEDULE_DELAY": "100",
        }

    def spans(self, name: str, service: str | None = None) -> list[Span]:
        found = []
        for body in self.bodies("/v1/traces"):
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                own = {each.key: each.value.string_value for each in resource.resource.attributes}
                if service in (None, own["service.name"]):
                    found += [
                        span
                        for scope in resource.scope_spans
                        for span in scope.spans
                        if span.name == name
                    ]
        return found


def attributes(span: Span) -> dict[str, Any]:
    """Those of a span as Python's values."""
    found = {}
    for each in span.attributes:
        kind = str(each.value.WhichOneof("value"))
        value = getattr(each.value, kind)
        found[each.key] = (
            [one.string_value for one in value.values] if kind == "array_value" else value
        )
    return found


class LineageReceiver(Receiver):
    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(body) for body in self.bodies("/api/v1/lineage")]

    def of_job(self, name: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["job"]["name"] == name]
