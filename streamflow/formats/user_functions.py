"""Decode functions of users: what they return is checked, and the record is afterwards as it was."""

import ast
import sys
from collections.abc import Callable, Iterator
from inspect import getsource
from types import ModuleType
from typing import Any, Final, cast

from streamflow.errors import ErrorCode
from streamflow.formats.documents import Decode, Tombstone
from streamflow.records import Record, Rejection, headers_of
from streamflow.user_code import nearest, place

_CODES: Final = ", ".join(ErrorCode)
_UNKNOWN_CODE: Final = (
    f"decode returned a Rejection whose code is none of ErrorCode: use one of {_CODES}"
)
_NO_TEXTS: Final = "decode returned a Rejection whose exception and message are not both texts"
_NO_TOMBSTONE: Final = "decode returned a Tombstone whose key is neither bytes nor None"
_QUOTES: Final = "decode returned a Rejection whose message holds a clear-text"


def is_format(decode: Decode) -> bool:
    """Whether it is one of ours, which are sound."""
    return type(decode).__module__.startswith("streamflow.formats.")


def guarded(decode: Decode, private_text: Callable[[bytes], str | None]) -> Decode:
    """The function with the guards that a user's own needs. A dead letter must hold the record that was
    consumed, so what the function has set in it is put back. `private_text` says what private values a
    text holds."""

    def decode_guarded(record: Record) -> Any:
        topic, key, value = record.topic(), record.key(), record.value()
        headers = [*headers_of(record)]
        try:
            found = decode(record)
        finally:
            same = record.key() is key and record.value() is value and record.topic() is topic
            if not same or headers_of(record) != headers:
                # Only a client's record has setters.
                message = cast("Any", record)
                message.set_topic(topic)
                message.set_key(key)
                message.set_value(value)
                message.set_headers(headers)
        if isinstance(found, Rejection):
            return _sound(found, private_text)
        if isinstance(found, Tombstone):
            deleted: Any = found.key
            return found if isinstance(deleted, bytes | None) else _failed(_NO_TOMBSTONE)
        return found

    return decode_guarded


def unknown_codes(decode: Decode) -> list[str]:
    """The codes of Rejections in the module of a user's function that are none of `ErrorCode`, in a sentence
    each: as far as they are written out there."""
    module = sys.modules.get(getattr(decode, "__module__", None) or type(decode).__module__)
    if module is None:
        return []
    try:
        tree = ast.parse(getsource(module))
    except (OSError, TypeError, SyntaxError):
        return []
    return [
        f"{place(module.__file__ or module.__name__, call.lineno)}: {code} is no code of a Rejection"
        f"{nearest(code, [*ErrorCode])}: use one of {_CODES}"
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and _called(call, module) is Rejection
        for code in _code_of(call)
        if code not in ErrorCode.__members__
    ]


def _called(call: ast.Call, module: ModuleType) -> object:
    if isinstance(call.func, ast.Name):
        return vars(module).get(call.func.id)
    return (
        Rejection
        if isinstance(call.func, ast.Attribute) and call.func.attr == "Rejection"
        else None
    )


def _code_of(call: ast.Call) -> Iterator[str]:
    given = [*call.args[:1], *(word.value for word in call.keywords if word.arg == "code")]
    for code in given:
        match code:
            case ast.Constant(str(text)):
                yield text
            case ast.Attribute(ast.Name("ErrorCode") | ast.Attribute(attr="ErrorCode"), name):
                yield name


def _sound(found: Rejection, private_text: Callable[[bytes], str | None]) -> Rejection:
    given: tuple[Any, ...] = found
    code, exception, message = given[:3]
    if not (isinstance(code, str) and code in ErrorCode.__members__):
        return _failed(_UNKNOWN_CODE)
    if not (isinstance(exception, str) and isinstance(message, str)):
        return _failed(_NO_TEXTS)
    if what := private_text(message.encode("utf-8", "replace")):
        message = f"{_QUOTES} {what}"
    return Rejection(ErrorCode(code), exception, message)


def _failed(reason: str) -> Rejection:
    return Rejection(ErrorCode.PROCESSING_FAILED, "ValueError", reason)
