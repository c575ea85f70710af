"""W3C Trace Context (https://www.w3.org/TR/trace-context/) in the headers of records. Pure.

Whoever sends a record may say which trace it belongs to. That is kept: in what is derived from the record, in
its dead letter, in a replay, and in its row if the stream says so (`Stream.trace`).
"""

import re
from collections.abc import Callable
from typing import Final

from streamflow.records import Headers, last_header

TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"

# Identifiers of zeros are invalid, and version ff is forbidden.
_TRACEPARENT: Final = re.compile(
    rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
)
_LONGEST_STATE: Final = 512  # bytes; what is longer need not be passed on


def is_traceparent(value: bytes | None) -> bool:
    return value is not None and _TRACEPARENT.fullmatch(value) is not None


def traceparent_of(headers: Headers) -> bytes | None:
    """The trace that a record belongs to; None if it names none, or not as the standard wants it."""
    value = last_header(headers, TRACEPARENT)
    return value if is_traceparent(value) else None


def trace_headers(headers: Headers, redact: Callable[[bytes], bytes]) -> Headers:
    """What a derived record keeps of these: its trace. A ``tracestate`` in which `redact` finds something
    private is left out, as the standard allows."""
    traceparent = traceparent_of(headers)
    if traceparent is None:
        return []
    kept: Headers = [(TRACEPARENT, traceparent)]
    state = last_header(headers, TRACESTATE)
    if state and len(state) <= _LONGEST_STATE and redact(state) == state:
        kept.append((TRACESTATE, state))
    return kept
