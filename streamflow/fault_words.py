"""What is wrong with a field, in words: the contract's part, and never a piece of the input."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from streamflow import exact_keys
from streamflow.contract import RFC3339
from streamflow.core_schema import fields_in
from streamflow.fault_paths import OF_KEY, FaultPaths, joined
from streamflow.field_names import json_names, paths_of
from streamflow.pii_keys import HASH_PATTERN
from streamflow.time_texts import DATE

_RECORD: Final = "the record"
_SHOULD_BE: Final = "should be "
_A_TIME: Final = "needs a zone, like 2026-01-31T12:00:00Z"
_REFUSED: Final = "is refused by a validator of the contract"
_UNDECLARED: Final = "holds a field that is not declared"
_FOREIGN: Final = ("extra_forbidden", "unexpected_keyword_argument")
_WORDS: Final = {
    "missing": "is required",
    "extra_forbidden": _UNDECLARED,
    "dataclass_type": "should be an object",
    "is_instance_of": "is of another type than the declared one",
    "decimal_type": "should be a number, or a text of one",
    "json_type": "should be a text that holds JSON",
    "json_invalid": "should be a text that holds JSON",
    "unexpected_keyword_argument": _UNDECLARED,
    "timezone_aware": _A_TIME,
    "timezone_naive": "must have no zone, like 12:00:00",
    "union_tag_not_found": "is required",
    # Their messages are of a validator of the contract, and may hold what it was given.
    "value_error": _REFUSED,
    "assertion_error": _REFUSED,
}
_PATTERNS: Final = {
    RFC3339: f"should be a time in RFC 3339; it {_A_TIME}",
    DATE: "should be a date, like 2026-01-31",
    HASH_PATTERN: "holds clear text, and a hash is declared",
    **exact_keys.WORDS,
}
# Bounds of times: what pydantic calls them, and how they are told.
_BOUNDS: Final = {
    "greater_than": ("gt", "must be after"),
    "greater_than_equal": ("ge", "must not be before"),
    "less_than": ("lt", "must be before"),
    "less_than_equal": ("le", "must not be after"),
}
_TIME: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(T[^ ]+)?|[0-9]{2}:[0-9]{2}:[^ ]+")
# Whose messages by pydantic hold no input.
_FREE_OF_INPUT: Final = (
    "literal_error", "enum", "greater_than", "less_than", "multiple_of", "string_", "int_type",
    "int_from_float", "float_type", "bool_type", "list_type", "dict_type", "model_type", "none_required",
    "too_short", "too_long", "decimal_", "finite_number", "bytes_", "datetime_type", "date_type",
    "time_type", "time_delta_type", "uuid_type", "tuple_type", "set_type", "date_past", "date_future",
    "datetime_past", "datetime_future", "date_from_datetime_inexact", "url_type", "epoch_",
)  # fmt: skip
# Errors without a page in pydantic's documentation are of validators, which may quote what they were given;
# but these are of pydantic's own types, or ours (`exact_decimals`, `contract`), and do not.
_WITHOUT_PAGE: Final = ("ip_", "base64_", "decimal_", "epoch_")


class FaultWords:
    """Describes pydantic's errors, with their `url`, of one contract.

    Args:
        schema: the contract as pydantic's core schema.
    """

    def __init__(self, schema: Any) -> None:
        self._paths = FaultPaths(schema)
        self._names = frozenset().union(*(json_names(*field) for field in fields_in(schema)))

    def faults(self, faults: Iterable[ErrorDetails]) -> tuple[str, ...]:
        """What is wrong, of each place in the document: of a union, what each branch wants."""
        words: dict[str, dict[str, None]] = {}
        for fault in faults:
            path, said = self._of(fault)
            words.setdefault(path or _RECORD, {})[said] = None
        return tuple(f"{path}: {_either(said)}" for path, said in words.items())

    def field(self, model: type[BaseModel], name: str) -> str:
        """The JSON name of a model's own field; that of another is input."""
        field = model.model_fields.get(name)
        if field is None:
            return _RECORD
        return joined("", paths_of(name, field)[0])

    def _of(self, fault: ErrorDetails) -> tuple[str, str]:
        kind, context, location = fault["type"], fault.get("ctx", {}), fault["loc"]
        if kind in _FOREIGN:
            location = location[:-1]  # its name is input
        path = self._paths.of(location)
        if "url" not in fault and not kind.startswith(_WITHOUT_PAGE):
            return path, _REFUSED
        if kind.startswith("union_tag"):
            names = self._discriminators(context)
            if not names:
                return path, "is none of the declared kinds"
            path = ".".join(filter(None, (path, *names)))
        words = _words(kind, context, fault["msg"])
        return path, f"a key {words}" if location[-1:] == (OF_KEY,) else words

    def _discriminators(self, context: Mapping[str, Any]) -> list[str]:
        """The JSON name of the field that tells the kinds apart; none for a function of the user's own."""
        quoted = re.findall(r"'([^']*)'", str(context.get("discriminator", "")))
        return [name for name in quoted if name in self._names][-1:]


def _either(words: Iterable[str]) -> str:
    first, *others = words
    if first.startswith(_SHOULD_BE):
        others = [other.removeprefix(_SHOULD_BE) for other in others]
    return " or ".join((first, *others))


def _words(kind: str, context: Mapping[str, Any], message: str) -> str:
    if kind in _WORDS:
        return _WORDS[kind]
    if kind == "union_tag_invalid":
        return f"should be one of {context.get('expected_tags')}"
    if kind == "string_pattern_mismatch" and context.get("pattern") in _PATTERNS:
        return _PATTERNS[context["pattern"]]
    if kind in (
        "too_short",
        "too_long",
    ):  # "List should have at most 2 items after validation, not 3"
        message = message.partition(" ")[2].replace(" after validation", "")
    if kind in _BOUNDS:
        name, words = _BOUNDS[kind]
        if _TIME.fullmatch(bound := str(context.get(name, ""))):
            return f"{words} {bound}"
    text = message if kind.startswith(_FREE_OF_INPUT) else message.partition(",")[0]
    if not kind.startswith(_FREE_OF_INPUT) and "'" in text + "`":
        text = text.split("'")[0].split("`")[0].strip()
    if kind.startswith("decimal_max_") or kind == "decimal_whole_digits":
        text = text.replace("Decimal input should have no more than", "has more than")
    text = text.removeprefix("Input ").removeprefix("String ")
    return text[:1].lower() + text[1:]
