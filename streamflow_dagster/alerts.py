"""Telling people: one JSON body to the webhook of ``STREAMFLOW_WEBHOOK_URL``."""

from typing import Any, Final

import requests
import tenacity

from streamflow.errors import Unavailable
from streamflow.settings.orchestration import OrchestrationSettings

_TIMEOUT: Final = 2.0  # seconds
_TRIES: Final = 3


def tell(settings: OrchestrationSettings, text: str, **details: Any) -> bool:
    """Posts ``{"text": …, **details}``; chat programs show the text.

    Returns:
        Whether there is a webhook at all.

    Raises:
        Unavailable: it does not take it, several times. The address is not told: it is a secret.
    """
    if settings.webhook_url is None:
        return False
    url = settings.webhook_url.get_secret_value()
    retrying = tenacity.Retrying(
        stop=tenacity.stop_after_attempt(_TRIES),
        wait=tenacity.wait_exponential_jitter(multiplier=0.1, max=1),
        retry=tenacity.retry_if_exception_type(requests.RequestException),
        reraise=True,
    )
    try:
        retrying(_post, url, {"text": text, **details})
    except requests.RequestException as error:
        status = error.response.status_code if error.response is not None else "no answer"
        raise Unavailable(
            f"the webhook does not take it ({status}, {type(error).__name__}): check "
            "STREAMFLOW_WEBHOOK_URL"
        ) from None
    return True


def _post(url: str, body: dict[str, Any]) -> None:
    requests.post(url, json=body, timeout=_TIMEOUT).raise_for_status()
