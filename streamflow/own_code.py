"""Contracts with code of the user's own, which may make anything of a field: what no worker can count or
store is the fault of that record alone (G14). Contracts without such code pay nothing for it."""

import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from pydantic import EncodedBytes, EncodedStr

from streamflow.addresses import may_hold
from streamflow.contract import EARLIEST, LATEST, PYDANTIC_UTC, Event
from streamflow.core_schema import parts_of
from streamflow.errors import ErrorCode
from streamflow.event_values import scalars_in
from streamflow.records import Rejection, processing_failed
from streamflow.unstorable import holds_nul

if TYPE_CHECKING:
    from streamflow.decoder import Decoder

# Whose functions return what they should.
_SOUND: Final = sys.stdlib_module_names | {"pydantic", "pydantic_core", "streamflow"}
_NO_EVENT: Final = "a validator of the contract returned something else than an event of it"
_NO_TIME: Final = (
    "a validator of the contract returned an event time without a zone, or beyond the calendar"
)
_NUL: Final = "what a serializer made of it holds NUL"
_PRIVATE: Final = "what a validator made of it holds a clear-text "
_DECODED: Final = "a decoded text holds a clear-text "
_WHAT: Final = "a validator or serializer of the contract"


def has_own_code(schema: Any) -> bool:
    """Whether validators, serializers or defaults of a contract are the user's own functions, or decode
    texts, as ``Base64Str`` does: the JSON of a record does not show what they make."""
    return any(_is_own(function) for part in parts_of(schema) for function in _functions(part))


def has_decoders(schema: Any) -> bool:
    """Whether pydantic decodes texts of a contract (``Base64Str``, ``val_json_bytes``), so that what the
    event holds is not what its bytes show."""
    return any(
        (part.get("config") or {}).get("val_json_bytes", "utf8") != "utf8"
        or any(
            isinstance(getattr(function, "__self__", None), EncodedBytes | EncodedStr)
            for function in _functions(part)
        )
        for part in parts_of(schema)
    )


def decoding_fault(decoder: "Decoder") -> Callable[[Event], Rejection | None]:
    """Says what private value the decoded texts of an event hold. Raises nothing."""

    def fault(event: Event) -> Rejection | None:
        for value in scalars_in(event):
            if isinstance(value, str | bytes):
                text = value if isinstance(value, bytes) else value.encode("utf-8", "replace")
                if (what := decoder.private_text(text)) is not None:
                    return Rejection(ErrorCode.CLEAR_TEXT_PII, "ValueError", _DECODED + what)
        return None

    return fault


def _functions(part: Mapping[str, Any]) -> Iterator[Any]:
    function = part.get("function")
    yield function["function"] if isinstance(function, dict) else function
    yield from (part.get(name) for name in ("default_factory", "missing"))
    if part.get("post_init"):
        yield getattr(part["cls"], "model_post_init", part["cls"])
    if part.get("custom_init"):
        yield part["cls"].__init__
    yield from (computed["property_name"] for computed in part.get("computed_fields") or ())


def _is_own(function: Any) -> bool:
    if function is None:
        return False
    while isinstance(function, partial):
        function = function.func
    if isinstance(getattr(function, "__self__", None), EncodedStr):
        return True
    module = getattr(function, "__module__", None) or ""
    return module.partition(".")[0] not in _SOUND


def fault_finder(
    decoder: "Decoder", event_time: str, kind_of: Callable[[Event], str]
) -> Callable[[Event], Rejection | None]:
    """Says why an event that a contract with code of the user's own has accepted is none. Raises nothing."""
    serializers = {model: model.__pydantic_serializer__ for model in decoder.models}
    time_of, but_time = attrgetter(event_time), {event_time}
    # Such a field's column holds the value itself, which bytes with NUL may be.
    columns = {
        model: {
            name
            for name, schema in decoder.fields_of(model).items()
            if decoder.definitions.is_scalar(schema)
        }
        for model in decoder.models
    }

    def fault(event: Event) -> Rejection | None:
        try:
            serializer = serializers.get(type(event))
            if serializer is None:
                return Rejection(ErrorCode.PROCESSING_FAILED, "TypeError", _NO_EVENT)
            moment = time_of(event)
            # What pydantic has made of "Z" is sound: comparing times is slow.
            if moment.tzinfo is not PYDANTIC_UTC and (
                moment.utcoffset() is None or not EARLIEST <= moment <= LATEST
            ):
                return Rejection(ErrorCode.PROCESSING_FAILED, "ValueError", _NO_TIME)
            kind_of(event).encode()
            value = serializer.to_json(event, exclude=but_time, warnings=False)
            if unstorable := decoder.unstorable(event):
                return unstorable
            if holds_nul(value) and holds_nul(
                serializer.to_json(event, exclude=columns[type(event)], warnings=False)
            ):
                return Rejection(ErrorCode.UNSTORABLE_VALUE, "ValueError", _NUL)
            if not (may_hold(value) or decoder.declares_private):
                return None
            what = decoder.private_in(value)
            if what is None:
                return None
            return Rejection(ErrorCode.CLEAR_TEXT_PII, "ValueError", _PRIVATE + what)
        except BaseException as error:  # noqa: BLE001 (of the user; fails only this record)
            return processing_failed(_WHAT, error)

    return fault
