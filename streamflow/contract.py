"""Decoding bytes to an event, or to the reason why they are not one.

Every record of every worker goes through `Decoder.decode`. For a valid record that is one call into
pydantic's Rust core and one scan for bytes that need a closer look. Everything slow, above all finding
out what is wrong, is in `explain`.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, date, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import (
    BaseModel,
    ConfigDict,
    GetCoreSchemaHandler,
    PlainSerializer,
    StringConstraints,
    TypeAdapter,
    ValidationError,
)
from pydantic_core import ErrorDetails, SchemaValidator, core_schema

from streamflow import addresses, privacy
from streamflow.core_schema import literals_in, with_zones
from streamflow.errors import ErrorCode
from streamflow.private_values import ADDRESS, PrivateValue, Verdicts
from streamflow.records import Rejection

# RFC 3339 section 5.6, with a zone. ASCII digits only: "\d" would take any script's.
RFC3339: Final = (
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?"
    r"([Zz]|[+-][0-9]{2}:[0-9]{2})$"
)
_RFC3339 = re.compile(RFC3339)
_RFC3339_BYTES = re.compile(RFC3339.encode())

# Python's datetime and PostgreSQL's timestamptz both hold these, in UTC, with a day to spare for
# the window that the event falls into.
EARLIEST: Final = datetime(1, 1, 2, tzinfo=UTC)
LATEST: Final = datetime(9999, 12, 30, tzinfo=UTC)

MAX_VALUE_BYTES: Final = 8 * 1024 * 1024  # of one record, uncompressed
_LARGE: Final = 262_144  # bytes
_MOST_VALUES: Final = 250_000
_MOST_FAULTS: Final = 1_000
_LONGEST_INT: Final = 40  # digits; longer ones are out of any contract's range
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_ESCAPE: Final = ord("\\")
_NUL: Final = b"\\u0000"
_JSON_TEXT: Final = re.compile(rb'"((?:[^"\\]++|\\.)*+)"', re.DOTALL)

# Texts of the parts of a time: looking them up is three times as fast as formatting.
MINUTES: Final = [f"{minute // 60:02d}:{minute % 60:02d}:" for minute in range(24 * 60)]
SECONDS: Final = [f"{second:02d}." for second in range(60)]


@lru_cache(maxsize=1024)
def _day_text(ordinal: int) -> str:
    return f"{date.fromordinal(ordinal).isoformat()}T"


def format_time(moment: datetime) -> str:
    """RFC 3339 in UTC with milliseconds and ``Z``: the form in which every time is written."""
    if moment.tzinfo is not PYDANTIC_UTC:
        moment = moment.astimezone(UTC)
    return "%s%s%s%03dZ" % (  # noqa: UP031 (on the path of every event, and faster)
        _day_text(moment.toordinal()),
        MINUTES[moment.hour * 60 + moment.minute],
        SECONDS[moment.second],
        moment.microsecond // 1000,
    )


class _Rfc3339:
    """Core schema of a time stamp: RFC 3339 text with a zone, to an aware ``datetime``."""

    @classmethod
    def __get_pydantic_core_schema__(
        cls, _source: object, _handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        # The text's form is checked before, so here text may become a time.
        moment = core_schema.datetime_schema(
            tz_constraint="aware", ge=EARLIEST, le=LATEST, strict=False
        )
        return core_schema.json_or_python_schema(
            json_schema=core_schema.chain_schema(
                [core_schema.str_schema(pattern=RFC3339, strict=True), moment]
            ),
            python_schema=moment,
        )


Timestamp = Annotated[
    datetime, _Rfc3339, PlainSerializer(format_time, return_type=str, when_used="json")
]
# The zone object that pydantic gives to a time written with "Z". Comparing identities is seven times
# faster than asking for the offset; if pydantic stops sharing it, only the speed is lost.
PYDANTIC_UTC: Final = TypeAdapter(Timestamp).validate_python("2000-01-01T00:00:00Z").tzinfo

HashedAddress = Annotated[str, StringConstraints(pattern=privacy.HASH_PATTERN)]


class NotNull:
    """Marks a field that may be absent, but not null: ``Annotated[str | None, NotNull] = None``."""

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        schema = handler(source)
        return schema["schema"] if schema["type"] == "nullable" else schema


class Event(BaseModel):
    """Base of all event contracts: strict types, no undeclared field, immutable."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    if TYPE_CHECKING:  # each contract declares these two, in its own order
        timestamp: Timestamp
        type: str

    def encode(self) -> bytes:
        """The event as JSON, UTF-8: what goes into the topic."""
        return self.__pydantic_serializer__.to_json(self, exclude_none=True)


