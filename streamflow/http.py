"""HTTP as this platform uses it: requests with a time-out and without redirects.

An address may hold a secret, so no error names one, and no redirect is followed to another host.
"""

from typing import Any, Final

import requests

from streamflow.errors import Unavailable, cause_of

_REDIRECTS: Final = range(300, 400)
_LONGEST_TEXT: Final = 300  # characters


def request(
    method: str, url: str, *, timeout: float, direct: bool = False, **options: Any
) -> requests.Response:
    """The answer, also one that says no: look at its `ok`.

    Args:
        method: GET or POST.
        url: where to.
        timeout: seconds to connect, and to wait for each part of the answer.
        direct: past any proxy of the environment.
        options: further arguments of `requests.request`.

    Raises:
        Unavailable: there is no answer, or a redirect; says why, and not where.
    """
    try:
        with requests.Session() as session:
            session.trust_env = not direct
            answer = session.request(method, url, timeout=timeout, allow_redirects=False, **options)
    except (requests.RequestException, ValueError) as error:
        raise Unavailable(_cause_of(error)) from None
    if answer.status_code in _REDIRECTS:
        raise Unavailable(f"a redirect, status {answer.status_code}")
    return answer


def _cause_of(error: BaseException) -> str:
    """Why a request failed, in the operating system's words where it has any."""
    if isinstance(error, requests.Timeout):
        return "timed out"
    cause = cause_of(error)
    return (isinstance(cause, OSError) and cause.strerror) or type(error).__name__


def first_words(response: requests.Response) -> str:
    """The beginning of an answer's body, on one line."""
    return " ".join(response.text.split())[:_LONGEST_TEXT]
