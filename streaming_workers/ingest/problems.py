"""What goes wrong with a request, as RFC 9457 has it: ``application/problem+json``. No piece of the input."""

import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Final

import orjson

from streamflow.producer.judge import reasons_of
from streamflow.records import Rejection

PROBLEM_TYPE: Final = "application/problem+json"
_MOST_ERRORS: Final = 100
# A path in the contract's words: `items[2].price`.
_PATH: Final = re.compile(r"(?P<path>[^\s:]+): ")
_STEP: Final = re.compile(r"\[(\d+)\]|([^.\[\]]+)")


class Problem(Exception):
    """The answer to a request that is not accepted.

    Args:
        status: of HTTP.
        detail: what is wrong and what to do, in a sentence.
        retry_after: seconds after which the same request may be accepted; None if it never will.
        headers: further ones.
        members: further members of the document.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        retry_after: int | None = None,
        headers: Sequence[tuple[str, str]] = (),
        **members: Any,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.headers = [("content-type", PROBLEM_TYPE), *headers]
        if retry_after is not None:
            self.headers.append(("retry-after", str(retry_after)))
        title = HTTPStatus(status).phrase
        self.document = {"title": title, "status": status, "detail": detail} | members

    @property
    def body(self) -> bytes:
        return orjson.dumps(self.document)


def invalid_events(rejections: Sequence[tuple[int, Rejection]], count: int) -> Problem:
    """The problem of events that break their contract, each with its place among the `count` events of the
    request, and with the place of what is wrong in it: a pointer of RFC 6901, as a fragment."""
    errors = [
        {
            "index": index,
            "code": rejection.code.value,
            "detail": reason,
            "pointer": pointer_of(reason),
        }
        for index, rejection in rejections[:_MOST_ERRORS]
        for reason in reasons_of(rejection)
    ]
    return Problem(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        f"{len(rejections):,} of {count:,} events break the contract: nothing is stored",
        invalid=len(rejections),
        errors=errors[:_MOST_ERRORS],
    )


def pointer_of(reason: str) -> str:
    """Where the field is that a reason names; keys of dicts are input, so a path ends before one."""
    match = _PATH.match(reason)
    if match is None:
        return "#"
    path = match["path"].partition("[*]")[0].partition("[key]")[0]
    steps = (number or name for number, name in _STEP.findall(path))
    return "#" + "".join(f"/{step.replace('~', '~0').replace('/', '~1')}" for step in steps)
