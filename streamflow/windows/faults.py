"""Events that windows cannot aggregate, because code of the user's own fails (G14). Pure."""

from collections.abc import Callable, Sequence
from typing import Any

from streamflow.contract import Event
from streamflow.decoder import Decoder
from streamflow.records import Rejection, processing_failed
from streamflow.windows.fields import DOCUMENT, Field, field_at, judge, value_of
from streamflow.windows.specs import Windows

_Check = Callable[[Event], object]


def aggregation_faults(
    decoder: Decoder, windows: dict[str, Windows], *, has_own_code: bool
) -> Callable[[Event], Rejection | None] | None:
    """Says why an event that the contract has accepted cannot be aggregated; None if each can: without a
    `where` and code of the contract's own, that is. `windows`: by the names of their tables."""
    checks: list[tuple[str, _Check]] = []
    for table, spec in windows.items():
        for name, where in spec.conditions.items():
            checks.append((f"where of {name} of the windows {table}", _truth_of(where)))
        if has_own_code:
            checks += [
                (f"the value of {path} for the windows {table}", check)
                for path, check in _of_fields(decoder, spec)
            ]
    if not checks:
        return None

    def fault(event: Event) -> Rejection | None:
        for what, check in checks:
            try:
                check(event)
            except BaseException as error:  # noqa: BLE001 (of the user; fails only this record)
                return processing_failed(what, error)
        return None

    return fault


def _truth_of(where: Callable[[Any], bool]) -> _Check:
    return lambda event: bool(where(event))


def _of_fields(decoder: Decoder, spec: Windows) -> Sequence[tuple[str, _Check]]:
    paths = {*spec.by_fields, *(each.field for each in spec.aggregates.values() if each.field)}
    return [(path, _check_of(field_at(decoder, path, everywhere=False))) for path in sorted(paths)]


def _check_of(field: Field) -> _Check:
    """Whether a value is what the contract's type says: a validator of the user's own may make anything."""
    get, kind = field.get, field.kind
    if kind == DOCUMENT:
        return get
    return lambda event: judge(value_of(get(event)) if field.of_enum else get(event), kind)
