"""What the ingest worker says of itself: an OpenAPI document, and a page for people without any script."""

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Final

import orjson
from pydantic import TypeAdapter
from pydantic.errors import PydanticInvalidForJsonSchema

from streamflow.pii_keys import HASH_PATTERN
from streamflow.stream import Stream
from streaming_workers.ingest.bodies import CLOUD_EVENT, CLOUD_EVENTS, JSON, NDJSON
from streaming_workers.ingest.problems import PROBLEM_TYPE

_PRIVATE: Final = "private: hashed before it is stored; send it in clear, or hashed"
_ANSWERS: Final = {
    "400": "The body or the Idempotency-Key cannot be read.",
    "401": "The token is missing or wrong.",
    "409": "A request with this Idempotency-Key is being processed: ask again.",
    "413": "The body is too large, or holds too many events.",
    "415": "The content type or encoding is none of those that are read.",
    "422": "Events break the contract, each named in `errors`; or the key came with other events.",
    "429": "Too many events wait for Kafka: send this again after Retry-After seconds.",
    "503": "Kafka or the database did not answer; `outcome` is `not stored` or `unknown`.",
}
_STORED: Final = {
    "type": "object",
    "required": ["accepted", "records"],
    "properties": {
        "accepted": {"type": "integer"},
        "records": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"partition": {"type": "integer"}, "offset": {"type": "integer"}},
            },
        },
    },
}
_ERROR: Final = {
    "type": "object",
    "properties": {
        "index": {"type": "integer"},
        "code": {"type": "string"},
        "detail": {"type": "string"},
        "pointer": {"type": "string"},
    },
}
_PROBLEM: Final = {
    "type": "object",
    "required": ["title", "status", "detail"],
    "properties": {
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "outcome": {"enum": ["not stored", "unknown"]},
        "errors": {"type": "array", "items": _ERROR},
    },
}
_STYLE: Final = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "pre{background:#f4f4f4;padding:1rem;overflow:auto}"
)


def openapi(streams: Sequence[Stream], *, has_token: bool) -> bytes:
    """The document, with the schema of each stream's contract."""
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "StreamFlow ingest", "version": "1"},
        "paths": {f"/v1/streams/{stream.name}": {"post": _operation(stream)} for stream in streams},
        "components": {
            "schemas": {stream.name: schema_of(stream) for stream in streams}
            | {"Stored": _STORED, "Problem": _PROBLEM},
        },
    }
    if has_token:
        document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"token": []}]
    return orjson.dumps(document)


def _operation(stream: Stream) -> dict[str, Any]:
    event = {"$ref": f"#/components/schemas/{stream.name}"}
    attributes = {name: {"type": "string"} for name in ("specversion", "id", "source", "type")}
    cloud_event = {
        "type": "object",
        "required": list(attributes),
        "properties": attributes | {"data": event},
    }
    content: dict[str, Any] = {
        CLOUD_EVENT: {"schema": cloud_event},
        CLOUD_EVENTS: {"schema": {"type": "array", "items": cloud_event}},
    }
    if stream.decode is None:
        many = {"type": "array", "items": event}
        plain = {JSON: {"schema": {"oneOf": [event, many]}}, NDJSON: {"schema": {"type": "string"}}}
        content = plain | content
    problem = {PROBLEM_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    stored = {JSON: {"schema": {"$ref": "#/components/schemas/Stored"}}}
    return {
        "summary": f"Stores events of {stream.name}: all of the request, or none",
        "operationId": f"send-{stream.name}",
        "parameters": [
            {
                "name": "Idempotency-Key",
                "in": "header",
                "description": "The same request with the same key is stored once, however often it is sent.",
                "schema": {"type": "string", "minLength": 1, "maxLength": 255},
            }
        ],
        "requestBody": {"required": True, "content": content},
        "responses": {"200": {"description": "Kafka has stored the events.", "content": stored}}
        | {status: {"description": text, "content": problem} for status, text in _ANSWERS.items()},
    }


def schema_of(stream: Stream) -> Any:
    """The JSON schema of a stream's contract, as clients send it; of one that has none, any object."""
    try:
        schema = TypeAdapter(stream.contract).json_schema(
            ref_template=f"#/components/schemas/{stream.name}/$defs/{{model}}"
        )
    except PydanticInvalidForJsonSchema:
        return {"type": "object"}
    return _in_clear(schema, stream.decoder.private_fields)


def _in_clear(schema: Any, private: frozenset[str]) -> Any:
    """The schema where private texts may be in clear."""
    if isinstance(schema, list):
        return [_in_clear(part, private) for part in schema]
    if not isinstance(schema, Mapping):
        return schema
    changed = {name: _in_clear(part, private) for name, part in schema.items()}
    if changed.get("pattern") == HASH_PATTERN:
        del changed["pattern"]
        changed["description"] = _PRIVATE
    return changed


def page(streams: Sequence[Stream], *, has_token: bool) -> bytes:
    """For people: each stream with a command to copy, and its schema."""
    sections = "".join(_section(stream, has_token=has_token) for stream in streams)
    answers = "".join(
        f"<li><b>{status}</b> {escape(text)}</li>" for status, text in _ANSWERS.items()
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>StreamFlow ingest</title>'
        f"<style>{_STYLE}</style></head><body><h1>StreamFlow ingest</h1>"
        "<p>An answer of 200 says that Kafka has stored the events. With an <code>Idempotency-Key</code>, "
        'the same request may be sent again. For programs: <a href="/openapi.json">openapi.json</a>.</p>'
        f"{sections}<h2>Other answers</h2><ul>{answers}</ul></body></html>"
    ).encode()


def _section(stream: Stream, *, has_token: bool) -> str:
    token = " -H 'Authorization: Bearer TOKEN'" if has_token else ""
    command = (
        f"curl -X POST{token} -H 'Content-Type: {JSON}' -H 'Idempotency-Key: a-new-one-each-time' \\\n"
        f"  --data @events.json HOST/v1/streams/{stream.name}"
    )
    schema = json.dumps(schema_of(stream), indent=2, ensure_ascii=False)
    return (
        f"<h2>{escape(stream.name)}</h2><pre>{escape(command)}</pre>"
        f"<details><summary>Schema of an event</summary><pre>{escape(schema)}</pre></details>"
    )
