"""The trace of a record: what is kept of it, and where."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from loads import FakeRecord, batch, event
from streamflow import dead_letter_records
from streamflow.contract import Event
from streamflow.declarations import problems
from streamflow.errors import ErrorCode
from streamflow.postgres.forgotten import event_blanks
from streamflow.postgres.tables import ColumnFaults, event_columns, event_table
from streamflow.privacy import Hasher
from streamflow.private_values import CardNumber
from streamflow.records import ORIGIN_HEADER, Headers, Rejection
from streamflow.settings import Settings
from streamflow.signing import Signer
from streamflow.streams.user_events import USER_EVENTS
from streamflow.trace_context import trace_headers, traceparent_of
from streaming_workers.loader import Loader
from streaming_workers.validator import Validator

TRACE = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
STATE = b"rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"
TRACED: Headers = [("traceparent", TRACE), ("tracestate", STATE)]
SIGNER = Signer(b"a secret of the workers")


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        TRACE.upper(),
        TRACE + b"-more",
        TRACE + b"\n",
        b"ff" + TRACE[2:],
        b"00-" + b"0" * 32 + b"-00f067aa0ba902b7-01",
        b"00-4bf92f3577b34da6a3ce929d0e0e4736-" + b"0" * 16 + b"-01",
    ],
)
def test_what_names_no_trace_is_not_passed_on(value: bytes | None) -> None:
    assert trace_headers([("traceparent", value), ("tracestate", STATE)], bytes) == []


def test_the_last_one_counts() -> None:
    other = TRACE.replace(b"4bf9", b"5bf9")
    assert traceparent_of([("traceparent", other), ("x", b"y"), ("traceparent", TRACE)]) == TRACE


@pytest.mark.parametrize("state", [b"vendor=ann@example.com", b"x=" + b"y" * 511, b"", None])
def test_a_state_that_is_private_or_too_long_is_left_out(state: bytes | None) -> None:
    headers: Headers = [("traceparent", TRACE), ("tracestate", state)]
    assert trace_headers(headers, Hasher().redact) == [("traceparent", TRACE)]


def test_a_notification_keeps_the_trace_of_its_event_and_its_signature_holds() -> None:
    validator = Validator(Settings(), [USER_EVENTS], Hasher())
    records = [FakeRecord(0, event(0), headers=[*TRACED, ("x", b"y")]), FakeRecord(1, event(1))]
    output = validator.process(batch(records))
    assert output is not None
    traced, plain = output.records
    assert traced.headers == [(ORIGIN_HEADER, b"user-events/0/0"), *TRACED]
    assert plain.headers == [(ORIGIN_HEADER, b"user-events/0/1")]
    signed = SIGNER.sign(traced)
    # What reads the record through a proxy that traces, too, may add headers of its own.
    behind = [*signed.headers, ("traceparent", TRACE.replace(b"4bf9", b"5bf9"))]
    read = FakeRecord(0, signed.value, topic=signed.topic, key=signed.key, headers=behind)
    assert SIGNER.signed_headers(read) == traced.headers


def test_a_dead_letter_keeps_the_trace_whatever_its_digits_look_like() -> None:
    # One of many that random digits make: it looks like the number of a card.
    trace = b"00-4bf92f3577b34da6a3ce929d0e0e4736-4111111111111111-01"
    hasher = Hasher(private_values=(CardNumber(),))
    assert hasher.redact(trace) != trace
    headers: Headers = [
        ("traceparent", trace),
        ("other", b"4111111111111111"),
        ("tracestate", STATE),
    ]
    record = FakeRecord(3, b"no event", headers=headers)
    rejection = Rejection(ErrorCode.INVALID_JSON, "ValueError", "no JSON")
    validator = Validator(Settings(), [USER_EVENTS], hasher)
    letter = validator._dead_letter(record, rejection, batch([record]))
    kept = dict(letter.headers)
    assert (kept["traceparent"], kept["tracestate"]) == (trace, STATE)
    assert kept["other"] != b"4111111111111111"
    wrong = dead_letter_records.redact(hasher, None, None, [("traceparent", b"ann@example.com")])
    assert b"ann@" not in (wrong.headers[0][1] or b"")


def test_the_stream_of_the_documentation_keeps_traces() -> None:
    page = (Path(__file__).parents[2] / "docs/lineage-and-traces.md").read_text()
    [block] = re.findall(r"```python\n(.+?)```", page, re.DOTALL)
    names: dict[str, Any] = {"__name__": "my_streams"}
    exec(block, names)  # noqa: S102
    assert problems(names["VISITS"], []) == []
    assert "traceparent" in {column.name for column in event_columns(names["VISITS"])}


TRACING = replace(USER_EVENTS, trace=True)


def lines(records: list[FakeRecord], stream: object = TRACING) -> list[list[bytes]]:
    loader = Loader(Settings(), [stream], Hasher(), lambda: SIGNER)  # type: ignore[list-item]
    rows = loader.process(batch(records)).tables["events"]
    assert rows.is_binary
    return [line.rstrip(b"\n").split(b"\t") for line in rows.lines]


def test_a_row_keeps_the_trace_where_the_stream_says_so() -> None:
    records = [
        FakeRecord(0, event(0), headers=TRACED),
        FakeRecord(1, event(1)),
        FakeRecord(2, event(2), headers=[("traceparent", b"nonsense")]),
    ]
    assert event_table(TRACING).columns[-2:] == ("appended_at", "traceparent")
    assert [line[-1] for line in lines(records)] == [TRACE, rb"\N", rb"\N"]
    # Elsewhere nothing changes.
    assert event_table(USER_EVENTS).columns[-1] == "appended_at"
    assert [line[:-1] for line in lines(records)] == lines(records, USER_EVENTS)


def test_a_forgotten_row_keeps_no_trace() -> None:
    blanks = event_blanks(TRACING, event_columns(TRACING))
    assert blanks["traceparent"] is None


def test_a_field_may_have_the_name_of_the_column_unless_it_is_kept() -> None:
    class Traced(Event):
        traceparent: str

    declared = replace(USER_EVENTS, contract=Traced, key="traceparent", event_time="traceparent")
    assert "traceparent" in {column.name for column in event_columns(declared)}
    with pytest.raises(ColumnFaults, match="the field name traceparent is taken by the loader"):
        event_columns(replace(declared, trace=True))
