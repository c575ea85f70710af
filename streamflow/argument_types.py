"""What the arguments of a declaration must be, said at its fields, and what is wrong with those given. Pure.

A declaration is made whatever its arguments are: an exception would end the import of its file, and with it
every other stream of that file (G14). `argument_faults` says what is wrong, when the streams are loaded.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import Field, fields, is_dataclass
from datetime import timedelta
from difflib import get_close_matches
from functools import wraps
from typing import Any, Final, TypeVar, get_args, get_origin

from streamflow.durations import EXAMPLES, duration_text, parse_duration
from streamflow.errors import ConfigurationError

_T = TypeVar("_T")
# What is wrong with a value, as the rest of a sentence that begins with the argument's name; None if
# nothing is.
Check = Callable[[Any], str | None]

MISSING: Final = object()  # of a required argument
_LONGEST: Final = 60  # characters of a text that is shown
_MISNAMED: Final = "misnamed"
_KEPT: Final = "kept_faults"


class _Arguments:
    """The arguments that a class takes, and what is wrong with the names of those that it is given."""

    def __init__(self, declaration: type) -> None:
        self._name = declaration.__name__
        signature = inspect.signature(declaration.__init__)  # type: ignore[misc]
        shown = [one for one in signature.parameters.values() if one.name != _MISNAMED]
        self.signature = signature.replace(parameters=shown)
        # Without self, and without what takes any name.
        self.parameters = [one for one in shown[1:] if one.kind is not one.VAR_KEYWORD]
        self._takes_any = len(self.parameters) < len(shown) - 1
        self._names = [one.name for one in self.parameters]
        self._positional = [
            one.name for one in self.parameters if one.kind is one.POSITIONAL_OR_KEYWORD
        ]
        self._required = {one.name for one in self.parameters if one.default is one.empty}

    def take(
        self, args: tuple[Any, ...], named: Mapping[str, Any]
    ) -> tuple[dict[str, Any], list[str]]:
        """The arguments by name, `MISSING` for those that are needed and not there; and the faults."""
        names, positional = self._names, self._positional
        given = dict(zip(positional, args, strict=False))
        found = []
        if len(args) > len(positional):
            found.append(_too_many(self._name, names, len(positional)))
        unknown = {name for name in named if name not in names and not self._takes_any}
        found += [_unknown(self._name, name, names) for name in named if name in unknown]
        found += [f"{name} is given twice" for name in given if name in named]
        given |= {name: value for name, value in named.items() if name not in unknown}
        missing = [name for name in names if name in self._required and name not in given]
        if missing:
            found.append(f"{self._name} needs {', '.join(missing)}")
        return given | dict.fromkeys(missing, MISSING), found


def keeps_misnamed(declaration: type[_T]) -> type[_T]:
    """Lets a dataclass be made with arguments that it does not have, or without some that it needs. What is
    wrong with their names is kept in its field `misnamed`."""
    make, arguments = declaration.__init__, _Arguments(declaration)

    @wraps(make)
    def make_and_keep(self: Any, *args: Any, misnamed: tuple[str, ...] = (), **named: Any) -> None:
        given, found = arguments.take(args, named)
        make(self, **given)
        kept = (*misnamed, *found, *getattr(self, _MISNAMED, ()))
        object.__setattr__(self, _MISNAMED, kept)

    make_and_keep.__signature__ = arguments.signature  # type: ignore[attr-defined]
    declaration.__init__ = make_and_keep  # type: ignore[method-assign]
    return declaration


def keeps_faults(declaration: type[_T]) -> type[_T]:
    """Lets an object that stands in a declaration be made whatever its arguments are, also where it makes
    something of them at once. `argument_faults` says what is wrong with them; such an object is good for
    nothing else."""
    make, arguments = declaration.__init__, _Arguments(declaration)
    checks = {one.name: _check_in(one.annotation) for one in arguments.parameters}

    @wraps(make)
    def make_or_keep(self: Any, *args: Any, **named: Any) -> None:
        given, found = arguments.take(args, named)
        for name, value in given.items():
            check = checks.get(name)
            if value is not MISSING and check is not None and (fault := check(value)):
                found.append(f"{name} {fault}")
            found += [f"{name}: {fault}" for fault in getattr(value, _KEPT, ())]
        try:
            make(self, **given)
        except ConfigurationError as error:
            found = found or [str(error)]
        except Exception:
            if not found:
                raise
        object.__setattr__(self, _KEPT, tuple(found))

    make_or_keep.__signature__ = arguments.signature  # type: ignore[attr-defined]
    declaration.__init__ = make_or_keep  # type: ignore[method-assign]
    return declaration


def argument_faults(declaration: Any) -> Iterator[str]:
    """What is wrong with the arguments of a declaration, and of those within it, in a sentence each."""
    yield from declaration.misnamed
    for field in fields(declaration):
        value = getattr(declaration, field.name)
        check = _check_of(field)
        if check is None or value is MISSING:
            continue
        if fault := check(value):
            yield f"{field.name} {fault}"
            continue
        for name, part in _parts(field.name, value):
            if not isinstance(part, type) and hasattr(part, _KEPT):
                yield from (f"{name}: {fault}" for fault in getattr(part, _KEPT))
            elif is_dataclass(part) and hasattr(part, _MISNAMED):
                yield from (f"{name}: {fault}" for fault in argument_faults(part))


def _parts(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """What an argument consists of, and what it is called: a mapping says the names itself."""
    if isinstance(value, Mapping):
        yield from ((str(key), part) for key, part in value.items())
    else:
        yield from (
            (name, part) for part in (value if isinstance(value, list | tuple) else [value])
        )


def _check_of(field: Field[Any]) -> Check | None:
    return _check_in(field.type)


def _check_in(annotation: Any) -> Check | None:
    return next(iter(getattr(annotation, "__metadata__", ())), None)


def _unknown(declaration: str, name: str, names: list[str]) -> str:
    near = get_close_matches(name, names, 1)
    hint = f"did you mean {near[0]}?" if near else f"its arguments are {', '.join(names)}"
    return f"{declaration} has no argument {name}: {hint}"


def _too_many(declaration: str, names: list[str], positional: int) -> str:
    which = f"only {', '.join(names[:positional])}" if positional else "no argument"
    if positional == len(names):
        return f"{declaration} takes {which}"
    return f"{declaration} takes {which} without a name: write {names[positional]}=… and so on"


def described(value: Any) -> str:
    """A value as a sentence calls it: scalars by what they are, others by their type."""
    if isinstance(value, str):
        text = repr(value)
        return f"the text {text if len(text) <= _LONGEST else f'{text[:_LONGEST]}…'}"
    if value is None or isinstance(value, bool | int | float | timedelta):
        return repr(value)
    if get_origin(value) is not None:
        return repr(value)
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if inspect.isroutine(value):
        return f"the function {value.__name__}"
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"


def instance_of(*types: type, what: str) -> Check:
    """An object of one of these types, which `what` calls by a noun; no bool for an int."""

    def check(value: Any) -> str | None:
        fits = isinstance(value, types) and (bool in types or not isinstance(value, bool))
        hint = f": write {value.__name__}(…)" if value in types else ""
        return None if fits else f"must be {what}, not {described(value)}{hint}"

    return check


def optional(check: Check) -> Check:
    """The same, or None."""
    return lambda value: None if value is None else check(value)


def one_of(literal: Any) -> Check:
    """One of the texts of a ``Literal``."""
    texts = get_args(literal)
    *others, last = (f'"{text}"' for text in texts)
    wanted = f"{', '.join(others)} or {last}"

    def check(value: Any) -> str | None:
        if isinstance(value, str) and value in texts:
            return None
        near = get_close_matches(value.lower(), texts, 1) if isinstance(value, str) else []
        hint = f': did you mean "{near[0]}"?' if near else ""
        return f"must be {wanted}, not {described(value)}{hint}"

    return check


def whole_number(least: int, most: int) -> Check:
    bounds = f"a whole number from {least:,} to {most:,}"

    def check(value: Any) -> str | None:
        fits = isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
        return None if fits else f"must be {bounds}, not {described(value)}"

    return check


def duration(least: timedelta, most: timedelta) -> Check:
    """A ``timedelta`` of whole milliseconds, or a text that says one."""
    bounds = f"from {duration_text(least)} to {duration_text(most)}"

    def check(value: Any) -> str | None:
        if not isinstance(value, str | timedelta):
            return f"must be a duration like {EXAMPLES}, or a timedelta, not {described(value)}"
        try:
            span = parse_duration(value)
        except ValueError:
            if str(value).startswith("-") and check(str(value)[1:]) is None:
                return f"must not be negative, not {described(value)}"
            return f"must be a duration like {EXAMPLES}, not {described(value)}"
        except OverflowError:
            return f"must be {bounds}, not {described(value)}"
        if not least <= span <= most:
            return f"must be {bounds}, not {duration_text(span)}"
        if span % timedelta(milliseconds=1):
            return f"must be a number of whole milliseconds, not {duration_text(span)}"
        return None

    return check


def tuple_of(check_item: Check, what: str, example: str) -> Check:
    """A tuple or a list; `example` is written as in code, with the argument's name."""

    def check(value: Any) -> str | None:
        wanted = f"must be a tuple of {what}, as in {example}"
        if not isinstance(value, list | tuple):
            return f"{wanted}, not {described(value)}"
        return next(
            (f"{wanted}: one {fault}" for item in value if (fault := check_item(item))), None
        )

    return check


