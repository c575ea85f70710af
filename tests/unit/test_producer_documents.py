"""What Python holds as the document that a contract judges."""

import json
import math
from collections.abc import Mapping
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd
import pytest

from producing import PURCHASES, Country, Purchase
from streamflow.errors import ErrorCode, InvalidEvent, UsageError
from streamflow.privacy import Hasher
from streamflow.producer.documents import Documents
from streamflow.producer.frames import documents_of
from streamflow.producer.judge import Judge
from streamflow.records import Rejection
from streamflow.settings import Settings

AT = datetime(2026, 3, 1, 13, 0, 0, 123456, tzinfo=timezone(timedelta(hours=1)))
ID = UUID("12345678-1234-5678-1234-567812345678")
NATIVE: dict[str, Any] = {
    "id": ID,
    "customer": "ann",
    "country": Country.JAPAN,
    "quantity": 3,
    "total": Decimal("12.50"),
    "voucher": None,
    "due": date(2026, 4, 1),
    "shipped": AT,
    "timestamp": AT,
}
STORED = {
    "id": str(ID), "customer": "ann", "country": "JP", "quantity": 3, "total": "12.50", "voucher": None,
    "due": "2026-04-01", "shipped": 1772366400123, "timestamp": "2026-03-01T12:00:00.123Z",
}  # fmt: skip


@pytest.fixture
def judge() -> Judge:
    return Judge(PURCHASES, Settings())


def sent(judge: Judge, event: Any) -> dict[str, Any]:
    value = judge.record(event).value
    assert value is not None
    document: dict[str, Any] = json.loads(value)
    return document


def fault(judge: Judge, event: Any) -> tuple[ErrorCode, tuple[str, ...]]:
    with pytest.raises(InvalidEvent) as raised:
        judge.record(event)
    return raised.value.code, raised.value.reasons


def test_values_of_python_are_sent_as_the_contract_has_them(judge: Judge) -> None:
    assert sent(judge, NATIVE) == STORED


def test_an_event_is_sent_as_its_fields_are(judge: Judge) -> None:
    assert sent(judge, Purchase(**NATIVE)) == STORED


def test_numpy_and_pandas_values_are_those_of_python(judge: Judge) -> None:
    changed = NATIVE | {
        "quantity": np.int64(3), "weight": np.float32(0.5), "customer": np.str_("ann"),
        "timestamp": pd.Timestamp(AT), "shipped": pd.Timestamp(AT),
    }  # fmt: skip
    assert sent(judge, changed) == STORED | {"weight": 0.5}


def test_clear_text_is_hashed_and_a_hash_stays(judge: Judge) -> None:
    hashed = Hasher().hash("ann@example.com")
    assert sent(judge, NATIVE | {"email": "ann@example.com"})["email"] == hashed
    assert sent(judge, NATIVE | {"email": hashed})["email"] == hashed
    assert sent(judge, Purchase(**NATIVE, email=hashed))["email"] == hashed


@pytest.mark.parametrize(
    ("changed", "code", "reason"),
    [
        ({"quantity": "SECRET"}, ErrorCode.SCHEMA_VIOLATION, "quantity: should be a valid integer"),
        ({"weight": math.nan}, ErrorCode.INVALID_JSON, "not JSON"),
        ({"timestamp": datetime(2026, 3, 1)}, ErrorCode.SCHEMA_VIOLATION, "timestamp: .*zone"),  # noqa: DTZ001
        ({"shipped": datetime(2026, 3, 1)}, ErrorCode.SCHEMA_VIOLATION, "shipped: .*milliseconds"),  # noqa: DTZ001
        ({"customer": object()}, ErrorCode.SCHEMA_VIOLATION, "customer: .*type that JSON does not"),
        ({"weight": pd.NaT}, ErrorCode.SCHEMA_VIOLATION, "weight: .*type that JSON does not have"),
        ({"SECRET": object()}, ErrorCode.SCHEMA_VIOLATION, "the record: holds a value of a type"),
        ({"SECRET": 1}, ErrorCode.SCHEMA_VIOLATION, "the record: holds a field that is not"),
        ({"customer": "\ud800"}, ErrorCode.UNSTORABLE_VALUE, "customer: holds a lone surrogate"),
        ({"customer": "SECRET@example.com"}, ErrorCode.CLEAR_TEXT_PII, "customer: holds a clear"),
    ],
)
def test_an_invalid_event_is_named_by_its_field_and_never_quoted(
    judge: Judge, changed: Mapping[str, Any], code: ErrorCode, reason: str
) -> None:
    with pytest.raises(InvalidEvent, match=reason) as raised:
        judge.record(NATIVE | changed)
    assert raised.value.code is code
    assert "SECRET" not in str(raised.value)
    assert "SECRET" not in repr(raised.value.faults)
    assert raised.value.__cause__ is None
    assert raised.value.__context__ is None


def test_an_event_that_was_never_validated_is_judged(judge: Judge) -> None:
    code, _ = fault(judge, Purchase.model_construct(**(NATIVE | {"quantity": -1.5})))
    assert code is ErrorCode.SCHEMA_VIOLATION
    code, _ = fault(judge, Purchase.model_construct(**(NATIVE | {"timestamp": "SECRET"})))
    assert code is ErrorCode.SCHEMA_VIOLATION
    clear = sent(judge, Purchase.model_construct(**NATIVE, email="ann@example.com"))
    assert clear["email"] == Hasher().hash("ann@example.com")


