"""From a core schema to what generates its values: models, collections, unions and validators."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import Enum
from itertools import islice
from typing import Any, Final, cast

from pydantic import ValidationError
from pydantic_core import CoreConfig, SchemaValidator, core_schema

from streamflow.field_names import json_paths
from streamflow.privacy import Hasher
from streamflow.samples import containers
from streamflow.samples.containers import Field
from streamflow.samples.node import Draw, NoSample, SampleEdge, SampleNode, Schema, edges_of, leaf
from streamflow.samples.scalars import SCALARS, seeded
from streamflow.samples.texts import binary, text
from streamflow.user_code import name_of_fault

_TRIES: Final = 30
_DEEPEST: Final = 12
# For validators that hide what they want.
_GUESSES: Final[tuple[Any, ...]] = (
    "text", "ABC", "DE", "12.50", "2026-03-01T12:00:00Z", "2026-03-01", "12:30:00", "PT5M",
    "b8a9f715-dbb6-4fd5-a5c6-7783c6a3b5ad", "0" * 64, "192.0.2.7", "2001:db8::7", "https://example.com",
    "#ffffff", 7, 1.5, True, 1_772_366_400, 1_772_366_400_000, [], {}, [1], ["text"], None,
    "name@example.com",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a part of the contract stands."""

    path: tuple[str, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def name(self) -> str:
        return self.path[-1] if self.path else "value"


class Shapes:
    """Makes the generator of one model.

    Attributes:
        fields: of the model itself; filled by `of`.

    Args:
        hasher: makes hashes.
        special: the nodes of fields of the model itself that the caller generates.
        repeated: fields of the model that take few values, whatever their type.
    """

    def __init__(
        self,
        hasher: Hasher,
        *,
        special: Mapping[str, SampleNode],
        repeated: Sequence[str] = (),
    ) -> None:
        self.fields: list[Field] = []
        self._hasher = hasher
        self._special = special
        self._repeated = repeated
        self._definitions: dict[str, Schema] = {}
        self._nodes: dict[str, SampleNode] = {}
        self._makers: dict[str, Callable[[Schema, _Place], SampleNode]] = {
            "str": self._text,
            "bytes": lambda schema, place: binary(schema, place.name, place.config),
            "literal": lambda schema, place: _listed(schema["expected"], place),
            "enum": lambda schema, place: _listed(schema["members"], place),
            "nullable": self._nullable,
            "list": self._list,
            "set": self._list,
            "frozenset": self._list,
            "generator": self._list,
            "tuple": self._tuple,
            "dict": self._dict,
            "union": self._union,
            "tagged-union": self._union,
            "json": self._json,
            "model": self._model,
            "dataclass": self._model,
            "model-fields": self._fields,
            "typed-dict": self._fields,
            "dataclass-args": self._fields,
            "function-after": self._tried,
            "function-before": self._tried,
            "function-wrap": self._tried,
            "function-plain": self._tried,
            "chain": self._tried,
            "definitions": self._with_definitions,
            "definition-ref": self._reference,
            "lax-or-strict": self._lax_or_strict,
            "json-or-python": lambda schema, place: self._node(schema["json_schema"], place),
            "default": lambda schema, place: self._node(schema["schema"], place),
            "custom-error": lambda schema, place: self._node(schema["schema"], place),
        }

    def of(self, schema: Schema) -> SampleNode:
        """The node of the documents of a model, by its core schema. Raises NoSample if a part of it has no
        form in JSON."""
        return self._node(schema, _Place())

    def _node(self, schema: Schema, place: _Place) -> SampleNode:
        kind = schema["type"]
        if kind in SCALARS:
            return SCALARS[kind](schema, place.name)
        if kind not in self._makers:
            raise NoSample(f"{'.'.join(place.path)}: {kind} has no form in JSON")
        return self._makers[kind](schema, place)

    def _text(self, schema: Schema, place: _Place) -> SampleNode:
        return text(schema, place.name, self._hasher, self._fits(schema, place))

    def _fits(self, schema: Schema, place: _Place) -> Callable[[Any], bool]:
        """Whether a value is as a schema wants it. What a validator raises for lack of its
        surroundings is no verdict."""
        whole = core_schema.definitions_schema(schema, list(self._definitions.values()))
        config = cast("CoreConfig", dict(place.config))
        # A nested model's own validator would not know of what StreamFlow adds.
        validator = SchemaValidator(whole, config, _use_prebuilt=False)

        def fits(value: Any) -> bool:
            try:
                validator.validate_json(json.dumps(value))
            except ValidationError:
                return False
            except BaseException as error:  # noqa: BLE001 (a validator of the user's own)
                name_of_fault(error)
                return True
            return True

        return fits

    def _tried(self, schema: Schema, place: _Place) -> SampleNode:
        """What a validator decides: values of what it takes, then guesses."""
        parts = schema.get("steps") or ([schema["schema"]] if "schema" in schema else [])
        inner = [self._node(part, place) for part in parts]
        if inner and not place.path:
            return inner[0]  # of the whole document, which the decoder judges
        fits = self._fits(schema, place)
        guesses = [guess for guess in _GUESSES if fits(guess)]
        if schema["type"] == "chain":
            # Which step's values pass the others is found by trying.
            inner.sort(key=lambda node: _share_that_fits(node, fits), reverse=True)

        def plain(draw: Draw) -> Any:
            value: Any = None
            for node in inner:
                for _ in range(_TRIES):
                    if fits(value := node.plain(draw)):
                        return value
            # Without any that fits, the decoder refuses the last and names the field.
            return draw.chance.choice(guesses[:2]) if guesses else value

        def edges(draw: Draw) -> Iterator[SampleEdge]:
            yield from edges_of(inner, draw)
            yield from map(SampleEdge, guesses)

        return SampleNode(plain, edges, any(node.choices for node in inner))

    def _nullable(self, schema: Schema, place: _Place) -> SampleNode:
        return containers.nullable(self._node(schema["schema"], place))

    def _list(self, schema: Schema, place: _Place) -> SampleNode:
        item = self._node(schema.get("items_schema") or {"type": "any"}, place)
        return containers.list_of(item, schema)

    def _tuple(self, schema: Schema, place: _Place) -> SampleNode:
        return containers.tuple_of([self._node(part, place) for part in schema["items_schema"]])

    def _dict(self, schema: Schema, place: _Place) -> SampleNode:
        keys = self._node(schema.get("keys_schema") or {"type": "str"}, place)
        values = self._node(schema.get("values_schema") or {"type": "any"}, place)
        return containers.dict_of(keys, values, schema)

    def _union(self, schema: Schema, place: _Place) -> SampleNode:
        choices = schema["choices"]
        parts = choices.values() if isinstance(choices, Mapping) else choices
        return containers.union_of(
            [self._node(part[0] if isinstance(part, tuple) else part, place) for part in parts]
        )

    def _json(self, schema: Schema, place: _Place) -> SampleNode:
        inner = self._node(schema.get("schema") or {"type": "any"}, place)
        return SampleNode(
            lambda draw: json.dumps(inner.plain(draw)),
            lambda draw: (SampleEdge(json.dumps(value), path) for value, path in inner.edges(draw)),
        )

    def _model(self, schema: Schema, place: _Place) -> SampleNode:
        config = schema.get("config") or place.config
        return self._node(schema["schema"], replace(place, config=config))

    def _fields(self, schema: Schema, place: _Place) -> SampleNode:
        declared = schema["fields"]
        named = (
            declared.items()
            if isinstance(declared, Mapping)
            else ((part["name"], part) for part in declared)
        )
        top = not place.path
        fields = [self._field(name, part, place, top=top) for name, part in named]
        if top:
            self.fields = fields

        return containers.object_of(fields)

    def _field(self, name: str, schema: Schema, place: _Place, *, top: bool) -> Field:
        inner = schema["schema"]
        where = replace(place, path=(*place.path, name))
        required = schema.get("required", inner["type"] != "default")
        by_alias = place.config.get("validate_by_alias", True)
        keys = json_paths(name, schema)[0] if by_alias else (name,)
        if top and name in self._special:
            return Field(name, keys, True, self._special[name])
        node = self._node(inner, where)
        return Field(
            name, keys, required, _few(node, name) if top and name in self._repeated else node
        )

    def _with_definitions(self, schema: Schema, place: _Place) -> SampleNode:
        self._definitions |= {part["ref"]: part for part in schema["definitions"]}
        return self._node(schema["schema"], place)

    def _reference(self, schema: Schema, place: _Place) -> SampleNode:
        reference = schema["schema_ref"]
        top = not place.path

        def node() -> SampleNode:
            if reference not in self._nodes:
                self._nodes[reference] = self._node(self._definitions[reference], place)
            return self._nodes[reference]

        if top:
            return node()

        def plain(draw: Draw) -> Any:
            if draw.depth > _TRIES:
                raise NoSample(f"{'.'.join(place.path)}: holds itself without an end")
            draw.depth += 1
            try:
                return node().plain(draw)
            finally:
                draw.depth -= 1

        def edges(draw: Draw) -> Iterator[SampleEdge]:
            if draw.depth:
                return
            before = draw.most_depth
            draw.most_depth, draw.single = _DEEPEST, True
            try:
                deep = plain(draw)
            finally:
                draw.most_depth, draw.single = before, False
            yield SampleEdge(deep)
            draw.depth += 1
            try:
                found = list(islice(node().edges(draw), 200))
            finally:
                draw.depth -= 1
            yield from found

        return SampleNode(plain, edges)

    def _lax_or_strict(self, schema: Schema, place: _Place) -> SampleNode:
        strict = schema.get("strict", place.config.get("strict"))
        return self._node(schema["strict_schema" if strict else "lax_schema"], place)


def _share_that_fits(node: SampleNode, fits: Callable[[Any], bool]) -> float:
    draw = Draw(seeded("step"), datetime.now(UTC))
    return sum(fits(node.plain(draw)) for _ in range(_TRIES)) / _TRIES


def _few(node: SampleNode, name: str) -> SampleNode:
    """The same few values again and again."""

    def plain(draw: Draw) -> Any:
        number = draw.few()
        return node.plain(replace(draw, chance=seeded(f"{name}/{number}"), number=number))

    return SampleNode(plain, node.edges, node.choices)


def _listed(values: Sequence[Any], place: _Place) -> SampleNode:
    plain = [value.value if isinstance(value, Enum) else value for value in values]
    plain = [value.decode() if isinstance(value, bytes) else value for value in plain]
    for value in plain:
        # pydantic compares them with what JSON has.
        if value is not None and not isinstance(value, str | int | float):
            raise NoSample(
                f"{'.'.join(place.path)}: no JSON is a {type(value).__name__}, as a value of its Enum is: "
                "give the Enum texts or numbers"
            )
    return leaf(lambda draw: draw.chance.choice(plain), *plain, choices=True)