def fields_by_name(example: str) -> Check:
    """A dict of texts by texts; `example` is written as in code."""

    def check(value: Any) -> str | None:
        wanted = f"must be a dict of texts, as in {example}"
        if not isinstance(value, Mapping):
            return f"{wanted}, not {described(value)}"
        return next(
            (
                f"{wanted}: one is {described(part)}"
                for part in (*value, *value.values())
                if not isinstance(part, str)
            ),
            None,
        )

    return check


def function(
    what: str, *arguments: str, keywords: Mapping[str, None] | None = None, may_yield: bool = False
) -> Check:
    """A function that can be called with so many arguments, and with these keywords."""

    def check(value: Any) -> str | None:
        if not callable(value):
            called = inspect.isgenerator(value) or inspect.iscoroutine(value)
            hint = ": name the function without calling it" if called else ""
            return f"must be {what}, not {described(value)}{hint}"
        if isinstance(value, type) and any("__call__" in vars(base) for base in value.__mro__):
            return f"must be {what}, not {described(value)}: write {value.__name__}(…)"
        if inspect.iscoroutinefunction(value) or inspect.isasyncgenfunction(value):
            return f"must be {what}, and not async, since nothing awaits it"
        if inspect.isgeneratorfunction(value) and not may_yield:
            return f"must be {what}, and {described(value)} yields: let it return instead"
        try:
            signature = inspect.signature(value)
        except (TypeError, ValueError):  # of a built-in that does not say what it takes
            return None
        try:
            signature.bind(*arguments, **(keywords or {}))
        except TypeError as error:
            return f"must be {what}, and {described(value)} cannot be called as one: {error}"
        return None

    return check


def either(what: str, *checks: Check) -> Check:
    """What one of the checks accepts. Of a function the last one says what is wrong."""

    def check(value: Any) -> str | None:
        if any(one(value) is None for one in checks):
            return None
        return checks[-1](value) if callable(value) else f"must be {what}, not {described(value)}"

    return check


TEXT: Final = instance_of(str, what="a text")
FLAG: Final = instance_of(bool, what="True or False")
