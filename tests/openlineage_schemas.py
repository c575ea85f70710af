"""Whether an event is one by OpenLineage's own schemas."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from referencing import Registry, Resource

_SCHEMAS = [
    json.loads(file.read_text())
    for file in sorted((Path(__file__).parent / "openlineage").glob("*.json"))
]
_REGISTRY: Any = Registry().with_resources(
    (schema["$id"], Resource.from_contents(schema)) for schema in _SCHEMAS
)
_RUN_EVENT = next(
    schema["$id"] for schema in _SCHEMAS if schema["$id"].endswith("/OpenLineage.json")
)
_OF_FACETS = [schema for schema in _SCHEMAS if schema["$id"] != _RUN_EVENT]


def require_valid(event: dict[str, Any]) -> None:
    """Raises if the event, or one of its facets, is not valid, or a facet is of an unknown kind."""
    _validator({"$ref": f"{_RUN_EVENT}#/$defs/RunEvent"}).validate(event)
    known = {name for schema in _OF_FACETS for name in schema["properties"]}
    for facets in _facets(event):
        assert facets.keys() <= known
        for schema in _OF_FACETS:
            _validator(schema).validate(facets)


def _validator(schema: Any) -> Draft202012Validator:
    return Draft202012Validator(
        schema, registry=_REGISTRY, format_checker=Draft202012Validator.FORMAT_CHECKER
    )


def _facets(event: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield event["run"]["facets"]
    yield event["job"]["facets"]
    for dataset in (*event["inputs"], *event["outputs"]):
        yield dataset["facets"]
        yield dataset.get("inputFacets", {})
        yield dataset.get("outputFacets", {})
