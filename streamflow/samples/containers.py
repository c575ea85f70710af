"""What holds other values: objects, lists, unions."""

import json
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, Final, NamedTuple

from streamflow.samples.node import Draw, SampleEdge, SampleNode, Schema, edges_of

_PRESENT: Final = 0.8  # share of optional fields that are there
_NULLS: Final = 0.1
_TRIES: Final = 30
_ITEMS: Final = 3  # of a plain list, at most
_MANY: Final = 100  # items of a list at its boundary


class Field(NamedTuple):
    """A field of a model; `keys` lead to its value in the document."""

    name: str
    keys: tuple[str | int, ...]
    required: bool
    node: SampleNode


def object_of(fields: Sequence[Field]) -> SampleNode:
    optional = any(not one.required for one in fields)

    def plain(draw: Draw) -> dict[str, Any]:
        document: dict[str, Any] = {}
        deep = draw.depth >= draw.most_depth
        for one in fields:
            if one.required or draw.single or (not deep and draw.chance.random() < _PRESENT):
                put(document, one.keys, one.node.plain(draw))
        return document

    def edges(draw: Draw) -> Iterator[SampleEdge]:
        if optional:
            least: dict[str, Any] = {}
            for one in fields:
                if one.required:
                    put(least, one.keys, one.node.plain(draw))
            yield SampleEdge(least)
        for one in fields:
            for value, path in one.node.edges(draw):
                document = plain(draw)
                put(document, one.keys, value)
                yield SampleEdge(document, (one.name, *path))

    return SampleNode(plain, edges)


def put(document: dict[str, Any], keys: Sequence[str | int], value: Any) -> None:
    """Sets a value where an alias says; a path of several keys leads through objects and lists."""
    holder: Any = document
    for key, following in pairwise(keys):
        _make_room(holder, key)
        if isinstance(key, str):
            holder.setdefault(key, None)
        if holder[key] is None:
            holder[key] = [] if isinstance(following, int) else {}
        holder = holder[key]
    _make_room(holder, keys[-1])
    holder[keys[-1]] = value


def _make_room(holder: Any, key: str | int) -> None:
    if isinstance(key, int):
        holder.extend([None] * (key + 1 - len(holder)))


def nullable(inner: SampleNode) -> SampleNode:
    def plain(draw: Draw) -> Any:
        deep = draw.depth >= draw.most_depth
        return None if deep or draw.chance.random() < _NULLS else inner.plain(draw)

    return SampleNode(
        plain, lambda draw: iter((SampleEdge(None), *inner.edges(draw))), inner.choices
    )


def list_of(item: SampleNode, schema: Schema) -> SampleNode:
    """Lists, and sets, whose items are distinct."""
    least, most = schema.get("min_length") or 0, schema.get("max_length")
    distinct = schema["type"] in ("set", "frozenset")

    def of_length(draw: Draw, length: int, *first: Any) -> list[Any]:
        items = list(first)
        for _ in range(_TRIES * (length + 1)):
            if len(items) >= length:
                break
            value = item.plain(draw)
            if not distinct or value not in items:
                items.append(value)
        return items

    def plain(draw: Draw) -> list[Any]:
        length = _usual_length(draw, least, most)
        return of_length(draw, length if draw.single else draw.chance.randint(least, length))

    def edges(draw: Draw) -> Iterator[SampleEdge]:
        yield SampleEdge(of_length(draw, least))
        yield SampleEdge(of_length(draw, min(_MANY, _MANY if most is None else most)))
        for value, path in item.edges(draw):
            yield SampleEdge(of_length(draw, least, value), path)

    return SampleNode(plain, edges)


def tuple_of(items: Sequence[SampleNode]) -> SampleNode:
    def edges(draw: Draw) -> Iterator[SampleEdge]:
        for at, item in enumerate(items):
            for value, path in item.edges(draw):
                whole = [other.plain(draw) for other in items]
                whole[at] = value
                yield SampleEdge(whole, path)

    return SampleNode(lambda draw: [item.plain(draw) for item in items], edges)


def dict_of(keys: SampleNode, values: SampleNode, schema: Schema) -> SampleNode:
    least, most = schema.get("min_length") or 0, schema.get("max_length")

    def of_length(draw: Draw, length: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for _ in range(_TRIES * (length + 1)):
            if len(found) >= length:
                break
            found[_key(keys.plain(draw))] = values.plain(draw)
        return found

    def edges(draw: Draw) -> Iterator[SampleEdge]:
        yield SampleEdge(of_length(draw, least))
        rest = of_length(draw, max(0, least - 1))
        for value, _ in keys.edges(draw):
            yield SampleEdge({**rest, _key(value): values.plain(draw)})
        for value, path in values.edges(draw):
            yield SampleEdge({**rest, _key(keys.plain(draw)): value}, path)

    return SampleNode(lambda draw: of_length(draw, _usual_length(draw, least, most)), edges)


def _key(value: Any) -> str:
    """A key of an object is a text in JSON."""
    return value if isinstance(value, str) else json.dumps(value)


def _usual_length(draw: Draw, least: int, most: int | None) -> int:
    usual = 0 if draw.depth >= draw.most_depth else 1 if draw.single else _ITEMS
    return max(least, min(usual, _ITEMS if most is None else most))


def union_of(nodes: Sequence[SampleNode]) -> SampleNode:
    return SampleNode(
        lambda draw: draw.chance.choice(nodes).plain(draw),
        lambda draw: edges_of(nodes, draw),
        all(node.choices for node in nodes),
    )
