"""What is wrong with the arguments of an object that stands in a declaration."""

from typing import Any


def kept_faults(made: Any) -> tuple[str, ...]:
    found: tuple[str, ...] = made.kept_faults
    return found
