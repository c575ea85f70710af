"""Numbers that a Decimal would not keep, or no column could hold.

The JSON parser reads a number with a fraction or an exponent as a double, before it becomes a Decimal: of
12345678901234567890.123 it keeps 12345678901234567000. Whole numbers are exact, and so are texts; but a text
of twelve characters, 1e999999999, is a number of a thousand million digits, and Python reads "1_0" and digits
of every script, as no other reader of the topic does.
"""

import json
import re
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError, SchemaValidator, core_schema

from streamflow.core_schema import has_type, mapped

# What such a number may look like: a double keeps 15 digits of any number in its range.
_LONG: Final = re.compile(rb"[0-9](?:[0-9.]{15}|\.?[eE][+-]?[0-9]{3})")
# A text with what Decimal takes besides a plain number: blanks and underscores, digits of any script (here
# by the first bytes of their characters), and escapes, which may be all of that.
_ODD: Final = re.compile(
    rb'"[-+.0-9eE]*+'
    rb"(?:[ \\_\xd9\xdb\xdf\xe0\xe1\xea\xf0]|\xc2[\x85\xa0]|\xe2[\x80\x81]|\xe3\x80\x80|\xef\xbc)"
    rb'[-+.0-9a-fA-FnrtuU \\_\x80-\xff]*+"'
)
_PLAIN: Final = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_MOST_PLACES: Final = 16_383  # PostgreSQL's numeric has so many digits behind the point
# Their messages are told as they are (`fault_words`).
_CHANGED: Final = PydanticCustomError(
    "decimal_digits", "has more digits than a JSON number keeps; send it as a string"
)
_BEYOND: Final = PydanticCustomError(
    "decimal_exponent", "has an exponent, or digits behind the point, beyond 16383"
)
_UNUSUAL: Final = PydanticCustomError(
    "decimal_form", "is no plain number; send digits 0 to 9 with a point, or an exponent"
)
_FAULTS: Final = (_CHANGED.type, _BEYOND.type, _UNUSUAL.type)


class ExactDecimals:
    """Looks for such numbers in the records of a contract; `schema` as the decoder has it."""

    def __init__(self, schema: Any) -> None:
        self._validator: SchemaValidator | None = None
        if has_type(schema, "decimal"):
            self._validator = SchemaValidator(mapped(schema, _guarded), _use_prebuilt=False)

    def may_hold(self, value: bytes) -> bool:
        """A quick answer, mostly no."""
        return self._validator is not None and (
            _LONG.search(value) is not None or _ODD.search(value) is not None
        )

    def faults(self, value: bytes) -> list[ErrorDetails]:
        """The fields of a valid record that would hold another number than it does, one that only Python
        reads, or one beyond any column."""
        if self._validator is None or not self.may_hold(value):
            return []
        try:
            self._validator.validate_json(value, context=_changed_in(value))
        except ValidationError as error:
            faults = error.errors(include_url=False, include_input=False)
            return [fault for fault in faults if fault["type"] in _FAULTS]
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


def _guarded(schema: dict[str, Any]) -> Any:
    """With a validator that sees the values of Decimals before they become such."""
    if schema["type"] != "decimal":
        return schema
    return core_schema.with_info_before_validator_function(_guard, schema)


def _guard(value: Any, info: core_schema.ValidationInfo[set[float]]) -> Any:
    if isinstance(value, float) and value in info.context:
        raise _CHANGED
    if isinstance(value, str):
        _judge(value)
    return value


def _judge(text: str) -> None:
    """The number is judged and not its text alone: what counts is what Python makes of it."""
    try:
        number = Decimal(text)
    except InvalidOperation:  # which pydantic says itself
        return
    if not number.is_finite():
        return
    if not _PLAIN.fullmatch(text):
        raise _UNUSUAL
    exponent = number.as_tuple().exponent
    if isinstance(exponent, int) and abs(exponent) > _MOST_PLACES:
        raise _BEYOND
