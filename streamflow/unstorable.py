"""What PostgreSQL cannot hold: NUL and lone surrogates in texts, numbers beyond double precision. The JSON of
a record shows most of them; validators, and decoders like those of ``Base64Str``, make others."""

import math
import re
from collections.abc import Iterable
from typing import Any, Final

from pydantic import BaseModel

from streamflow.event_values import scalars_in

UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")
NOT_FINITE: Final = "holds a number beyond the range of double precision"
_NUL: Final = "holds NUL"
_SURROGATE: Final = "holds a lone surrogate"
# NUL within JSON: an escape that is not itself escaped.
_ESCAPED_NUL: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


def parts_of_event(event: BaseModel) -> Iterable[tuple[str, Any]]:
    """Names and values of an event's fields, those that its model lacks among them."""
    return *event, *(event.__pydantic_extra__ or {}).items()


def why_unstorable(scalar: Any) -> str | None:
    """Why PostgreSQL cannot hold a value, if so."""
    if isinstance(scalar, str):
        found = UNSTORABLE.search(scalar)
        return found and (_NUL if found[0] == "\x00" else _SURROGATE)
    return NOT_FINITE if isinstance(scalar, float) and not math.isfinite(scalar) else None


def unstorable_field(event: BaseModel) -> tuple[str, str] | None:
    """The first field of an event that PostgreSQL cannot hold, and why; None for an event without one."""
    for name, part in parts_of_event(event):
        for scalar in scalars_in(part):
            if why := why_unstorable(scalar):
                return name, why
    return None


def holds_nul(document: bytes) -> bool:
    """Whether a text within JSON holds NUL."""
    return b"\\u0000" in document and _ESCAPED_NUL.search(document) is not None