def test_of_many_events_all_that_are_invalid_are_named(judge: Judge) -> None:
    events = [NATIVE | ({"quantity": None} if number % 100 == 7 else {}) for number in range(1500)]
    with pytest.raises(InvalidEvent) as raised:
        judge.records(events)
    assert [one.index for one in raised.value.faults] == list(range(7, 1500, 100))
    assert raised.value.count == 15
    assert "event 7: SCHEMA_VIOLATION: quantity: " in str(raised.value)
    assert "(and 14 more)" in str(raised.value)


def frame(**columns: Any) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "id": [ID, ID],
            "customer": ["ann", "bob"],
            "country": pd.Categorical(["FR", "JP"]),
            "quantity": [1, 2],
            "total": [Decimal("1.50"), Decimal("2.50")],
            "voucher": ["v", None],
            "timestamp": pd.to_datetime(["2026-03-01T13:00+01:00"] * 2, utc=True),
        }
        | columns
    )


def rows(judge: Judge, given: pd.DataFrame, timezone: str | None = None) -> list[dict[str, Any]]:
    found = judge.records(documents_of(given, judge.documents.kinds, timezone))
    return [json.loads(record.value or b"") for record in found]


def test_a_missing_value_is_absent_or_null_as_the_contract_has_it(judge: Judge) -> None:
    given = frame(
        weight=[np.nan, 0.5],
        shipped=pd.to_datetime(["2026-03-01T12:00Z", None]),
        due=[None, date(2026, 4, 1)],
        email=pd.array([pd.NA, "bob@example.com"], dtype="string"),
    )
    first, second = rows(judge, given)
    assert first == {
        "id": str(ID), "customer": "ann", "country": "FR", "quantity": 1, "total": "1.50", "voucher": "v",
        "shipped": 1772366400000, "timestamp": "2026-03-01T12:00:00.000Z",
    }  # fmt: skip
    assert second == {
        "id": str(ID), "customer": "bob", "country": "JP", "quantity": 2, "total": "2.50",
        "voucher": None, "weight": 0.5, "due": "2026-04-01",
        "email": Hasher().hash("bob@example.com"), "timestamp": "2026-03-01T12:00:00.000Z",
    }  # fmt: skip


def test_whole_numbers_that_pandas_has_made_floats_are_whole_again(judge: Judge) -> None:
    assert [row["quantity"] for row in rows(judge, frame(quantity=[1.0, 2.0]))] == [1, 2]
    with pytest.raises(InvalidEvent) as raised:
        rows(judge, frame(quantity=[1.0, np.nan]))
    assert (raised.value.faults[0].index, raised.value.reasons) == (1, ("quantity: is required",))
    for broken in ([1.0, 2.5], [1.0, 2.0**60]):
        with pytest.raises(InvalidEvent, match=r"event \d: SCHEMA_VIOLATION: quantity: "):
            rows(judge, frame(quantity=broken))
    assert [row["weight"] for row in rows(judge, frame(weight=[1.0, 2.0]))] == [1.0, 2.0]


def test_times_without_a_zone_are_refused_or_taken_in_the_one_that_is_named(judge: Judge) -> None:
    given = frame(timestamp=pd.to_datetime(["2026-03-01T12:00", "2026-07-01T12:00"]))
    with pytest.raises(
        UsageError, match=r'column timestamp: its times have no zone: .*timezone="UTC"'
    ):
        rows(judge, given)
    assert [row["timestamp"][11:16] for row in rows(judge, given, "UTC")] == ["12:00", "12:00"]
    assert [row["timestamp"][11:16] for row in rows(judge, given, "Europe/Paris")] == [
        "11:00",
        "10:00",
    ]
    twice = frame(timestamp=pd.to_datetime(["2026-10-25T02:30"] * 2))
    with pytest.raises(UsageError, match="not every time exists"):
        rows(judge, twice, "Europe/Paris")


def test_columns_must_be_named_and_once() -> None:
    kinds = Documents(PURCHASES.decoder).kinds
    with pytest.raises(UsageError, match="not a text"):
        documents_of(pd.DataFrame({0: [1]}), kinds, None)
    with pytest.raises(UsageError, match="same name"):
        documents_of(pd.DataFrame([[1, 2]], columns=["a", "a"]), kinds, None)


def test_a_frame_without_rows_is_no_event(judge: Judge) -> None:
    assert rows(judge, frame().iloc[:0]) == []
    with pytest.raises(InvalidEvent):
        rows(judge, pd.DataFrame(index=[1]))


def test_a_document_that_cannot_be_written_is_a_rejection() -> None:
    found = Documents(PURCHASES.decoder).write({"customer": {"deep": object()}})
    assert isinstance(found, Rejection)
    assert found.code is ErrorCode.SCHEMA_VIOLATION
    loop: dict[str, Any] = {}
    loop["customer"] = loop
    assert isinstance(Documents(PURCHASES.decoder).write(loop), Rejection)
