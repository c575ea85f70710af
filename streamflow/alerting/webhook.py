"""The webhook of ``STREAMFLOW_WEBHOOK_URL``: one JSON body, one sender."""

import threading
from datetime import UTC, datetime
from typing import Any, Final

import tenacity
from pydantic import SecretStr

from streamflow import http
from streamflow.alerting.book import Alert
from streamflow.errors import Unavailable

_TIMEOUT: Final = 3.0  # seconds
_FIRST_PAUSE: Final = 0.25  # seconds, doubled with each further attempt
_LONGEST_PAUSE: Final = 5.0  # seconds


def body_of(alert: Alert, **details: Any) -> dict[str, Any]:
    """JSON: ``text`` for chats, the other fields for programs."""
    condition = alert.condition
    return {
        "text": f"[StreamFlow] {alert.state.upper()}: {condition.text}",
        "key": condition.key,
        "state": str(alert.state),
        "rule": condition.rule,
        "subject": condition.subject,
        "severity": str(condition.severity),
        "action": condition.action,
        "since": datetime.fromtimestamp(alert.since, UTC).isoformat(timespec="seconds"),
        **details,
    }


def send(
    url: SecretStr, body: dict[str, Any], *, attempts: int, stop: threading.Event | None = None
) -> None:
    """Posts a body of `body_of`; retries with backoff, until `stop` is set. The URL may hold a secret, so
    it is in no error.

    Raises:
        Unavailable: no attempt succeeded.
    """
    ended = stop or threading.Event()
    tenacity.Retrying(
        stop=tenacity.stop_after_attempt(attempts) | tenacity.stop_when_event_set(ended),
        wait=tenacity.wait_exponential_jitter(
            multiplier=_FIRST_PAUSE, max=_LONGEST_PAUSE, jitter=0.1
        ),
        retry=tenacity.retry_if_exception_type(Unavailable),
        sleep=tenacity.sleep_using_event(ended),
        reraise=True,
    )(_post, url, body)


def _post(url: SecretStr, body: dict[str, Any]) -> None:
    try:
        answer = http.request("POST", url.get_secret_value(), timeout=_TIMEOUT, json=body)
    except Unavailable as error:
        why = str(error)
    else:
        if answer.ok:
            return
        why = f"status {answer.status_code}"
    raise Unavailable(f"the webhook did not take the alert ({why}): check STREAMFLOW_WEBHOOK_URL")
