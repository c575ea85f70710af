"""Rows of windows with aggregates, from records of an analytics topic. Pure.

The contract of such a record follows from the declaration of its windows: what each aggregate keeps, with the
types of the columns, since the loader need not know the events.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date, time
from decimal import Decimal
from typing import Annotated, Any, Final
from uuid import UUID

import orjson
from pydantic import AwareDatetime, Field, StringConstraints, create_model, model_validator

from streamflow.aggregates.base import Aggregate
from streamflow.aggregates.distinct import Distinct
from streamflow.aggregates.extremes import First, Last, Max, Min
from streamflow.aggregates.quantiles import Quantiles
from streamflow.aggregates.sums import Count, Mean, Sum
from streamflow.contract import Event, Timestamp
from streamflow.core_schema import FIRST_MOMENT, LAST_MOMENT
from streamflow.decoder import Decoder
from streamflow.errors import ErrorCode
from streamflow.pii_keys import PiiKeys
from streamflow.postgres.rows.events import appended_at, line_of
from streamflow.postgres.windows.naming import private_columns
from streamflow.postgres.windows.tables import WindowTable
from streamflow.records import MAX_OFFSET, Record, Rejection, position_of

_Bound = Annotated[AwareDatetime, Field(ge=FIRST_MOMENT, le=LAST_MOMENT)]
_Offset = Annotated[int, Field(ge=0, le=MAX_OFFSET)]
_Bigint = Annotated[int, Field(ge=-(2**63), lt=2**63, strict=False)]  # as a text where it is long
# As analytics writes it.
_WINDOW: Final = re.compile(rb'\{"window":"([A-Za-z0-9_]+)",')
# What JSON holds for a column of a type.
_TYPES: Final[dict[str, Any]] = {
    "bigint": _Bigint,
    "numeric": Decimal,
    "double precision": float,
    "text": str,
    "boolean": bool,
    "uuid": UUID,
    "date": date,
    "time without time zone": time,
    "interval": Annotated[
        str, StringConstraints(pattern=r"^-?[0-9]{1,9} days [0-9]{1,5}\.[0-9]{6} seconds$")
    ],
    "timestamp with time zone": Timestamp,
}


class WindowPart(Event):
    """What all records of windows with aggregates have."""

    window: str
    window_start: _Bound
    window_end: _Bound
    counted: _Offset
    too_late: _Offset
    partition: Annotated[int, Field(ge=0, lt=2**31)]
    late: bool
    first_offset: _Offset
    last_offset: _Offset

    @model_validator(mode="after")
    def _is_possible(self) -> "WindowPart":
        if self.window_start >= self.window_end:
            raise ValueError("the window ends before it starts")
        events = self.counted + self.too_late
        if not events:
            raise ValueError("it counts nothing")
        if events > self.last_offset - self.first_offset + 1:
            raise ValueError("more events are counted than there are offsets")
        return self


class _MeanState(Event):
    sum: Decimal | None
    count: _Offset


class _ThetaState(Event):
    theta: Annotated[int, Field(gt=0, lt=2**63)]
    hashes: list[Annotated[int, Field(gt=0, lt=2**63)]]


class _KllState(Event):
    values: list[float]
    weights: list[Annotated[int, Field(gt=0, lt=2**63)]]

    @model_validator(mode="after")
    def _is_possible(self) -> "_KllState":
        if len(self.values) != len(self.weights):
            raise ValueError("each value must have a weight")
        return self


class WindowRows:
    """Makes the rows of one table of windows."""

    def __init__(self, table: WindowTable, keys: PiiKeys | None = None) -> None:
        """`keys` lift hashes of older keys; None if there are none."""
        self.table = table.table
        self.topic = table.stream.topic
        self._keys = keys
        self._private = [
            self.table.columns.index(name) for name in private_columns(table.stream, table.spec)
        ]
        self._decoder = Decoder(_contract(table))
        self._states = [_STATES[type(each)][1] for each in table.spec.aggregates.values()]

    def line(self, record: Record, origin_topic: str | None) -> bytes | Rejection:
        """The line of COPY text of a record; its events are of the topic, or of the stream's if that is
        unknown."""
        part: Any = self._decoder.decode(record.value())
        if isinstance(part, Rejection):
            return part
        by = [value for _, value in part.by]
        states = [
            value
            for values_of, (_, state) in zip(self._states, part.aggregates, strict=True)
            for value in values_of(state)
        ]
        row = [
            part.window_start, part.window_end, *by, *states, part.counted, part.too_late,
            part.partition, part.late, part.first_offset, part.last_offset,
            origin_topic or self.topic, *position_of(record), appended_at(record.timestamp()),
        ]  # fmt: skip
        if self._keys is not None:
            for place in self._private:
                row[place] = (self._keys.lifted(row[place]) if row[place] else None) or row[place]
        return line_of(row)


def day_of(line: bytes) -> date:
    """The day, in UTC, of a line: that of the window's start, its first value."""
    return date.fromisoformat(line[:10].decode())


