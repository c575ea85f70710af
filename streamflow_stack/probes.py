"""Probes over HTTP: how a part is, by its own word."""

from dataclasses import replace
from typing import Any, Final

import requests

from streamflow.errors import cause_of
from streamflow_stack.part import READY, Health

PROBE_SECONDS: Final = 2.0
DETAIL_LIMIT: Final = 300


def ask(method: str, url: str, **options: Any) -> requests.Response:
    """Sends a request to a part of ours: past any proxy, in `PROBE_SECONDS`.

    Raises:
        requests.RequestException: no answer, or one of status 400 and above.
    """
    with requests.Session() as session:
        session.trust_env = False
        answer = session.request(method, url, timeout=PROBE_SECONDS, **options)
    answer.raise_for_status()
    return answer


def probe_worker(url: str) -> Health:
    """Asks a worker whether it is ready, and if it is not, whether it is healthy at all.

    ``/ready`` asks the dependencies and may take long while they are away; ``/health`` does not.
    """
    ready = probe_http(f"{url}/ready")
    if ready.ready:
        return ready
    health = probe_http(f"{url}/health")
    if health.answered and not health.ready:
        return replace(health, hung=True)
    return replace(ready, answered=health.answered)


def probe_http(url: str) -> Health:
    """Asks an address whether all is well there."""
    try:
        ask("GET", url)
    except requests.HTTPError as error:
        return Health(answered=True, ready=False, detail=_reason(error.response))
    except requests.RequestException as error:
        return failure_of(error)
    return READY


def failure_of(error: BaseException) -> Health:
    """A part that did not answer, and why."""
    return Health(answered=False, ready=False, detail=f"does not answer: {cause_of(error)}")


def _reason(answer: requests.Response) -> str:
    text = answer.text.strip()
    try:
        content = answer.json()
        text = str(content["reason"] if isinstance(content, dict) and "reason" in content else text)
    except ValueError:
        pass
    return " ".join(text.split())[:DETAIL_LIMIT] or "not ready"
