"""HTTP as this platform uses it: requests with a time-out and without redirects.

A URL may hold a secret, so no error quotes one, and no redirect is followed to another host.
"""

from typing import Any, Final

import requests

from streamflow.errors import Unavailable, cause_of

_LONGEST_TEXT: Final = 300  # characters


def request(method: str, url: str, *, timeout: float, **options: Any) -> requests.Response:
    """The response, also an error status: look at its `ok`.

    Raises Unavailable if there is no response, or a redirect; the message says why, and not from where.

    Args:
        method: GET or POST.
        url: where to.
        timeout: seconds to connect, and to wait for each part of the response.
        options: further arguments of `requests.request`.
    """
    try:
        response = requests.request(method, url, timeout=timeout, allow_redirects=False, **options)
    except (requests.RequestException, ValueError) as error:
        raise Unavailable(_cause_of(error)) from None
    if response.status_code in range(300, 400):
        raise Unavailable(f"a redirect, status {response.status_code}")
    return response


def _cause_of(error: BaseException) -> str:
    if isinstance(error, requests.Timeout):
        return "timed out"
    cause = cause_of(error)
    return (isinstance(cause, OSError) and cause.strerror) or type(error).__name__


def first_words(response: requests.Response) -> str:
    """The beginning of a response's body, on one line."""
    return " ".join(response.text.split())[:_LONGEST_TEXT]
