"""Times and dates are texts of RFC 3339, at any depth: digits are none, whatever pydantic makes of them."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Any

import pytest
from pydantic import AwareDatetime, BaseModel, BeforeValidator, Field, create_model

from streamflow.contract import EpochMillis, Event, Timestamp
from streamflow.decoder import Decoder
from streamflow.errors import ErrorCode
from streamflow.records import Rejection


class Nested(BaseModel):
    """Not strict: pydantic converts what it can."""

    at: datetime


class NestedDay(BaseModel):
    at: date


@dataclass
class Data:
    at: datetime


def parsed(text: Any) -> Any:
    return datetime.fromisoformat(text) if isinstance(text, str) else text


MOMENT = '"2026-03-01T12:00:00.5+02:00"'
TIMES = [
    (datetime, "%s"), (AwareDatetime, "%s"), (datetime | None, "%s"), (Timestamp, "%s"),
    (Annotated[datetime, Field(gt=datetime(1960, 1, 1, tzinfo=UTC))], "%s"),
    (list[datetime], "[%s]"), (dict[str, datetime], '{"a": %s}'), (Nested, '{"at": %s}'),
    (list[Nested], '[{"at": %s}]'), (Data, '{"at": %s}'), (datetime | int, "%s"),
]  # fmt: skip
DATES = [(date, "%s"), (list[date], "[%s]"), (NestedDay, '{"at": %s}'), (date | None, "%s")]


def read(kind: Any, text: str) -> Event | Rejection:
    model = create_model("Timed", __base__=Event, x=(kind, ...))
    return Decoder(model).decode(f'{{"x": {text}}}'.encode())


@pytest.mark.parametrize(("kind", "form"), TIMES)
def test_a_time_is_rfc_3339(kind: Any, form: str) -> None:
    assert isinstance(read(kind, form % MOMENT), Event)
    wrong = ['"5"', '"-7"', '"1577836800"', '"20200101"', '"2026-03-01 12:00Z"', '"2026-03-01"']
    for text in [*wrong, *([] if kind == datetime | int else ["5", "5.5"])]:
        found = read(kind, form % text)
        assert isinstance(found, Rejection), text
        assert found.code is ErrorCode.SCHEMA_VIOLATION


@pytest.mark.parametrize(("kind", "form"), DATES)
def test_a_date_is_a_year_a_month_and_a_day(kind: Any, form: str) -> None:
    assert isinstance(read(kind, form % '"2026-03-01"'), Event)
    for text in ('"1577836800"', '"5"', "1577836800", '"2026-03-01T00:00:00Z"', '"20260301"'):
        assert isinstance(read(kind, form % text), Rejection), text
    found = read(date, '"1577836800"')
    assert isinstance(found, Rejection)
    assert found.message == "x: should be a date, like 2026-01-31"


@pytest.mark.parametrize("kind", [time, timedelta])
def test_digits_are_no_time_of_day_and_no_duration(kind: Any) -> None:
    for text in ('"7"', "7"):
        assert isinstance(read(kind, text), Rejection)


def test_what_a_validator_makes_of_a_text_is_a_time() -> None:
    made = Annotated[datetime, BeforeValidator(parsed)]
    for kind, text in ((made, '"20260301T120000Z"'), (EpochMillis, "5")):
        assert isinstance(read(kind, text), Event)
