"""Decoding bytes to an event, or to the reason why they are not one.

Every record of every worker goes through `Decoder.decode`. For a valid record that is one call into
pydantic's Rust core and one scan for bytes that need a closer look. Everything slow, above all finding
out what is wrong, is in `explain`.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails, SchemaValidator, to_json

from streamflow import addresses, core_schema
from streamflow.checked_schema import checked
from streamflow.contract import RFC3339, Event, choices_in, is_event_model
from streamflow.core_schema import Definitions, UnknownFields
from streamflow.errors import ErrorCode
from streamflow.event_values import clear_values, scalars_in
from streamflow.exact_decimals import ExactDecimals
from streamflow.exact_keys import with_exact_keys
from streamflow.fast_decoder import Decoded, FastDecoder
from streamflow.fast_types import UntranslatableError
from streamflow.fault_words import FaultWords
from streamflow.field_names import json_names, names_of
from streamflow.pii_keys import HASH_PATTERN, is_hashed
from streamflow.private_fields import has_spare_names, keeps_names, not_of_texts, private_in
from streamflow.private_texts import PrivateTexts
from streamflow.private_values import ADDRESS, PrivateValue, Verdicts
from streamflow.records import Rejection, processing_failed
from streamflow.strict_choices import with_strict_choices
from streamflow.units import counted
from streamflow.unstorable import (
    UNSTORABLE,
    parts_of_event,
    unstorable_field,
    why_unstorable,
)

_RFC3339 = re.compile(RFC3339)
_RFC3339_BYTES = re.compile(RFC3339.encode())

MAX_VALUE_BYTES: Final = 8 * 1024 * 1024  # of one record, uncompressed
_LARGE: Final = 262_144  # bytes
_MOST_VALUES: Final = 250_000  # an object of Python takes far more than its text
_MOST_FAULTS: Final = 1_000
_LONGEST_REASON: Final = 1_000  # characters
_LONGEST_INT: Final = 40  # digits; longer ones are out of any contract's range
_ESCAPE: Final = ord("\\")
_NUL: Final = b"\\u0000"
# What a number may look like that is no finite double, in a field of any type.
_BEYOND_DOUBLE: Final = re.compile(rb"NaN|Infinity|[eE]\+?[0-9]{3}|[0-9]{300}")
_SPARE_NAME: Final = "a private field holds clear text under another of its names"
_KEPT_NAME: Final = "an undeclared field with the name of a private one holds a clear-text value"
_VALIDATOR: Final = "a validator of the contract"
_ADDRESS_ONLY: Final = (ADDRESS,)
_JSON_TEXT: Final = re.compile(rb'"((?:[^"\\]++|\\.)*+)"', re.DOTALL)


class Decoder:
    """Decodes the records of one contract.

    Args:
        model: a pydantic model, or a discriminated union of them.
        private_fields: names of fields that may only hold hashes, besides those declared `Hashed`.
        max_bytes: the longest value that is parsed; a compressed record of 1 MiB can hold hundreds of
            megabytes.
        private_values: what an event may not hold in clear, besides addresses.
        unknown_fields: what becomes of an event's fields that its model lacks.

    Attributes:
        models: of the union; one for a plain model.
        schema: the contract as pydantic's core schema, with what StreamFlow adds to it.
        definitions: that it refers to.
        private_fields: names of all private fields, at any depth, in Python and in JSON.
        private_not_of_texts: those of them that may hold what no producer hashes.
        fast: decodes ordinary events; None where `untranslatable` says why not.
        names: of all fields, at any depth, in Python and in JSON.
        declares_private: whether an event may hold more than addresses that is private.
        kind_field: the JSON name of the field that tells the kinds of events apart, if there is one.
    """

    def __init__(
        self,
        model: Any,
        private_fields: Iterable[str] = (),
        max_bytes: int = MAX_VALUE_BYTES,
        private_values: Iterable[PrivateValue] = (),
        unknown_fields: UnknownFields = "forbid",
    ) -> None:
        self.model = model
        self.max_bytes = max_bytes
        self.models = tuple(filter(is_event_model, choices_in(model)))
        self._declared = tuple(private_values)
        self.declares_private = bool(self._declared)
        declared = TypeAdapter(model).core_schema
        self.private_fields = private_in(declared, HASH_PATTERN, frozenset(private_fields))
        self.private_not_of_texts = not_of_texts(declared, self.private_fields, HASH_PATTERN)
        self.schema = checked(
            declared,
            events=self.models,
            private=self.private_fields,
            hash_pattern=HASH_PATTERN,
            unknown_fields=unknown_fields,
        )
        self.definitions = Definitions(self.schema)
        # A nested model's own validator would not know of what was added.
        validator = SchemaValidator(
            with_exact_keys(with_strict_choices(self.schema)), _use_prebuilt=False
        )
        self._validate: Callable[[bytes], Event] = validator.validate_json
        self._holds_any = core_schema.has_type(self.schema, "any")
        self._decimals = ExactDecimals(self.schema)
        self._has_spare_names = has_spare_names(self.schema, self.private_fields)
        self._keeps_names = bool(self.private_fields) and keeps_names(self.schema)
        self._private = PrivateTexts(self.private_fields)
        self._is_plain = not (
            self._has_spare_names or self._keeps_names or self._declared or self._holds_any
        )
        has_decimals = core_schema.has_type(self.schema, "decimal")
        self._may_hold = (
            addresses.may_hold if self._is_plain and not has_decimals else self._needs_look
        )
        self.untranslatable: str | None = None
        self.fast: FastDecoder | None = None
        try:
            self.fast = FastDecoder(self.schema, self.definitions)
        except UntranslatableError as error:
            self.untranslatable = str(error)
        self._literal_texts = frozenset(core_schema.literals_in(self.schema))
        self._literals = "\n".join(self._literal_texts)
        fields = list(core_schema.fields_in(self.schema))
        self.names = frozenset().union(*(names_of(*field) for field in fields))
        self._words = FaultWords(self.schema)
        self._requires_null = core_schema.requires_null(self.schema)
        self.kind_field = core_schema.discriminator_of(self.schema) or (
            "type" if any("type" in json_names(*field) for field in fields) else None
        )

    def with_model(self, model: type[Event]) -> "Decoder":
        """A decoder of another model that is as strict."""
        return Decoder(model, self.private_fields, self.max_bytes, self._declared)

    def decode(self, value: bytes | None) -> Event | Rejection:
        """The event, or why the bytes are not one. Never raises, whatever the bytes."""
        if value and len(value) > _LARGE:
            rejection = too_large(value, self.max_bytes)
            if rejection is not None:
                return rejection
        if value is None:
            return self.explain(value)
        try:
            event = self._validate(value)
            # A closer look only at the few records that can hold an address. NUL can only be an escape.
            return self._look_closer(value, event) if self._may_hold(value) else event
        except ValidationError:
            return self.explain(value)
        except BaseException as error:  # noqa: BLE001 (a user's validator; fails only this record)
            return processing_failed(_VALIDATOR, error)

    def decode_all(
        self, values: Sequence[bytes | None], event_time: str, *, with_times: bool = False
    ) -> Decoded:
        """As `decode`, of many values at once, with the event times; of ordinary events only the fields,
        where the contract can be translated (`FastDecoder.read`)."""
        fast = self.fast
        if fast is None or _holds_large(values):
            return Decoded.of([*map(self.decode, values)], event_time)
        must_look: Callable[[bytes], bool] | None = self._needs_look
        if self._is_plain:
            must_look = addresses.may_hold if _may_hold_addresses(values) else None
        return fast.read(values, event_time, self.decode, must_look, with_times=with_times)

    def events(self, values: Sequence[bytes | None]) -> list[Event | Rejection]:
        """As `decode`, of many values at once, where no code of the user's own judges them."""
        looks_only_for_addresses = self._may_hold is addresses.may_hold
        if not looks_only_for_addresses or _holds_large(values) or _may_hold_addresses(values):
            return [*map(self.decode, values)]
        events: list[Event | Rejection] = []
        add, validate = events.append, self._validate
        for value in values:
            try:
                add(validate(value))  # type: ignore[arg-type]  # None is refused as well
            except Exception:  # noqa: BLE001 (whatever it is, `decode` knows)
                add(self.decode(value))
        return events

    def encode(self, event: Event) -> bytes:
        """The event as JSON, UTF-8: what goes into the topic. A field that is None is left out, unless it
        must be there."""
        serializer = event.__pydantic_serializer__
        if not (self._requires_null or event.__pydantic_extra__):
            return serializer.to_json(event, by_alias=True, exclude_none=True, warnings=False)
        absent = {
            name
            for name, field in type(event).model_fields.items()
            if not field.is_required() and getattr(event, name) is None
        }
        document = serializer.to_python(
            event, mode="json", by_alias=True, exclude=absent, warnings=False
        )
        return to_json({**(event.__pydantic_extra__ or {}), **document})

    def fields_of(self, model: type[Event]) -> Mapping[str, Any]:
        """The core schemas of a model's fields, by their names in Python."""
        return self.definitions.fields(
            next(
                part
                for part in core_schema.parts_of(self.schema)
                if part["type"] == "model" and part["cls"] is model
            )
        )

    def _needs_look(self, value: bytes) -> bool:
        return (
            (self._holds_any and _BEYOND_DOUBLE.search(value) is not None)
            or self._has_odd_decimals(value)
            or any(kind.may_hold(value) for kind in (ADDRESS, *self._declared))
            or self._has_clear_name(value)
        )

    def _has_odd_decimals(self, value: bytes) -> bool:
        """Whether a Decimal may not be the number that the value has. Many numbers beside it may look so:
        what the fast path accepts has none."""
        return self._decimals.may_hold(value) and not (self.fast and self.fast.accepts(value))

    def _has_clear_name(self, value: bytes) -> bool:
        """Whether what a document has under a private field's name, declared there or not, is no hash."""
        return (self._keeps_names and self._holds_clear(value, whole=True)) or (
            self._has_spare_names and self._holds_clear(value, whole=False)
        )

    def _holds_clear(self, value: bytes, *, whole: bool) -> bool:
        return not all(
            is_hashed(value[begin:end].decode("ascii", "replace"))
            for begin, end in self._private.spans(value, whole=whole)
        )

    def _clear_name(self, value: bytes, event: Event) -> str | None:
        """Why what an event keeps of the document is not all hashed that should be."""
        if self._has_spare_names and self._holds_clear(value, whole=False):
            return _SPARE_NAME
        kept = clear_values(event, self.private_fields, declared=False)
        if self._keeps_names and any(each not in self._literal_texts for each in kept):
            return _KEPT_NAME
        return None

    def _look_closer(self, value: bytes, event: Event) -> Event | Rejection:
        """Looks at the bytes, for they hold keys and values that no field shows; then at the texts, for the
        field's name and NUL, and for declared values that escapes hide."""
        found = self.private_in(value)
        if not found and (changed := self._decimals.faults(value)):
            return _rejected(ErrorCode.SCHEMA_VIOLATION, self._words.faults(changed))
        if not found and (why := self._clear_name(value, event)):
            return Rejection(ErrorCode.CLEAR_TEXT_PII, "ValueError", why)
        hiding = _ESCAPE if self._declared else _NUL
        if not found and hiding not in value and not self._holds_any:
            return event
        kinds, verdicts = (ADDRESS, *self._declared) if found else self._declared, Verdicts()
        for name, part in parts_of_event(event):
            for scalar in scalars_in(part):
                text = scalar.encode("utf-8", "surrogatepass") if isinstance(scalar, str) else b""
                if what := self._found(text, kinds, verdicts):
                    return _clear_text(self._words.field(type(event), name), what)
                if why := why_unstorable(scalar):
                    return self._unstorable(event, name, why)
        return _clear_text("an undeclared or repeated field, or a key", found) if found else event

    def unstorable(self, event: Event) -> Rejection | None:
        """Why PostgreSQL cannot hold what validators have made of an event, if so."""
        found = unstorable_field(event)
        return found and self._unstorable(event, *found)

    def _unstorable(self, event: Event, name: str, why: str) -> Rejection:
        field = self._words.field(type(event), name)
        return Rejection(ErrorCode.UNSTORABLE_VALUE, "ValueError", f"{field}: {why}")

    def private_in(self, value: bytes) -> str | None:
        """What kind of private value a record holds in clear, if any. A number of the contract is none,
        and neither is a time."""
        verdicts = Verdicts()
        what = self._found(value, (ADDRESS,), verdicts)
        if what or not self._declared:
            return what
        texts = (text for text in _JSON_TEXT.findall(value) if not _RFC3339_BYTES.match(text))
        return self._found(b"\n".join(texts), self._declared, verdicts)

    def private_text(self, text: bytes) -> str | None:
        """What kind of private value a text that the user's code has made holds in clear, if any."""
        kinds = (ADDRESS, *self._declared) if self._declared else _ADDRESS_ONLY
        return self._found(text, kinds, Verdicts())

    def _found(self, text: bytes, kinds: Iterable[PrivateValue], verdicts: Verdicts) -> str | None:
        """The first kind of which there is a value that the contract does not name itself (``Literal``,
        enums)."""
        for kind in kinds:
            for begin, end in kind.find(text, verdicts) if kind.may_hold(text) else ():
                raw = text[begin:end]
                if not any(
                    form in self._literals for form in (kind.plain(raw), addresses.unescaped(raw))
                ):
                    return kind.what
        return None

    def explain(self, value: bytes | None) -> Rejection:
        """The one cause why these bytes are not an event."""
        try:
            return self._explain(value)
        except BaseException as error:  # noqa: BLE001 (as above)
            return processing_failed(_VALIDATOR, error)

    def _explain(self, value: bytes | None) -> Rejection:
        if not value:
            return Rejection(ErrorCode.EMPTY_VALUE, "ValueError", "the record has no value")
        try:
            text = value.decode()
        except UnicodeDecodeError as error:
            reason = f"not UTF-8 from byte {error.start} on"
            return Rejection(ErrorCode.INVALID_UTF8, "UnicodeDecodeError", reason)
        if len(value) > _LARGE:
            return self._explain_in_short(value)
        try:
            document = json.loads(text, parse_constant=_refuse_constant, parse_int=_bounded_int)
        except RecursionError:
            return Rejection(ErrorCode.INVALID_JSON, "RecursionError", "nested too deeply")
        except ValueError as error:
            position = (
                f" at character {error.pos}" if isinstance(error, json.JSONDecodeError) else ""
            )
            return Rejection(ErrorCode.INVALID_JSON, "JSONDecodeError", f"not JSON{position}")
        if not isinstance(document, dict):
            return Rejection(ErrorCode.SCHEMA_VIOLATION, "ValidationError", "not a JSON object")
        return self._explain_document(value, document)

    def _explain_in_short(self, value: bytes) -> Rejection:
        """The cause for a value whose document would take seconds and hundreds of megabytes to walk;
        other faults are not looked for."""
        try:
            event = self._validate(value)
        except ValidationError as error:
            count = error.error_count()
            faults = error.errors(include_input=False) if count <= _MOST_FAULTS else []
        else:
            closer = self._look_closer(value, event)
            if isinstance(closer, Rejection):
                return closer
            return Rejection(ErrorCode.UNSTORABLE_VALUE, "ValueError", "holds NUL")
        kinds = {fault["type"] for fault in faults}
        if "json_invalid" in kinds:
            return Rejection(ErrorCode.INVALID_JSON, "ValidationError", "not JSON")
        if what := self.private_in(value):
            return _clear_text("", what)
        wrong = self._words.faults(faults) or (counted(count, "field", "is wrong", "are wrong"),)
        code = (
            ErrorCode.UNKNOWN_TYPE if "union_tag_invalid" in kinds else ErrorCode.SCHEMA_VIOLATION
        )
        return _rejected(code, wrong)

    def _explain_document(self, value: bytes, document: dict[str, Any]) -> Rejection:
        # NUL and lone surrogates stop the parser before it has seen the rest: parse the rest
        # without them, so that other faults are named first.
        try:
            cleaned = json.dumps(_without_unstorable(document)).encode()
            event = self._validate(cleaned)
        except ValidationError as error:
            return self._explain_errors(value, error)
        except RecursionError:
            return Rejection(ErrorCode.SCHEMA_VIOLATION, "RecursionError", "nested too deeply")
        closer = self._look_closer(value, event)
        if isinstance(closer, Rejection):
            return closer
        try:
            self._validate(value)
        except ValidationError as error:
            # Of the parser, or of a number that was shortened above.
            if error.errors(include_url=False, include_input=False)[0]["type"] != "json_invalid":
                return self._explain_errors(value, error)
        return Rejection(ErrorCode.UNSTORABLE_VALUE, "ValueError", "holds NUL or a lone surrogate")

    def _explain_errors(self, value: bytes, error: ValidationError) -> Rejection:
        faults = error.errors()
        # The first of these counts: an unknown type explains wrong fields, and a record of the wrong
        # shape is reported before a value that cannot be stored.
        for code in (
            ErrorCode.UNKNOWN_TYPE,
            ErrorCode.CLEAR_TEXT_PII,
            ErrorCode.SCHEMA_VIOLATION,
            ErrorCode.UNSTORABLE_VALUE,
        ):
            of_code = [fault for fault in faults if self._code_of(fault) is code]
            if of_code:
                if code is ErrorCode.SCHEMA_VIOLATION and (what := self.private_in(value)):
                    return _clear_text("", what)
                return _rejected(code, self._words.faults(of_code))
        return _clear_text("", ADDRESS.what)

    def _code_of(self, fault: ErrorDetails) -> ErrorCode:
        kind, context, given = fault["type"], fault.get("ctx", {}), fault["input"]
        if kind == "union_tag_invalid":
            return ErrorCode.UNKNOWN_TYPE
        if kind in ("literal_error", "enum") and fault["loc"][-1:] == (self.kind_field,):
            known = isinstance(given, str)
            return ErrorCode.UNKNOWN_TYPE if known else ErrorCode.SCHEMA_VIOLATION
        if kind == "string_pattern_mismatch" and context.get("pattern") == HASH_PATTERN:
            return ErrorCode.CLEAR_TEXT_PII
        if core_schema.is_own_bound(context) or (
            kind.startswith("datetime") and _is_no_datetime(given)
        ):
            return ErrorCode.UNSTORABLE_VALUE
        return ErrorCode.SCHEMA_VIOLATION


