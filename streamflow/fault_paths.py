"""Where in a document a fault is, in the contract's words: ``items[2].price``.

Pydantic's location of an error also holds what no document has (the branches of a union, the tags of a
tagged one, names of classes and validators) and what is input (keys of dicts, names of foreign fields). So it
is followed through the contract's core schema, and the path consists only of what the contract names.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from streamflow.core_schema import WITH_FIELDS, Definitions, choices_of, fields_of
from streamflow.field_names import json_paths

Location = tuple[int | str, ...]

_ANY_KEY: Final = "[*]"  # of a dict: the key itself is input
OF_KEY: Final = "[key]"  # follows a key in pydantic's locations, if it is the key that is wrong
_UNIONS: Final = ("union", "tagged-union")
_SEQUENCES: Final = ("list", "set", "frozenset", "generator")
_INNER: Final = ("schema", "json_schema", "lax_schema", "strict_schema")


class _Place(NamedTuple):
    """A part of the contract, once the steps `ahead` have been taken, and the path to it."""

    schema: Any
    path: str = ""
    ahead: Location = ()
    by_name: bool = False  # whether its model is also read by its fields' names in Python


class FaultPaths:
    """Turns locations of errors into paths.

    Args:
        schema: the contract as pydantic's core schema.
    """

    def __init__(self, schema: Any) -> None:
        self._schema = schema
        self._definitions = Definitions(schema)

    def of(self, location: Location) -> str:
        """The path; empty for the record itself. An undeclared field has that of its holder."""
        # Of unions, more than one place may fit.
        places = [_Place(self._schema)]
        for step in location:
            further: dict[tuple[int, str, Location], _Place] = {}
            for place in places:
                for found in self._after(place, step):
                    further.setdefault((id(found.schema), found.path, found.ahead), found)
            if not further:
                break
            places = list(further.values())
        return places[0].path

    def _after(self, place: _Place, step: int | str) -> Iterator[_Place]:
        if place.ahead:
            if place.ahead[0] == step:
                yield place._replace(ahead=place.ahead[1:])
            return
        for part in self._unwrapped(place):
            yield from self._into(part, step)

    def _unwrapped(self, place: _Place) -> Iterator[_Place]:
        """What takes a step, without what only surrounds it."""
        waiting = [place]
        while waiting:
            place = waiting.pop()
            schema = self._definitions.resolved(place.schema)
            if schema["type"] in ("model", "dataclass", "typed-dict"):
                place = place._replace(by_name=_is_read_by_name(schema))
            place = place._replace(schema=schema)
            if schema["type"] in _UNIONS:
                choices = list(choices_of(schema))
                if len(choices) == 1:  # pydantic names no branch of such a union
                    waiting.append(place._replace(schema=choices[0]))
                    continue
            inner = [schema[name] for name in _INNER if isinstance(schema.get(name), dict)]
            inner += schema.get("steps", ())
            if inner:
                waiting += (place._replace(schema=part) for part in reversed(inner))
            else:
                yield place

    def _into(self, place: _Place, step: int | str) -> Iterator[_Place]:
        schema, path = place.schema, place.path
        kind = schema["type"]
        if kind in _UNIONS:
            yield from (place._replace(schema=choice) for choice in self._chosen(schema, step))
        elif kind in WITH_FIELDS and isinstance(step, str):
            yield from self._field(place, step)
        elif kind == "named-tuple" and isinstance(step, int):
            for field in schema["fields"][step : step + 1]:
                yield _Place(field["schema"], f"{path}[{step}]")
        elif kind == "dict" and isinstance(step, str):
            yield _Place(schema.get("values_schema") or _ANY, path + _ANY_KEY)
            yield _Place(schema.get("keys_schema") or _ANY, path, (OF_KEY,))
        elif kind in _SEQUENCES and isinstance(step, int):
            yield _Place(schema.get("items_schema") or _ANY, f"{path}[{step}]")
        elif kind == "tuple" and isinstance(step, int):
            for item in _items_at(schema, step):
                yield _Place(item, f"{path}[{step}]")

    def _field(self, place: _Place, step: str) -> Iterator[_Place]:
        for name, field in fields_of(place.schema):
            paths = json_paths(name, field)
            for json_path in paths:
                if json_path[0] == step:
                    where = joined(place.path, json_path)
                    yield _Place(field["schema"], where, json_path[1:])
            if name == step and (name,) not in paths:
                shown = (name,) if place.by_name else paths[0]
                yield _Place(field["schema"], joined(place.path, shown))

    def _chosen(self, union: Any, label: int | str) -> Iterable[Any]:
        """The branches that a label may name: it tells the type, or holds the name of the class."""
        choices = list(choices_of(union))
        return [one for one in choices if self._name(one) in str(label)] or choices

    def _name(self, choice: Any) -> str:
        schema = self._definitions.unwrapped(choice)
        return schema["cls"].__name__ if "cls" in schema else str(schema["type"])


_ANY: Final = {"type": "any"}


def _is_read_by_name(schema: Mapping[str, Any]) -> bool:
    config = schema.get("config") or {}
    return bool(config.get("validate_by_name") or config.get("populate_by_name"))


def _items_at(schema: Any, index: int) -> list[Any]:
    """What may be at an index of a tuple: from the part of any length on, that or what follows it."""
    items: list[Any] = schema["items_schema"]
    first = schema.get("variadic_item_index")
    return items[index : index + 1] if first is None or index < first else items[first:]


def joined(path: str, steps: Iterable[str | int]) -> str:
    """The path with further steps."""
    for step in steps:
        path += f"[{step}]" if isinstance(step, int) else f".{step}" if path else step
    return path
