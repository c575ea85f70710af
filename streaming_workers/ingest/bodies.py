"""The events of a request's body: one or many, as JSON, NDJSON or CloudEvents. Pure."""

import base64
import binascii
import re
import zlib
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import unquote_to_bytes

import msgspec

from streamflow.errors import ErrorCode
from streamflow.formats.documents import violation
from streamflow.records import Headers, Rejection
from streaming_workers.ingest.problems import Problem

JSON: Final = "application/json"
NDJSON: Final = "application/x-ndjson"
CLOUD_EVENT: Final = "application/cloudevents+json"
CLOUD_EVENTS: Final = "application/cloudevents-batch+json"
CONTENT_TYPES: Final = (JSON, NDJSON, CLOUD_EVENT, CLOUD_EVENTS)

_NDJSON: Final = (NDJSON, "application/ndjson", "application/jsonl")
_ATTRIBUTE: Final = re.compile(r"[a-z0-9]+")
_BAD_ATTRIBUTE: Final = "an attribute of the CloudEvent has no valid name, or is no text"
_HTTP_PREFIX: Final = "ce-"
_KAFKA_PREFIX: Final = "ce_"
_CONTENT_TYPE: Final = "content-type"
_JSON_TYPE: Final = re.compile(r"[\w.+-]+/(?:[\w.-]+\+)?json(?:\s*;.*)?", re.ASCII | re.IGNORECASE)
_SPACE: Final = b" \t\r\n"
_ARRAY: Final = msgspec.json.Decoder(list[msgspec.Raw])
_OBJECT: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_GZIP: Final = 31  # zlib's window bits: the largest window, and gzip's head


class Incoming(NamedTuple):
    """An event as it came. A CloudEvent has its attributes, as headers of Kafka's binding."""

    document: bytes
    attributes: Headers = []  # noqa: RUF012 (nobody changes it)


def inflated(body: bytes, most: int) -> bytes:
    """What is compressed with gzip. Raises Problem if that is no gzip, or more than `most` bytes."""
    inflater = zlib.decompressobj(_GZIP)
    try:
        data = inflater.decompress(body, most + 1)
    except zlib.error:
        raise Problem(400, "the body is not gzip, as content-encoding says") from None
    if len(data) > most:
        raise too_large(most)
    if not inflater.eof or inflater.unused_data:
        raise Problem(400, "the body is not one whole gzip member")
    return data


def too_large(most: int) -> Problem:
    return Problem(413, f"the body is larger than {most:,} bytes: send several requests")


def events_of(headers: Mapping[str, str], body: bytes) -> list[Incoming | Rejection]:
    """The events of a body; one that is no CloudEvent where CloudEvents are said to be is a `Rejection`.

    Args:
        headers: of the request, by lower-case names.

    Raises:
        Problem: the content type is none of ours, or the body holds no events in it.
    """
    media_type = headers.get(_CONTENT_TYPE, "").partition(";")[0].strip().lower()
    if media_type == CLOUD_EVENTS:
        events = [_structured(one) for one in _array(body)]
    elif media_type == CLOUD_EVENT:
        events = [_structured(body)]
    elif "ce-specversion" in headers:
        events = [_binary(headers, body)]
    elif media_type in _NDJSON:
        lines = (line.strip(_SPACE) for line in body.split(b"\n"))
        events = [Incoming(line) for line in lines if line]
    elif media_type == JSON:
        is_array = body.lstrip(_SPACE)[:1] == b"["
        documents = _array(body) if is_array else [body.strip(_SPACE)]
        events = [Incoming(document) for document in documents]
    else:
        raise Problem(
            415,
            f"the content type is none of {', '.join(CONTENT_TYPES)}",
            headers=[("accept-post", ", ".join(CONTENT_TYPES))],
        )
    if not events or (len(events) == 1 and events[0] == Incoming(b"")):
        raise Problem(400, "the body holds no event")
    return events


def _array(body: bytes) -> list[bytes]:
    try:
        return [bytes(one) for one in _ARRAY.decode(body)]
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise Problem(
            400, "the body is not a JSON array", code=ErrorCode.INVALID_JSON.value
        ) from None


def _structured(value: bytes) -> Incoming | Rejection:
    try:
        event = _OBJECT.decode(value)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return Rejection(ErrorCode.INVALID_JSON, "ValueError", "not a CloudEvent: no JSON object")
    data = event.pop("data", None)
    encoded = event.pop("data_base64", None)
    attributes: Headers = []
    for name, raw in event.items():
        text = _attribute(bytes(raw))
        if not _ATTRIBUTE.fullmatch(name) or text is None:
            return violation(_BAD_ATTRIBUTE)
        if text and name != "datacontenttype":
            attributes.append((_KAFKA_PREFIX + name, text))
        elif text:
            attributes.append((_CONTENT_TYPE, text))
    document = b"" if data is None else bytes(data)
    if encoded is not None:
        if data is not None:
            return violation("has data as well as data_base64")
        document = _from_base64(bytes(encoded)) or b""
        if not document:
            return violation("data_base64: not base64")
    return _checked(Incoming(document, attributes))


def _attribute(raw: bytes) -> bytes | None:
    """The text of an attribute, also of a number or a truth value; None for what is none."""
    try:
        value: Any = msgspec.json.decode(raw)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    if value is None:
        return b""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    return raw.strip() if isinstance(value, int) else None


def _from_base64(raw: bytes) -> bytes | None:
    try:
        return base64.b64decode(msgspec.json.decode(raw, type=str), validate=True)
    except (msgspec.MsgspecError, binascii.Error, ValueError):
        return None


def _binary(headers: Mapping[str, str], body: bytes) -> Incoming | Rejection:
    given = {
        name.removeprefix(_HTTP_PREFIX): unquote_to_bytes(value.strip('"'))
        for name, value in headers.items()
        if name.startswith(_HTTP_PREFIX)
    }
    if not all(map(_ATTRIBUTE.fullmatch, given)):
        return violation(_BAD_ATTRIBUTE)
    attributes: Headers = [(_KAFKA_PREFIX + name, value) for name, value in given.items()]
    if _CONTENT_TYPE in headers:
        attributes.append((_CONTENT_TYPE, headers[_CONTENT_TYPE].encode()))
    return _checked(Incoming(body, attributes))


def _checked(event: Incoming) -> Incoming | Rejection:
    """The event, if it has what every CloudEvent has."""
    attributes = dict(event.attributes)
    for name in ("specversion", "id", "source", "type"):
        if not attributes.get(_KAFKA_PREFIX + name):
            return violation(f"{name}: this attribute of a CloudEvent is required")
    if attributes["ce_specversion"] != b"1.0":
        return violation("specversion: only CloudEvents 1.0 is read")
    content_type = attributes.get(_CONTENT_TYPE)
    if content_type and not _JSON_TYPE.fullmatch(content_type.decode("ascii", "replace").strip()):
        return violation("datacontenttype: only JSON is read")
    return event


Decompress = Callable[[bytes, int], bytes]
ENCODINGS: Final[Mapping[str, Decompress]] = {
    "": lambda body, _most: body,
    "identity": lambda body, _most: body,
    "gzip": inflated,
}
