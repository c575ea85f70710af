"""Events that windows cannot aggregate, because code of the user's own fails (G14). Pure."""

from collections.abc import Callable, Sequence

from streamflow.contract import Event
from streamflow.decoder import Decoder
from streamflow.records import Rejection, changes_event, processing_failed
from streamflow.unchanged import contents_of, is_same
from streamflow.windows.fields import DOCUMENT, Field, field_at, judge, value_of
from streamflow.windows.specs import Windows

_Check = Callable[[Event], object]


def aggregation_faults(
    decoder: Decoder, windows: dict[str, Windows], *, has_own_code: bool
) -> Callable[[Event], Rejection | None] | None:
    """Says why an event that the contract has accepted cannot be aggregated; None if each can: without a
    `where` and code of the contract's own, that is. `windows`: by the names of their tables."""
    conditions = condition_faults(decoder, windows)
    checks = [
        (f"the value of {path} for the windows {table}", check)
        for table, spec in windows.items()
        if has_own_code
        for path, check in _of_fields(decoder, spec)
    ]
    if not checks:
        return conditions

    def fault(event: Event) -> Rejection | None:
        found = None if conditions is None else conditions(event)
        return found or _first_fault(checks, event)

    return fault


def condition_faults(
    decoder: Decoder, windows: dict[str, Windows]
) -> Callable[[Event], Rejection | None] | None:
    """As `aggregation_faults`, of each `where` only: it must answer, and leave the event as it is, since
    other aggregates and the stream's table have the same one."""
    checks: list[tuple[str, _Check]] = [
        (f"where of {name} of the windows {table}", where)
        for table, spec in windows.items()
        for name, where in spec.conditions.items()
    ]
    if not checks:
        return None
    contents = contents_of(decoder)

    def fault(event: Event) -> Rejection | None:
        before = contents(event)
        for what, where in checks:
            try:
                bool(where(event))
                is_unchanged = is_same(before, contents(event))
            except BaseException as error:  # noqa: BLE001 (of the user; fails only this record)
                return processing_failed(what, error)
            if not is_unchanged:
                return changes_event(what)
        return None

    return fault


def _first_fault(checks: Sequence[tuple[str, _Check]], event: Event) -> Rejection | None:
    for what, check in checks:
        try:
            check(event)
        except BaseException as error:  # noqa: BLE001 (of the user; fails only this record)
            return processing_failed(what, error)
    return None


def _of_fields(decoder: Decoder, spec: Windows) -> Sequence[tuple[str, _Check]]:
    paths = {*spec.by_fields, *(each.field for each in spec.aggregates.values() if each.field)}
    return [(path, _check_of(field_at(decoder, path, everywhere=False))) for path in sorted(paths)]


def _check_of(field: Field) -> _Check:
    """Whether a value is what the contract's type says: a validator of the user's own may make anything."""
    get, kind = field.get, field.kind
    if kind == DOCUMENT:
        return get
    return lambda event: judge(value_of(get(event)) if field.of_enum else get(event), kind)
