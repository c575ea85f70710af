"""Sends OpenLineage events from a thread of its own: whoever makes them never waits for the receiver."""

import logging
import threading
from collections import deque
from typing import Final

import requests
import structlog
from openlineage.client.event_v2 import RunEvent
from openlineage.client.transport.http import (
    ApiKeyTokenProvider,
    HttpConfig,
    HttpTransport,
    TokenProvider,
)

from streamflow.errors import cause_of
from streamflow.settings import Settings

log = structlog.get_logger()

MOST: Final = 1_000  # events that wait; of more the oldest are dropped
_TIMEOUT: Final = 5.0  # seconds, of one request
_PAUSE: Final = 5.0  # seconds until a receiver that did not answer is asked again
_PATIENCE: Final = 2.0  # seconds that `close` waits for what is not sent yet
_TRY_AGAIN: Final = (408, 429)  # statuses of clients' errors that pass


class Sender:
    """Sends events in their order. Those that a receiver has not taken wait until it does, so that a short
    outage loses none; close it."""

    def __init__(self, settings: Settings) -> None:
        # Each failure is in its log with a traceback.
        logging.getLogger("openlineage").addHandler(logging.NullHandler())
        logging.getLogger("openlineage").propagate = False
        key = settings.openlineage_api_key
        self._url = settings.openlineage_url or ""
        self._transport = HttpTransport(
            HttpConfig(
                url=f"{self._url.rstrip('/')}/",
                timeout=_TIMEOUT,
                auth=TokenProvider({})
                if key is None
                else ApiKeyTokenProvider({"api_key": key.get_secret_value()}),
                retry={"total": 0},
            )
        )
        self._waiting: deque[RunEvent] = deque(maxlen=MOST)
        self._changed = threading.Condition()
        self._ending = False
        self._works = True
        self._is_away = False
        self._thread = threading.Thread(target=self._run, name="openlineage", daemon=True)
        self._thread.start()

    def send(self, event: RunEvent) -> None:
        """Puts an event into the queue; returns at once."""
        with self._changed:
            self._waiting.append(event)
            self._changed.notify()

    def close(self) -> None:
        """Returns when all is sent, or after two seconds; at once if the receiver does not answer anyway."""
        with self._changed:
            self._ending = True
            self._changed.notify()
        if not self._is_away:
            self._thread.join(_PATIENCE)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._ending)
                if not self._waiting:
                    return
                event = self._waiting.popleft()
            self._is_away = not self._sent(event)
            if not self._is_away:
                continue
            with self._changed:
                if len(self._waiting) < MOST:
                    self._waiting.appendleft(event)
                ended = self._changed.wait_for(lambda: self._ending, _PAUSE)
            if ended:
                return

    def _sent(self, event: RunEvent) -> bool:
        """Whether nothing more is to be done about an event."""
        try:
            self._transport.emit(event)
        except requests.HTTPError as error:
            status = 0 if error.response is None else error.response.status_code
            if status in range(400, 500) and status not in _TRY_AGAIN:
                # It would be refused again, and everything behind it would wait.
                self._say(f"status {status}", "the event is dropped")
                return True
            self._say(f"status {status}")
        except Exception as error:  # noqa: BLE001 (whatever is wrong with lineage, nothing else stops)
            self._say(type(cause_of(error)).__name__)
        else:
            self._say(None)
            return True
        return False

    def _say(self, why: str | None, then: str = "events wait until it does") -> None:
        if self._works == (why is None):
            return
        self._works = why is None
        if why is None:
            log.info("lineage is sent again")
        else:
            log.warning(
                "lineage is not sent", why=why, url=self._url, advice=f"{then}; nothing else waits"
            )
