"""Dagster's instance, kept from one evaluation of a sensor or schedule to the next."""

import threading
from typing import Any, Final

import dagster as dg

_guard: Final = threading.Lock()
# At most one: its reference, whose type Dagster does not export, and itself.
_kept: Final[list[tuple[Any, dg.DagsterInstance]]] = []


def kept_instance(
    context: dg.SensorEvaluationContext | dg.ScheduleEvaluationContext,
) -> dg.DagsterInstance:
    """The instance of the context, but the same one each time.

    `context.instance` is built anew for each evaluation, with a SQLAlchemy dialect of its own. Its first
    question for runs reads the columns of the table, and SQLAlchemy keeps the last 128 dialects that did
    so (`lru_cache` in `sqlalchemy.dialects.postgresql.base`), of about 0.2 MB each.
    """
    reference = context.instance_ref
    if reference is None:  # in tests
        return context.instance
    with _guard:
        for known, instance in _kept:
            if known == reference:
                return instance
        _kept[:] = [(reference, dg.DagsterInstance.from_ref(reference))]
        return _kept[0][1]
