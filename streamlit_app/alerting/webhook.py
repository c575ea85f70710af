"""Sends the dashboard's alerts to the webhook, from a thread of its own."""

import queue
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Any, Final

import structlog
from pydantic import SecretStr

from streamflow.alerting.book import Alert
from streamflow.alerting.webhook import body_of, send
from streamflow.errors import Unavailable

log = structlog.get_logger()

_ATTEMPTS: Final = 6
_WAITING: Final = 1_000  # alerts
_KEPT: Final = 50


@dataclass(frozen=True, slots=True)
class SentAlert:
    """A message that was delivered, or not: `detail` says why."""

    at: float
    text: str
    delivered: bool
    detail: str


class Webhook:
    """Queues alerts and sends them one after the other; without a URL it sends nothing."""

    def __init__(self, url: SecretStr | None) -> None:
        self._url = url
        self._waiting: queue.Queue[dict[str, Any] | None] = queue.Queue(_WAITING)
        self._ended = threading.Event()
        self.sent: deque[SentAlert] = deque(maxlen=_KEPT)
        self._thread = threading.Thread(target=self._run, name="webhook", daemon=True)

    @property
    def configured(self) -> bool:
        return self._url is not None

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends; what could not be sent is lost."""
        self._ended.set()
        self._waiting.put(None)
        self._thread.join(2)

    def send(self, alert: Alert) -> None:
        """Queues an alert; returns at once."""
        if self._url is None:
            return
        try:
            self._waiting.put_nowait(body_of(alert))
        except queue.Full:
            log.warning("webhook_full", rule=alert.condition.rule)

    def _run(self) -> None:
        while not self._ended.is_set():
            body = self._waiting.get()
            if body is None or self._url is None:
                continue
            try:
                send(self._url, body, attempts=_ATTEMPTS, stop=self._ended)
            except Unavailable as error:
                log.error("webhook_failed", reason=str(error))  # noqa: TRY400 (no traceback needed)
                sent = SentAlert(time.time(), body["text"], delivered=False, detail=str(error))
            else:
                sent = SentAlert(time.time(), body["text"], delivered=True, detail="delivered")
            self.sent.append(sent)
