"""Repairs: pure functions that change a document before it is validated again.

Add your own in a module that ``STREAMFLOW_REPAIRS`` names (comma-separated)::

    from streamflow.dead_letters.repairs import repair

    @repair("upper_type", "Writes the type in capitals.")
    def upper_type(document, stream, hasher):
        return {**document, "type": document["type"].upper()}
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from streamflow.errors import ConfigurationError, UsageError
from streamflow.privacy import Hasher
from streamflow.settings import Settings
from streamflow.stream import Stream
from streamflow.user_code import import_named

Document = dict[str, Any]
RepairFunction = Callable[[Document, Stream, Hasher], Document]

_BUILT_IN = "streamflow.dead_letters.builtin_repairs"


@dataclass(frozen=True, slots=True)
class Repair:
    """A repair function with its name and one line of help."""

    name: str
    help: str
    function: RepairFunction

    def __call__(self, document: Document, stream: Stream, hasher: Hasher) -> Document:
        """The repaired document; the same one if nothing needs repair."""
        return self.function(document, stream, hasher)


def repair(name: str, help_line: str) -> Callable[[RepairFunction], Repair]:
    """Declares a function of (document, stream, hasher) that returns a document as a repair."""
    return partial(Repair, name, help_line)


def known_repairs(settings: Settings) -> dict[str, Repair]:
    """All repairs by name: the built-in ones, then those of the modules in the settings.

    Raises:
        ConfigurationError: a module cannot be imported or has no repairs, or two have the same name.
    """
    known: dict[str, Repair] = {}
    for module in (_BUILT_IN, *settings.repairs):
        repairs = _repairs_in(module)
        if not repairs:
            raise ConfigurationError(
                f"module {module} of STREAMFLOW_REPAIRS has no repair: decorate a function with "
                "@repair(name, help) of streamflow.dead_letters.repairs"
            )
        for repair_ in repairs:
            if known.setdefault(repair_.name, repair_) is not repair_:
                raise ConfigurationError(
                    f"two repairs have the name {repair_.name}: rename the one in {module}"
                )
    return known


def _repairs_in(module: str) -> list[Repair]:
    try:
        members = vars(import_named(module)).values()
    except ConfigurationError as error:
        raise ConfigurationError(f"STREAMFLOW_REPAIRS: {error}") from error
    return [member for member in members if isinstance(member, Repair)]


def choose(settings: Settings, names: Sequence[str]) -> tuple[Repair, ...]:
    """The repairs of these names, in that order; UsageError if one is unknown."""
    known = known_repairs(settings)
    unknown = [name for name in names if name not in known]
    if unknown:
        listed = "; ".join(f"{name} ({known[name].help})" for name in known)
        raise UsageError(f"there is no repair {', '.join(unknown)}: choose from {listed}")
    return tuple(known[name] for name in names)
