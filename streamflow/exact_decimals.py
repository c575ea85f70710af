"""Numbers that a Decimal would not keep, or no column could hold.

The JSON parser reads a number with a fraction or an exponent as a double, before it becomes a Decimal: of
12345678901234567890.123 it keeps 12345678901234567000. Whole numbers are exact, and so are texts; but a text
of twelve characters, 1e999999999, is a number of a thousand million digits.
"""

import json
import re
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError, SchemaValidator, core_schema

from streamflow.core_schema import has_type, with_validators

# What such a number may look like: a double keeps 15 digits of any number in its range, and an "e" may be
# escaped.
_SUSPECT: Final = re.compile(rb"[0-9][0-9.]{15}|[eE][+-]?[0-9]{3}|\\u00[46]5")
_EXPONENT: Final = re.compile(r"[eE][+-]?0*([0-9]{1,6})")
_LARGEST_EXPONENT: Final = (
    10_000  # PostgreSQL's numeric has 131,072 digits before the point, and 16,383 behind
)
# Their messages are told as they are (`fault_words`).
_CHANGED: Final = PydanticCustomError(
    "decimal_digits", "has more digits than a JSON number keeps; send it as a string"
)
_BEYOND: Final = PydanticCustomError("decimal_exponent", "has an exponent beyond 10000")


class ExactDecimals:
    """Looks for such numbers in the records of a contract; `schema` as the decoder has it."""

    def __init__(self, schema: Any) -> None:
        self._validator: SchemaValidator | None = None
        if has_type(schema, "decimal"):
            guarded = with_validators(schema, "decimal", _guard)
            self._validator = SchemaValidator(guarded, _use_prebuilt=False)

    def may_hold(self, value: bytes) -> bool:
        """A quick answer, mostly no."""
        return self._validator is not None and _SUSPECT.search(value) is not None

    def faults(self, value: bytes) -> list[ErrorDetails]:
        """The fields of a valid record that would hold another number than it does, or one beyond any
        column."""
        if self._validator is None or not self.may_hold(value):
            return []
        try:
            self._validator.validate_json(value, context=_changed_in(value))
        except ValidationError as error:
            faults = error.errors(include_url=False, include_input=False)
            return [fault for fault in faults if fault["type"] in (_CHANGED.type, _BEYOND.type)]
        return []


def _changed_in(value: bytes) -> set[float]:
    """What doubles make of the numbers that they do not keep."""
    changed: set[float] = set()

    def read(text: str) -> float:
        number = float(text)
        try:
            if Decimal(repr(number)) != Decimal(text):
                changed.add(number)
        except InvalidOperation:  # an exponent beyond any Decimal
            changed.add(number)
        return number

    json.loads(value, parse_float=read, parse_int=lambda _: 0)
    return changed


def _guard(value: Any, info: core_schema.ValidationInfo[set[float]]) -> Any:
    if isinstance(value, float) and value in info.context:
        raise _CHANGED
    if isinstance(value, str):
        exponent = _EXPONENT.search(value)
        if exponent is not None and int(exponent[1]) > _LARGEST_EXPONENT:
            raise _BEYOND
    return value
