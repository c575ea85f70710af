"""What is wrong with a field, in words: the contract's part, and never a piece of the input."""

from collections.abc import Collection, Mapping
from typing import Any, Final

from pydantic_core import ErrorDetails

from streamflow.contract import RFC3339
from streamflow.pii_keys import HASH_PATTERN

_A_TIME: Final = "needs a zone, like 2026-01-31T12:00:00Z"
_REFUSED: Final = "is refused by a validator of the contract"
_WORDS: Final = {
    "missing": "is required",
    "extra_forbidden": "holds a field that is not declared",
    "timezone_aware": _A_TIME,
    "timezone_naive": "must have no zone, like 12:00:00",
    "union_tag_not_found": "is required",
    # Their messages are of a validator of the contract, and may hold what it was given.
    "value_error": _REFUSED,
    "assertion_error": _REFUSED,
}
_PATTERNS: Final = {
    RFC3339: f"should be a time in RFC 3339; it {_A_TIME}",
    HASH_PATTERN: "holds clear text, and a hash is declared",
}
# Whose messages by pydantic hold no input.
_FREE_OF_INPUT: Final = (
    "literal_error", "enum", "greater_than", "less_than", "multiple_of", "string_", "int_type",
    "int_from_float", "float_type", "bool_type", "list_type", "dict_type", "model_type", "none_required",
    "too_short", "too_long", "decimal_", "finite_number", "bytes_", "datetime_type", "date_type",
    "time_type", "time_delta_type", "uuid_type", "tuple_type", "set_type", "date_past", "date_future",
    "datetime_past", "datetime_future", "date_from_datetime_inexact", "url_type", "is_instance_of",
)  # fmt: skip
# Errors without a page in pydantic's documentation are of validators, which may quote what they were given;
# but these are of pydantic's own types, or ours (`exact_decimals`), and do not.
_WITHOUT_PAGE: Final = ("ip_", "base64_", "decimal_")


class FaultWords:
    """Describes pydantic's errors, with their `url`. `names` are the JSON names of all fields: that of a
    foreign one is input too."""

    def __init__(self, names: Collection[str]) -> None:
        self._names = names

    def of(self, fault: ErrorDetails) -> str:
        kind, context = fault["type"], fault.get("ctx", {})
        path = [str(part) for part in fault["loc"] if part in self._names]
        if kind.startswith("union_tag"):
            path.append(str(context.get("discriminator", "")).strip("'"))
        field = ".".join(filter(None, path)) or "the record"
        if "url" not in fault and not kind.startswith(_WITHOUT_PAGE):
            return f"{field}: {_REFUSED}"
        return f"{field}: {_words(kind, context, fault['msg'])}"


def _words(kind: str, context: Mapping[str, Any], message: str) -> str:
    if kind in _WORDS:
        return _WORDS[kind]
    if kind == "union_tag_invalid":
        return f"should be one of {context.get('expected_tags')}"
    if kind == "string_pattern_mismatch" and context.get("pattern") in _PATTERNS:
        return _PATTERNS[context["pattern"]]
    text = message if kind.startswith(_FREE_OF_INPUT) else message.partition(",")[0]
    if not kind.startswith(_FREE_OF_INPUT) and "'" in text + "`":
        text = text.split("'")[0].split("`")[0].strip()
    text = text.removeprefix("Input ").removeprefix("String ")
    return text[:1].lower() + text[1:]
