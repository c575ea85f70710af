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

_T = TypeVar("_T")
# What is wrong with a value, as the rest of a sentence that begins with the argument's name; None if
# nothing is.
Check = Callable[[Any], str | None]

MISSING: Final = object()  # of a required argument
_LONGEST: Final = 60  # characters of a text that is shown
_MISNAMED: Final = "misnamed"


def keeps_misnamed(declaration: type[_T]) -> type[_T]:
    """Lets a dataclass be made with arguments that it does not have, or without some that it needs. What is
    wrong with their names is kept in its field `misnamed`."""
    make = declaration.__init__
    signature = inspect.signature(make)
    shown = [one for one in signature.parameters.values() if one.name != _MISNAMED]
    # Without self, and without what takes any name.
    parameters = [one for one in shown[1:] if one.kind is not one.VAR_KEYWORD]
    takes_any = len(parameters) < len(shown) - 1
    names = [parameter.name for parameter in parameters]
    positional = [one.name for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD]
    required = {one.name for one in parameters if one.default is one.empty}

    @wraps(make)
    def make_and_keep(self: Any, *args: Any, misnamed: tuple[str, ...] = (), **named: Any) -> None:
        given = dict(zip(positional, args, strict=False))
        found = [*misnamed]
        if len(args) > len(positional):
            found.append(_too_many(declaration.__name__, names, len(positional)))
        unknown = {name for name in named if name not in names and not takes_any}
        found += [_unknown(declaration.__name__, name, names) for name in named if name in unknown]
        found += [f"{name} is given twice" for name in given if name in named]
        given |= {name: value for name, value in named.items() if name not in unknown}
        missing = [name for name in names if name in required and name not in given]
        if missing:
            found.append(f"{declaration.__name__} needs {', '.join(missing)}")
        make(self, **given, **dict.fromkeys(missing, MISSING))
        object.__setattr__(self, _MISNAMED, (*found, *getattr(self, _MISNAMED, ())))

    make_and_keep.__signature__ = signature.replace(parameters=shown)  # type: ignore[attr-defined]
    declaration.__init__ = make_and_keep  # type: ignore[method-assign]
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
        for part in value if isinstance(value, list | tuple) else [value]:
            if is_dataclass(part) and hasattr(part, _MISNAMED):
                yield from (f"{field.name}: {fault}" for fault in argument_faults(part))


def _check_of(field: Field[Any]) -> Check | None:
    return next(iter(getattr(field.type, "__metadata__", ())), None)


def _unknown(declaration: str, name: str, names: list[str]) -> str:
    near = get_close_matches(name, names, 1)
    hint = f"did you mean {near[0]}?" if near else f"its arguments are {', '.join(names)}"
    return f"{declaration} has no argument {name}: {hint}"


def _too_many(declaration: str, names: list[str], positional: int) -> str:
    which = f"only {', '.join(names[:positional])}" if positional else "no argument"
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
