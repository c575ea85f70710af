"""What a changed contract means for a table that is there: safe, a step, or breaking."""

import re
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal

import pytest
from pydantic import AfterValidator, Field, create_model

from streamflow import Event, Stream, Timestamp
from streamflow.check import StreamCheck
from streamflow.postgres.evolution import (
    Change,
    ExistingColumn,
    Level,
    StoredTable,
    classify,
    converts,
    judge_rows,
    level_of,
    merged,
    widens_in_place,
)
from streamflow.postgres.tables import event_columns
from streamflow.samples.factory import SampleFactory

BEFORE: dict[str, Any] = {
    "kind": (Literal["placed", "lost"], ...),
    "moment": (Timestamp, ...),
    "size": (int, ...),
    "total": (Annotated[Decimal, Field(max_digits=12, decimal_places=2)], ...),
    "note": (str | None, None),
}
SAFE, STEP, BREAKING = Level.SAFE, Level.STEP, Level.BREAKING


def stream_of(fields: dict[str, Any], **changes: Any) -> Stream:
    contract = create_model("Order", __base__=Event, **fields)
    declared: dict[str, Any] = {
        "name": "orders", "table": "orders", "key": "kind", "event_time": "moment",
    }  # fmt: skip
    return Stream(contract=contract, **(declared | changes))


def without(name: str) -> dict[str, Any]:
    return {field: kind for field, kind in BEFORE.items() if field != name}


def stored_of(stream: Stream) -> StoredTable:
    columns = {
        column.name: ExistingColumn(column.type, column.nullable, column.name == "loaded_at")
        for column in event_columns(stream)
    }
    return StoredTable(columns, stream.event_time)


STORED = stored_of(stream_of(BEFORE))


def numeric(digits: int, places: int) -> Any:
    return Annotated[Decimal, Field(max_digits=digits, decimal_places=places)]


@pytest.mark.parametrize(
    ("fields", "level", "says"),
    [
        (BEFORE, SAFE, ""),
        # Added.
        (BEFORE | {"more": (str | None, None)}, SAFE, "`more` is a new optional field"),
        (BEFORE | {"more": (list[str], [])}, SAFE, "`more` is a new optional field"),
        (BEFORE | {"more": (str, ...)}, STEP, "`more` is a new required field.* as an optional field first"),
        (BEFORE | {"more": (str | None, ...)}, STEP, "`more` is a new required field"),
        # Gone.
        (without("note"), SAFE, "`note` is no field any more: its column stays"),
        (without("size"), BREAKING, '`size` is no field .*TABLE "orders" ALTER COLUMN "size" DROP NOT'),
        # Nullable.
        (BEFORE | {"size": (int | None, None)}, STEP, "`size` becomes optional.*`streamflow db upgrade`"),
        (BEFORE | {"note": (str, ...)}, SAFE, ""),
        # Types.
        (BEFORE | {"total": (numeric(14, 2), ...)}, STEP, "widened from numeric.12,2. to.*db upgrade"),
        (BEFORE | {"total": (Decimal, ...)}, STEP, "widened from numeric.12,2. to numeric"),
        (
            BEFORE | {"total": (numeric(14, 4), ...)}, STEP,
            r'run ALTER TABLE "orders" ALTER COLUMN "total" TYPE numeric\(14,4\), which writes',
        ),
        (BEFORE | {"total": (numeric(13, 4), ...)}, BREAKING, "`total` becomes numeric.13,4."),
        (BEFORE | {"total": (numeric(10, 2), ...)}, BREAKING, "becomes numeric.10,2., and its column is"),
        (BEFORE | {"size": (Decimal, ...)}, STEP, 'ALTER COLUMN "size" TYPE numeric, which'),
        (BEFORE | {"size": (str, ...)}, BREAKING, "`size` becomes text, and .* is bigint.*a new name"),
        # By another name in JSON, with a wider limit: columns know nothing of it.
        (BEFORE | {"note": (str | None, Field(None, alias="noteText", max_length=9))}, SAFE, ""),
        (BEFORE | {"kind": (Literal["placed", "lost", "new"], ...)}, SAFE, ""),
    ],
)  # fmt: skip
def test_what_columns_show(fields: dict[str, Any], level: Level, says: str) -> None:
    changes = classify(STORED, stream_of(fields))
    assert level_of(changes) is level

    text = "; ".join(f"{change.what} → {change.way}" for change in changes)
    assert re.search(says, text), text
    assert bool(changes) == bool(says)