def window_of(value: bytes | None) -> str | None:
    """The windows that a record of an analytics topic says it is of; None for counts of events, and for
    what is no such record: their contract says what is wrong."""
    if value is None or b'"window"' not in value:
        return None
    if match := _WINDOW.match(value):
        return match[1].decode()
    try:
        document = orjson.loads(value)
    except ValueError:
        return None
    name = document.get("window") if isinstance(document, dict) else None
    return name if isinstance(name, str) else None


def rows_of(name: str, windows: Mapping[str, WindowRows]) -> WindowRows | Rejection:
    """What makes the rows of the windows of this name, of those that are declared."""
    return windows.get(name) or _unknown_window(name, list(windows))


def _unknown_window(name: str, known: Sequence[str]) -> Rejection:
    """Why a record of windows that no stream declares becomes no row."""
    listed = ", ".join(sorted(known)) or "none"
    return Rejection(
        ErrorCode.UNKNOWN_TYPE,
        "ValueError",
        f"it is of the windows {name[:63]!r}, which no stream declares (declared are {listed}): declare them "
        "again and replay it, or leave it",
    )


def unfit_window(name: str, why: str) -> Rejection:
    """Why a record of windows becomes no row, as long as their table takes none."""
    what = f"the table of the windows {name} takes no rows of what is declared"
    return Rejection(
        ErrorCode.UNKNOWN_TYPE, "ValueError", f"{what}: replay it once that is mended; {why}"
    )


def _contract(table: WindowTable) -> type[Event]:
    by = _fields({column.name: _TYPES[column.type] | None for column in table.by})
    states = _fields(
        {
            name: _STATES[type(each)][0](_TYPES.get(table.types.get(name, ""), Any))
            for name, each in table.spec.aggregates.items()
        }
    )
    return create_model(
        "WindowPart",
        __base__=WindowPart,
        by=(create_model("By", __base__=Event, **by), ...),
        aggregates=(create_model("Aggregates", __base__=Event, **states), ...),
    )


def _fields(types: Mapping[str, Any]) -> dict[str, Any]:
    """Named by their number: a column may be called as an attribute of pydantic's models."""
    return {
        f"field_{number}": (of, Field(alias=name))
        for number, (name, of) in enumerate(types.items())
    }


def _end_state(of: Any) -> Any:
    """The state of the first or last value."""
    return create_model(
        "EndState", __base__=Event, value=(of, ...), time=(Timestamp, ...), offset=(_Offset, ...)
    )


def _end(state: Any) -> Sequence[Any]:
    return (None, None, None) if state is None else (state.value, state.time, state.offset)


def _array(values: Sequence[Any]) -> str:
    return f"{{{','.join(map(repr, values))}}}"


# Of each aggregate: the type of its state in JSON, given that of its field, and its columns' values.
_STATES: Final[
    dict[type[Aggregate], tuple[Callable[[Any], Any], Callable[[Any], Sequence[Any]]]]
] = {
    Count: (lambda _: _Offset, lambda state: (state,)),
    Sum: (lambda _: Decimal | None, lambda state: (state,)),
    Mean: (lambda _: _MeanState, lambda state: (state.sum, state.count)),
    Min: (lambda of: of | None, lambda state: (state,)),
    Max: (lambda of: of | None, lambda state: (state,)),
    First: (lambda of: _end_state(of) | None, _end),
    Last: (lambda of: _end_state(of) | None, _end),
    Distinct: (lambda _: _ThetaState, lambda state: (state.theta, _array(state.hashes))),
    Quantiles: (lambda _: _KllState, lambda state: (_array(state.values), _array(state.weights))),
}
