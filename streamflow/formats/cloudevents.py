"""CloudEvents 1.0 by its Kafka protocol binding: structured and binary content mode."""

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Annotated, Any, Final

from streamflow.argument_types import TEXT, fields_by_name, keeps_faults, optional
from streamflow.errors import ConfigurationError, ErrorCode
from streamflow.formats.documents import Decoded, Tombstone, parse, violation, write
from streamflow.records import Headers, Record, Rejection, headers_of, last_header

_REQUIRED: Final = ("specversion", "id", "source", "type")
_PREFIX: Final = "ce_"
_CONTENT_TYPE: Final = "content-type"
_STRUCTURED: Final = "application/cloudevents"
_BATCH: Final = "application/cloudevents-batch"
_ATTRIBUTES: Final = fields_by_name('attributes={"id": "event_id"}')
_ATTRIBUTE: Final = re.compile(r"[a-z0-9]+")
_JSON_TYPE: Final = re.compile(r"[\w.+-]+/(?:[\w.-]+\+)?json", re.ASCII)


@keeps_faults
class CloudEvents:
    """Decodes CloudEvents. The document is the event's data, with the attributes that are asked for.

    Args:
        attributes: attributes of the event that the contract judges too, with the field of each:
            ``{"id": "event_id", "time": "created_at"}``. A field of the same name in the data is replaced.
        data: the field that holds the data; None if the data's fields are those of the document.
    """

    def __init__(
        self,
        attributes: Annotated[Mapping[str, str] | None, optional(_ATTRIBUTES)] = None,
        *,
        data: Annotated[str | None, optional(TEXT)] = None,
    ) -> None:
        self.attributes = dict(attributes or {})
        self.data = data
        for name in self.attributes:
            if not _ATTRIBUTE.fullmatch(name):
                raise ConfigurationError(
                    f"CloudEvents has no attribute {name!r}: names have only lower-case letters and digits"
                )
        fields = [*self.attributes.values(), *([data] if data is not None else [])]
        twice = sorted({field for field in fields if fields.count(field) > 1})
        if twice:
            raise ConfigurationError(f"CloudEvents: two values go into field {', '.join(twice)}")

    def __call__(self, record: Record) -> Decoded:
        value = record.value()
        if value is None:
            return Tombstone()
        headers = headers_of(record)
        content_type = _media_type(last_header(headers, _CONTENT_TYPE))
        if content_type.startswith(_BATCH):
            return violation("a batch of events: send each event as a record of its own")
        if not content_type.startswith(_STRUCTURED) and last_header(headers, "ce_specversion"):
            return self._binary(headers, content_type, value)
        if content_type not in ("", f"{_STRUCTURED}+json") and not _JSON_TYPE.fullmatch(
            content_type
        ):
            return violation("content-type: only application/cloudevents+json is read")
        return self._structured(value)

    def _structured(self, value: bytes) -> Decoded:
        event = parse(value)
        if isinstance(event, Rejection):
            return event
        if not isinstance(event, dict):
            return violation("not a JSON object, so no CloudEvent")
        if (rejection := _check(event)) is not None:
            return rejection
        content_type = event.get("datacontenttype")
        if not _is_json(content_type if isinstance(content_type, str) else ""):
            return violation("datacontenttype: only JSON is read")
        data = event.get("data")
        if event.get("data_base64") is not None:
            if "data" in event:
                return violation("has data as well as data_base64")
            data = _decoded(event["data_base64"])
            if isinstance(data, Rejection):
                return data
        return self._document(event, data)

    def _binary(self, headers: Headers, content_type: str, value: bytes) -> Decoded:
        event: dict[str, Any] = {}
        for name in {*_REQUIRED, *self.attributes}:
            raw = last_header(headers, _PREFIX + name)
            if raw is None:
                continue
            try:
                event[name] = raw.decode()
            except UnicodeDecodeError:
                reason = f"header ce_{name}: not UTF-8"
                return Rejection(ErrorCode.INVALID_UTF8, "UnicodeDecodeError", reason)
        if (rejection := _check(event)) is not None:
            return rejection
        if not _is_json(content_type):
            return violation("content-type: only JSON data is read")
        if "datacontenttype" in self.attributes and content_type:
            event["datacontenttype"] = content_type
        if not self.attributes and self.data is None and value:
            return value
        data = parse(value) if value else None
        return data if isinstance(data, Rejection) else self._document(event, data)

    def _document(self, event: Mapping[str, Any], data: Any) -> Decoded:
        if self.data is not None:
            document = {self.data: data}
        elif isinstance(data, dict):
            document = data
        elif data is None and self.attributes:
            document = {}
        elif data is None:
            return Rejection(ErrorCode.EMPTY_VALUE, "ValueError", "the event has no data")
        else:
            return violation('data: not a JSON object; CloudEvents(data="FIELD") takes any JSON')
        taken = {
            field: event[name]
            for name, field in self.attributes.items()
            if event.get(name) is not None
        }
        return write(document | taken)


def _check(event: Mapping[str, Any]) -> Rejection | None:
    """What is wrong with the attributes that every event has."""
    for name in _REQUIRED:
        value = event.get(name)
        if not isinstance(value, str) or not value:
            return violation(f"{name}: this attribute is required")
    if event["specversion"] != "1.0":
        return violation("specversion: only CloudEvents 1.0 is read")
    return None


def _media_type(raw: bytes | None) -> str:
    """A content type without its parameters; what is not ASCII is none that we read."""
    return (raw or b"").decode("ascii", "replace").partition(";")[0].strip().lower()


def _is_json(content_type: str) -> bool:
    media_type = content_type.partition(";")[0].strip().lower()
    return not media_type or bool(_JSON_TYPE.fullmatch(media_type))


def _decoded(text: object) -> Any:
    if not isinstance(text, str):
        return violation("data_base64: not a text")
    try:
        return parse(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        return violation("data_base64: not base64")