def test_what_else_changes() -> None:
    [new] = classify(StoredTable({}, None), stream_of(BEFORE))
    assert new == Change(SAFE, "the table orders is new")
    # Another event time, which is a field that is there.
    fields = BEFORE | {"due": (Timestamp, ...)}
    [moved] = classify(stored_of(stream_of(fields)), stream_of(fields, event_time="due"))
    assert moved.level is BREAKING
    assert "the event time becomes `due`, and orders is partitioned by `moment`" in moved.what
    [kept] = classify(STORED, stream_of(BEFORE, unknown_fields="keep"))
    assert kept.level is SAFE
    # With other unknown fields the producers may go first.
    fields = BEFORE | {"more": (str, ...)}
    [added] = classify(STORED, stream_of(fields, unknown_fields="ignore"))
    assert added.way.startswith("deploy the producers that send it first")
    # By hand, with a default.
    columns = dict(STORED.columns) | {"team": ExistingColumn("text", nullable=False, filled=True)}
    assert level_of(classify(StoredTable(columns, "moment"), stream_of(BEFORE))) is SAFE


def test_numbers_that_are_widened() -> None:
    assert widens_in_place("numeric(12,2)", "numeric(13,2)")
    assert widens_in_place("numeric(12,2)", "numeric")
    assert not widens_in_place("numeric", "numeric(12,2)")
    assert not widens_in_place("numeric(12,2)", "numeric(12,2)")
    assert not widens_in_place("numeric(12,2)", "numeric(14,3)")
    assert not widens_in_place("bigint", "numeric")
    assert converts("bigint", "numeric(19,0)")
    assert not converts("bigint", "numeric(18,0)")
    assert not converts("numeric", "numeric(12,2)")
    assert not converts("numeric(12,2)", "bigint")


class Kind(Enum):
    PLACED = "placed"


def row(**changes: Any) -> dict[str, Any]:
    return {
        "kind": "placed", "moment": datetime(2026, 3, 1, tzinfo=UTC), "size": 1, "total": Decimal("1.50"),
        "note": None,
    } | changes  # fmt: skip


def raises(_value: Any) -> Any:
    raise RuntimeError


ROWS = [row(), row(kind="lost", size=7), row(note="a longer one"), row(kind="lost")]


@pytest.mark.parametrize(
    ("fields", "level", "says"),
    [
        (BEFORE, SAFE, ""),
        (BEFORE | {"kind": (Literal["placed", "lost", "new"], ...)}, SAFE, ""),
        (BEFORE | {"size": (int, Field(alias="howMany"))}, SAFE, ""),
        (BEFORE | {"more": (str | None, None)}, SAFE, ""),
        (
            BEFORE | {"kind": (Kind, ...)}, BREAKING,
            r"2 of 4 newest rows are no valid events any more: kind: .*'placed' \(2\) → let the contract",
        ),
        (
            BEFORE | {"size": (Annotated[int, Field(lt=5)], ...)}, BREAKING,
            r"1 of 4 newest rows is no valid event any more: .*size: .*less than 5 \(1\)",
        ),
        (BEFORE | {"note": (Annotated[str | None, Field(max_length=3)], None)}, BREAKING, "1 of 4 newest"),
        # Each fault is counted by itself: a row may have several.
        (
            BEFORE | {"kind": (Kind, ...), "size": (Annotated[int, Field(lt=5)], ...)}, BREAKING,
            r"2 of 4 newest rows are no valid .*: kind: should be 'placed' \(2\); size: .*than 5 \(1\) →",
        ),
        (BEFORE | {"size": (Annotated[int, AfterValidator(raises)], ...)}, BREAKING, "RuntimeError .4."),
        # What is lacking is one thing, what is wrong another.
        (BEFORE | {"more": (str, ...)}, STEP, "`more` is required, and 4 of 4 newest rows have none"),
        (BEFORE | {"note": (str, ...)}, STEP, "`note` is required, and 3 of 4 newest rows have none"),
        (BEFORE | {"more": (str, ...), "kind": (Kind, ...)}, BREAKING, "`more` is required, and 2 of 4"),
        (without("note"), STEP, "`note` is no field any more, and 1 of 4 newest rows has it"),
        # The column says so.
        (BEFORE | {"size": (str, ...)}, SAFE, ""),
        (BEFORE | {"size": (Decimal, ...), "total": (Decimal, ...)}, SAFE, ""),
    ],
)  # fmt: skip
def test_what_rows_show(fields: dict[str, Any], level: Level, says: str) -> None:
    stream = stream_of(fields)
    example = None
    if "RuntimeError" not in says:
        example = next(SampleFactory(stream).plain()).event
    examples = {} if example is None else {type(example): example}
    changes = judge_rows(stream, STORED, ROWS, examples)
    assert level_of(changes) is level

    text = "; ".join(f"{change.what} → {change.way}" for change in changes)
    assert re.search(says, text), text
    assert bool(changes) == bool(says)