class Decoder:
    """Decodes the records of one contract.

    Args:
        model: a pydantic model with ``type`` and ``timestamp``, or a discriminated union of them.
        private_fields: fields that may only hold hashes.
        max_bytes: the longest value that is parsed; a compressed record of 1 MiB can hold hundreds of
            megabytes.
        private_values: what an event may not hold in clear, besides addresses.
    """

    def __init__(
        self,
        model: Any,
        private_fields: Iterable[str] = (),
        max_bytes: int = MAX_VALUE_BYTES,
        private_values: Iterable[PrivateValue] = (),
    ) -> None:
        self.model = model
        self.max_bytes = max_bytes
        self._declared = tuple(private_values)
        self._may_hold = self._may_hold_any if self._declared else addresses.may_hold
        self.private_fields = frozenset(private_fields)
        adapter = TypeAdapter(model)
        schema, validator = adapter.core_schema, adapter.validator
        # A time without a zone would be another one on each machine.
        zoned = with_zones(schema)
        if zoned != schema:
            # A nested model's own validator would still take one.
            validator = SchemaValidator(zoned, _use_prebuilt=False)
        self._validate: Callable[[bytes], Event] = validator.validate_json
        self._literals = "\n".join(literals_in(schema))
        self.models = tuple(_models_in(model))  # of the union; one for a plain model
        self._fields = frozenset(name for member in self.models for name in member.model_fields)

    def decode(self, value: bytes | None) -> Event | Rejection:
        """The event, or why the bytes are not one. Never raises, whatever the bytes."""
        if value and len(value) > _LARGE:
            rejection = self._too_large(value)
            if rejection is not None:
                return rejection
        try:
            event = self._validate(value)  # type: ignore[arg-type]
        except (ValidationError, TypeError):
            return self.explain(value)
        # A closer look only at the few records that can hold an address. NUL can only be an escape.
        if self._may_hold(value):  # type: ignore[arg-type]
            return self._look_closer(value, event)  # type: ignore[arg-type]
        return event

    def _look_closer(self, value: bytes, event: Event) -> Event | Rejection:
        """Looks at the bytes, for they hold keys and values that no field shows; then at the texts, for the
        field's name and NUL, and for declared values that escapes hide."""
        found = self._private_in(value)
        hiding = _ESCAPE if self._declared else _NUL
        if not found and hiding not in value:
            return event
        kinds, verdicts = (ADDRESS, *self._declared) if found else self._declared, Verdicts()
        for name, part in event:
            for text in _texts_in(part):
                if what := self._found(text.encode("utf-8", "surrogatepass"), kinds, verdicts):
                    return _clear_text(name, what)
                if "\x00" in text:
                    return Rejection(ErrorCode.UNSTORABLE_VALUE, "ValueError", f"{name}: holds NUL")
        return _clear_text("a repeated field or key", found) if found else event

    def _may_hold_any(self, value: bytes) -> bool:
        return any(kind.may_hold(value) for kind in (ADDRESS, *self._declared))

    def _private_in(self, value: bytes) -> str | None:
        """What kind of private value a record holds in clear, if any. A number of the contract is none,
        and neither is a time."""
        verdicts = Verdicts()
        what = self._found(value, (ADDRESS,), verdicts)
        if what or not self._declared:
            return what
        texts = (text for text in _JSON_TEXT.findall(value) if not _RFC3339_BYTES.match(text))
        return self._found(b"\n".join(texts), self._declared, verdicts)

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

    def _too_large(self, value: bytes) -> Rejection | None:
        """Why a value is not parsed at all, if so. Explaining what is wrong keeps copies of the document
        as Python objects: 8 MB of ``[],`` took 2.7 GB and ten seconds."""
        size, values = len(value), sum(map(value.count, (b",", b"[", b"{")))
        if size <= self.max_bytes and values <= _MOST_VALUES:
            return None
        return Rejection(
            ErrorCode.TOO_LARGE,
            "ValueError",
            f"{size:,} bytes with {values:,} commas and brackets; at most {self.max_bytes:,} and "
            f"{_MOST_VALUES:,} are parsed",
        )

    def explain(self, value: bytes | None) -> Rejection:
        """The one cause why these bytes are not an event."""
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
            faults = (
                error.errors(include_url=False, include_context=False, include_input=False)
                if count <= _MOST_FAULTS
                else []
            )
        else:
            closer = self._look_closer(value, event)
            if isinstance(closer, Rejection):
                return closer
            return Rejection(ErrorCode.UNSTORABLE_VALUE, "ValueError", "holds NUL")
        kinds = {fault["type"] for fault in faults}
        if "json_invalid" in kinds:
            return Rejection(ErrorCode.INVALID_JSON, "ValidationError", "not JSON")
        if what := self._private_in(value):
            return _clear_text("", what)
        reason = "; ".join(map(self._describe, faults)) or f"{count:,} fields are wrong"
        code = (
            ErrorCode.UNKNOWN_TYPE if "union_tag_invalid" in kinds else ErrorCode.SCHEMA_VIOLATION
        )
        return Rejection(code, "ValidationError", reason[:1000])

    def _explain_document(self, value: bytes, document: dict[str, Any]) -> Rejection:
        for name in self.private_fields:
            if isinstance(document.get(name), str) and "@" in document[name]:
                return _clear_text(name, ADDRESS.what)
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
        return Rejection(ErrorCode.UNSTORABLE_VALUE, "ValueError", "holds NUL or a lone surrogate")

    def _explain_errors(self, value: bytes, error: ValidationError) -> Rejection:
        faults = error.errors(include_url=False, include_context=False, include_input=True)
        described = [(self._code_of(fault), self._describe(fault)) for fault in faults]
        # The first of these counts: an unknown type explains wrong fields, and a record of the wrong
        # shape is reported before a value that cannot be stored.
        for code in (
            ErrorCode.UNKNOWN_TYPE,
            ErrorCode.SCHEMA_VIOLATION,
            ErrorCode.UNSTORABLE_VALUE,
        ):
            reasons = [text for cause, text in described if cause is code]
            if reasons:
                what = code is ErrorCode.SCHEMA_VIOLATION and self._private_in(value)
                if what:
                    return _clear_text("", what)
                return Rejection(code, "ValidationError", "; ".join(reasons)[:1000])
        return _clear_text("", ADDRESS.what)

    def _code_of(self, fault: ErrorDetails) -> ErrorCode:
        kind, field = fault["type"], fault["loc"][-1] if fault["loc"] else ""
        if kind == "union_tag_invalid" or (kind == "literal_error" and field == "type"):
            known_kind = isinstance(fault["input"], str) or kind == "union_tag_invalid"
            return ErrorCode.UNKNOWN_TYPE if known_kind else ErrorCode.SCHEMA_VIOLATION
        if field == "timestamp" and _is_unstorable_time(kind, fault["input"]):
            return ErrorCode.UNSTORABLE_VALUE
        return ErrorCode.SCHEMA_VIOLATION

    def _describe(self, fault: ErrorDetails) -> str:
        """Names the field and the rule, never the input: a foreign field's name is input too."""
        known = [str(part) for part in fault["loc"] if part in self._fields]
        return f"{'.'.join(known) or 'undeclared field or record'}: {fault['type']}"


def _models_in(model: Any) -> Iterator[type[Event]]:
    if isinstance(model, type) and issubclass(model, Event):
        yield model
        return
    for argument in getattr(model, "__args__", ()) or ():
        yield from _models_in(argument)


def _texts_in(value: Any) -> Iterator[str]:
    """All texts of a field's value, at any depth: keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, BaseModel):
        for _, part in value:
            yield from _texts_in(part)
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from _texts_in(key)
            yield from _texts_in(part)
    elif isinstance(value, list | tuple | set | frozenset):
        for part in value:
            yield from _texts_in(part)


def _clear_text(field: str, what: str) -> Rejection:
    where = f"{field}: " if field else ""
    return Rejection(ErrorCode.CLEAR_TEXT_PII, "ValueError", f"{where}holds a clear-text {what}")


def _is_unstorable_time(kind: str, text: object) -> bool:
    if kind in ("greater_than_equal", "less_than_equal"):
        return True
    # Well-formed, but nothing that a calendar type holds: the year 0 and leap seconds.
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
        return _UNSTORABLE.sub("\ufffd", value)
    if isinstance(value, dict):
        return {_without_unstorable(key): _without_unstorable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_unstorable(item) for item in value]
    return value
