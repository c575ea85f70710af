"""Whether a function of the user's own has changed the event that it was asked of. Pure."""

import dataclasses
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from itertools import chain
from operator import attrgetter, is_
from typing import Any, Final
from uuid import UUID

from pydantic import BaseModel

from streamflow.contract import Event
from streamflow.decoder import Decoder

# The values of an event, which only a change makes other objects: they are compared by identity.
Contents = Sequence[Any]

# What most fields hold, and what consists of nothing else.
_PLAIN: Final = frozenset((str, int, float, bool, type(None), Decimal, datetime, date, time, UUID))
_SEQUENCES: Final = (list, tuple, set, frozenset, deque)
_END: Final = object()  # of what has several parts
_NONE: Final = object()  # of a field that is gone


def contents_of(decoder: Decoder) -> Callable[[Event], Contents]:
    """Gives all that an event holds, however deep. Take it before and after, and compare with `is_same`."""
    getters = {model: _getter(decoder, model) for model in decoder.models}

    def contents(event: Event) -> Contents:
        getter = getters.get(type(event))
        return _parts(event) if getter is None else getter(event)

    return contents


def is_same(before: Contents, after: Contents) -> bool:
    return len(before) == len(after) and all(map(is_, before, after))


def _getter(decoder: Decoder, model: type) -> Callable[[Event], Contents]:
    fields = decoder.fields_of(model)
    if not all(map(decoder.definitions.is_scalar, fields.values())):
        return _parts
    # Many times as fast; of one field alone it would give no tuple.
    own: Callable[[Event], Contents] = attrgetter(*fields, next(iter(fields)))

    def contents(event: Event) -> Contents:
        return _parts(event) if event.__pydantic_extra__ else own(event)

    return contents


def _parts(value: Any) -> list[Any]:
    found: list[Any] = []
    _add(value, found)
    return found


def _add(value: Any, found: list[Any]) -> None:
    found.append(value)
    held: Iterable[Any]
    if isinstance(value, BaseModel):
        # Not what a `cached_property` keeps beside the fields.
        own = value.__dict__
        held = [own.get(name, _NONE) for name in value.__pydantic_fields__]
        held.append(value.__pydantic_extra__)
    elif isinstance(value, _SEQUENCES):
        held = value
    elif isinstance(value, Mapping):
        held = chain.from_iterable(value.items())
    elif dataclasses.is_dataclass(value):
        held = [getattr(value, each.name, _NONE) for each in dataclasses.fields(value)]
    else:
        return
    for each in held:
        if type(each) in _PLAIN:
            found.append(each)
        else:
            _add(each, found)
    found.append(_END)