def test_fields_that_are_sent_and_ignored() -> None:
    stream = stream_of(without("note"), unknown_fields="ignore")
    assert judge_rows(stream, STORED, ROWS, {}) == []


def test_traces_that_rows_keep_or_keep_no_more() -> None:
    traced, untraced = stream_of(BEFORE, trace=True), stream_of(BEFORE)
    [change] = classify(STORED, traced)
    assert (change.level, change.what) == (SAFE, "rows keep the trace of their record")
    [change] = classify(stored_of(traced), untraced)
    assert change.level is SAFE
    kept = [row(traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")]
    assert judge_rows(untraced, stored_of(traced), kept, {}) == []


def test_a_field_that_only_one_model_requires() -> None:
    """Its column may be empty, so it shows in the rows alone."""
    base = create_model("Base", __base__=Event, moment=(Timestamp, ...))
    placed = create_model("Placed", __base__=base, kind=(Literal["placed"], ...))
    lost = create_model("Lost", __base__=base, kind=(Literal["lost"], ...), where=(str, ...))
    union: Any = Annotated[placed | lost, Field(discriminator="kind")]  # type: ignore[valid-type]
    stream = Stream(name="orders", contract=union, table="orders", key="kind", event_time="moment")
    stored = StoredTable(
        {name: column for name, column in stored_of(stream).columns.items() if name != "where"},
        "moment",
    )
    assert [change.level for change in classify(stored, stream)] == [SAFE]
    examples = {
        type(sample.event): sample.event
        for sample, _ in zip(SampleFactory(stream).plain(), range(50), strict=False)
    }
    assert len(examples) == 2
    rows = [{"kind": kind, "moment": ROWS[0]["moment"]} for kind in ("placed", "lost")]
    for order in (placed, lost), (lost, placed):
        [change] = judge_rows(stream, stored, rows, {model: examples[model] for model in order})
        assert (change.level, change.field) == (STEP, "where")


def test_of_a_field_the_worst_is_told_once() -> None:
    columns = [
        Change(SAFE, "a"),
        Change(SAFE, "gone", field="note"),
        Change(STEP, "n", field="more"),
    ]
    rows = [
        Change(BREAKING, "b"),
        Change(STEP, "sent", field="note"),
        Change(STEP, "m", field="more"),
    ]
    assert [change.what for change in merged(columns, rows)] == ["a", "sent", "n", "b"]


def test_what_is_good_enough() -> None:
    step = StreamCheck("orders", changes=[Change(SAFE, "a"), Change(STEP, "b")])
    assert not step.is_good()
    assert step.is_good(allow_steps=True)
    breaking = StreamCheck("orders", changes=[Change(STEP, "b"), Change(BREAKING, "c")])
    assert not breaking.is_good(allow_steps=True)
    assert StreamCheck("orders", changes=[]).is_good()
    assert not StreamCheck("orders", not_tried=["the broker"]).is_good(allow_steps=True)