def _holds_large(values: Iterable[bytes | None]) -> bool:
    return max(map(len, filter(None, values)), default=0) > _LARGE


def _may_hold_addresses(values: Iterable[bytes | None]) -> bool:
    """In nearly every batch there is not one sign of an address: to look for it in all values together takes
    a seventh of the time."""
    return addresses.may_hold(b"\n".join(filter(None, values)))


def too_large(value: bytes, most: int = MAX_VALUE_BYTES) -> Rejection | None:
    """Why a value is not parsed at all, if so. Explaining what is wrong keeps copies of the document
    as Python objects: 8 MB of ``[],`` took 2.7 GB and ten seconds."""
    size, values = len(value), sum(map(value.count, (b",", b"[", b"{")))
    if size <= most and values <= _MOST_VALUES:
        return None
    return Rejection(
        ErrorCode.TOO_LARGE,
        "ValueError",
        f"{size:,} bytes with {values:,} commas and brackets; at most {most:,} and "
        f"{_MOST_VALUES:,} are parsed",
    )


def _rejected(code: ErrorCode, faults: tuple[str, ...]) -> Rejection:
    return Rejection(code, "ValidationError", "; ".join(faults)[:_LONGEST_REASON], faults)


def _clear_text(field: str, what: str) -> Rejection:
    where = f"{field}: " if field else ""
    return Rejection(ErrorCode.CLEAR_TEXT_PII, "ValueError", f"{where}holds a clear-text {what}")


def _is_no_datetime(text: object) -> bool:
    """Whether a time is well-formed, but nothing that a calendar type holds: the year 0 and leap seconds."""
    return (
        isinstance(text, str)
        and bool(_RFC3339.match(text))
        and (text.startswith("0000-") or text[17:19] == "60")
    )


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _bounded_int(digits: str) -> int:
    return int(digits[:_LONGEST_INT])


def _without_unstorable(value: Any) -> Any:
    if isinstance(value, str):
        return UNSTORABLE.sub("\ufffd", value)
    if isinstance(value, dict):
        return {_without_unstorable(key): _without_unstorable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_unstorable(item) for item in value]
    return value
