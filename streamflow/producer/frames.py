"""Rows of a pandas DataFrame as documents. Imports no pandas: whoever has a frame has done so."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from streamflow.errors import UsageError
from streamflow.producer.documents import LARGEST_EXACT, PLAIN, FieldKind

if TYPE_CHECKING:
    import pandas as pd

_ABSENT: Final = object()


def documents_of(
    frame: "pd.DataFrame", kinds: Mapping[str, FieldKind], timezone: str | None
) -> Iterator[dict[str, Any]]:
    """The document of each row, with what is there: a missing value (NaN, NaT, None, ``pd.NA``) is an absent
    field, or null where the contract wants the field. The index is not sent.

    Args:
        kinds: the contract's fields, by their names in JSON.
        timezone: of times that have no zone; None if there may be none.

    Raises:
        UsageError: columns are not named, or twice by the same name, or hold times without a zone.
    """
    names = list(frame.columns)
    if not all(isinstance(name, str) for name in names):
        raise UsageError(
            "a column's name is not a text: name the columns as the contract's fields are called"
        )
    if len(set(names)) < len(names):
        raise UsageError("two columns have the same name: rename or drop one")
    columns = [
        _values(frame[name], name, kinds.get(name, PLAIN), known=name in kinds, timezone=timezone)
        for name in names
    ]
    if not names:
        return iter([{} for _ in range(len(frame))])
    return (
        {name: value for name, value in zip(names, row, strict=True) if value is not _ABSENT}
        for row in zip(*columns, strict=True)
    )


def _values(
    column: "pd.Series[Any]", name: str, kind: FieldKind, *, known: bool, timezone: str | None
) -> list[Any]:
    missing = column.isna()
    if column.dtype.kind == "M":
        column = _in_utc(column, name if known else "(undeclared)", timezone)
    elif column.dtype.kind == "f" and kind.is_int and _is_whole(column[~missing]):
        # With a missing value among them, pandas makes floats of whole numbers.
        column = column.astype(object).where(missing, column.fillna(0).astype("int64"))
    values: list[Any] = column.tolist()
    absent = None if kind.must_be_there else _ABSENT
    return [absent if gone else value for value, gone in zip(values, missing.tolist(), strict=True)]


def _in_utc(column: "pd.Series[Any]", name: str, timezone: str | None) -> "pd.Series[Any]":
    if column.dt.tz is None:
        if timezone is None:
            raise UsageError(
                f'column {name}: its times have no zone: say which with timezone="UTC", or another'
            )
        try:
            column = column.dt.tz_localize(timezone)
        except (ValueError, TypeError, KeyError) as error:
            raise UsageError(
                f"column {name}: not every time exists, just once, in the zone {timezone}: convert them "
                "with frame[...].dt.tz_localize"
            ) from error
    converted: pd.Series[Any] = column.dt.tz_convert("UTC")
    return converted


def _is_whole(column: "pd.Series[Any]") -> bool:
    return bool(((column % 1 == 0) & (column.abs() <= LARGEST_EXACT)).all())
