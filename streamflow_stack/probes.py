"""Probes of parts over HTTP."""

from dataclasses import replace
from typing import Final

import requests

from streamflow.errors import Unavailable, cause_of
from streamflow.http import request
from streamflow_stack.part import PROBE_SECONDS, READY, Health

_LONGEST_DETAIL: Final = 300  # characters


def probe_worker(url: str) -> Health:
    """Whether a worker is ready, and if it is not, whether it is healthy at all.

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
    try:
        answer = request("GET", url, timeout=PROBE_SECONDS)
    except Unavailable as error:
        return failure_of(error)
    return READY if answer.ok else Health(answered=True, ready=False, detail=_reason(answer))


def failure_of(error: BaseException) -> Health:
    return Health(answered=False, ready=False, detail=f"does not answer: {cause_of(error)}")


def _reason(answer: requests.Response) -> str:
    text = answer.text.strip()
    try:
        content = answer.json()
        text = str(content["reason"] if isinstance(content, dict) and "reason" in content else text)
    except ValueError:
        pass
    return " ".join(text.split())[:_LONGEST_DETAIL] or "not ready"
