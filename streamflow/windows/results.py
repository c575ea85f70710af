"""Results of windows as the records of the analytics topic have them. Pure."""

from datetime import datetime, timedelta
from typing import Any, Final

from streamflow.contract import PYDANTIC_UTC, format_time
from streamflow.core_schema import FIRST_MOMENT, LAST_MOMENT
from streamflow.durations import MILLISECOND
from streamflow.groups import group_text
from streamflow.windows.counting import WindowResult

# With the zone object of the times that it is subtracted from: half as slow.
EPOCH: Final = datetime(1970, 1, 1, tzinfo=PYDANTIC_UTC)
# Of the calendar, in milliseconds since the epoch.
_FIRST: Final = (FIRST_MOMENT - EPOCH) // MILLISECOND
_LAST: Final = (LAST_MOMENT - EPOCH) // MILLISECOND


def key_and_body(result: WindowResult, partition: int) -> tuple[bytes, dict[str, Any]]:
    """Key and value of the record of a result, of a source partition."""
    plan = result.plan
    times = {"window_start": _format(result.start), "window_end": _format(result.end)}
    counted = {
        "partition": partition,
        "late": result.late,
        "first_offset": result.first_offset,
        "last_offset": result.last_offset,
    }
    if not plan.names:
        body = {**times, "event_type": result.group, "count": result.counted, **counted}
        return result.group.encode(), body
    by = plan.by_values(result.group)
    body = {
        "window": plan.name,
        **times,
        "by": by,
        "aggregates": result.aggregates,
        "counted": result.counted,
        "too_late": result.too_late,
        **counted,
    }
    return " ".join((plan.name, *map(group_text, by.values()))).encode(), body


def _format(milliseconds: int) -> str:
    """A window of an event near the ends of the calendar may reach beyond it."""
    within = max(_FIRST, min(milliseconds, _LAST))
    return format_time(EPOCH + timedelta(milliseconds=within))
