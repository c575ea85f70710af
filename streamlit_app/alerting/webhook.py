"""Alerts leave the house: one POST per change, from a thread of its own, tried again with backoff."""

import json
import queue
import threading
import time
import urllib.request
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from http.client import HTTPException
from typing import Any, Final

import structlog

from streamlit_app.alerting.alerts import Alert, State

log = structlog.get_logger()

_TIMEOUT: Final = 5.0  # seconds
_ATTEMPTS: Final = 5
_FIRST_PAUSE: Final = 0.5  # seconds
_WAITING: Final = 1_000  # alerts
_KEPT: Final = 50


@dataclass(frozen=True, slots=True)
class Delivery:
    """What became of a message."""

    at: float
    text: str
    delivered: bool
    detail: str


class Webhook:
    """Sends alerts to a URL, whose body every chat's incoming webhook understands: it has ``text``.

    Args:
        url: where to; None sends nothing. It may hold a secret: it is never shown or logged.
    """

    def __init__(self, url: str | None) -> None:
        self._url = url
        self._waiting: queue.Queue[dict[str, Any] | None] = queue.Queue(_WAITING)
        self._ended = threading.Event()
        self.deliveries: deque[Delivery] = deque(maxlen=_KEPT)
        self._thread = threading.Thread(target=self._run, name="webhook", daemon=True)

    @property
    def configured(self) -> bool:
        """Whether anything is sent."""
        return self._url is not None

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def stop(self) -> None:
        """Ends; what could not be sent is lost."""
        self._ended.set()
        self._waiting.put(None)
        self._thread.join(2)

    def send(self, alert: Alert) -> None:
        """Hands an alert over; returns at once."""
        if self._url is None:
            return
        try:
            self._waiting.put_nowait(body_of(alert))
        except queue.Full:
            log.warning("webhook_full", rule=alert.condition.rule)

    def _run(self) -> None:
        while not self._ended.is_set():
            body = self._waiting.get()
            if body is not None:
                self._deliver(body)

    def _deliver(self, body: dict[str, Any]) -> None:
        detail = ""
        for attempt in range(_ATTEMPTS):
            try:
                detail = f"answered {_post(self._url or '', body)}"
            except (OSError, HTTPException, ValueError) as error:
                # The text of an error may hold the URL, and the URL a secret.
                detail = type(error).__name__
                if self._ended.wait(_FIRST_PAUSE * 2**attempt):
                    break
            else:
                self.deliveries.append(Delivery(time.time(), body["text"], True, detail))
                return
        log.error("webhook_failed", reason=detail)
        self.deliveries.append(Delivery(time.time(), body["text"], False, detail))


def body_of(alert: Alert) -> dict[str, Any]:
    """The JSON body of an alert."""
    condition = alert.condition
    mark = {State.FIRING: "FIRING", State.RESOLVED: "RESOLVED"}.get(alert.state, "PENDING")
    return {
        "text": f"[StreamFlow] {mark}: {condition.text}",
        "state": str(alert.state),
        "rule": condition.rule,
        "subject": condition.subject,
        "severity": str(condition.severity),
        "action": condition.action,
        "since": datetime.fromtimestamp(alert.since, UTC).isoformat(timespec="seconds"),
    }


def _post(url: str, body: dict[str, Any]) -> int:
    request = urllib.request.Request(  # noqa: S310 (configured)
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:  # noqa: S310 (as above)
        return int(answer.status)
