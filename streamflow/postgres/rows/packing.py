"""Rows of events in the binary format of COPY: the fast path of the loader.

A row is made for every event, so the loop over the events is compiled for each model, as `dataclasses` does
it: calling a function for each column would take twice as long.
"""

from collections.abc import Callable, Sequence
from keyword import iskeyword
from struct import Struct
from typing import Any, Final, NamedTuple

from streamflow.postgres.rows.binary import NULL_FIELD, SINCE_1970, format_of, pack
from streamflow.postgres.tables import Column

_COUNT: Final = Struct(">h")
_LENGTH: Final = Struct(">i")
_NUMBER: Final = Struct(">iq")  # with its length
_END: Final = Struct(">iqiq")  # time and offset

# Events, their times in microseconds since 1970, their offsets, and the ends of their rows (`tail_of`).
PackRows = Callable[[Sequence[Any], Sequence[int], Sequence[int], Sequence[bytes]], list[bytes]]

_SOURCE: Final = """
def pack_rows(events, times, offsets, tails):
    rows = []
    add = rows.append
    for event, time, offset, tail in zip(events, times, offsets, tails):
        {fields}
        add(join(({parts}end(8, time - since, 8, offset), tail)))
    return rows
"""


class PackedColumn(NamedTuple):
    """How a field of an event becomes one of its row."""

    column: Column
    is_simple: bool = False  # whether its values are exactly str or int, or None where that may be
    constant: bytes | None = None  # length and bytes, the same in each row


class _Lengths(dict[int, bytes]):
    """Lengths as they stand before a field's bytes. Looking up takes half the time of packing."""

    def __missing__(self, length: int) -> bytes:
        return _LENGTH.pack(length)


_LENGTHS: Final = _Lengths({length: _LENGTH.pack(length) for length in range(1_024)})


def packer(
    columns: Sequence[PackedColumn], get: Callable[[Any], tuple[Any, ...]] | None, width: int
) -> PackRows:
    """Makes the rows of events of one type. `pack_rows` raises one of `binary.UNPACKABLE` if a value has no
    certain binary form.

    Args:
        columns: of the table, up to the event time.
        get: reads the fields that are not constant; None if they are attributes.
        width: of the table: how many columns it has.
    """
    lines: list[str] = []
    parts = ["width"]
    names: dict[str, Any] = {
        "width": _COUNT.pack(width),
        "pack": pack,
        "number": _NUMBER.pack,
        "lengths": _LENGTHS,
        "null": NULL_FIELD,
        "end": _END.pack,
        "since": SINCE_1970,
        "join": b"".join,
    }
    varying = [index for index, column in enumerate(columns) if column.constant is None]
    if get is not None:
        lines.append(f"{''.join(f'v{index}, ' for index in varying) or '()'} = get(event)")
        names["get"] = get
    for index, (column, is_simple, constant) in enumerate(columns):
        value, length = f"v{index}", f"n{index}"
        if constant is not None:
            names[value] = constant
            parts.append(value)
            continue
        if get is None:
            lines.append(f"{value} = {_attribute(column.name)}")
        if is_simple and column.type == "bigint" and not column.nullable:
            parts.append(f"number(8, {value})")
            continue
        names[f"f{index}"] = format_of(column.type)
        lines += _to_bytes(value, length, column, is_simple=is_simple, form=f"f{index}")
        parts += [length, value]
    source = _SOURCE.format(
        fields="\n        ".join(lines) or "pass", parts="".join(f"{part}, " for part in parts)
    )
    # Its only input are numbers, and names of fields that are quoted where they are not identifiers.
    exec(compile(source, "<rows>", "exec"), names)  # noqa: S102  # nosec B102
    made: PackRows = names["pack_rows"]
    return made


def _to_bytes(value: str, length: str, column: Column, *, is_simple: bool, form: str) -> list[str]:
    """Statements that turn a value into its bytes, and set their length."""
    if not (is_simple and column.type == "text"):
        return [
            f"{value} = pack({form}, {value})",
            f"{length} = null if {value} is None else lengths[len({value})]",
            f"{value} = {value} or b''",
        ]
    if not column.nullable:
        return [f"{value} = {value}.encode()", f"{length} = lengths[len({value})]"]
    return [
        f"if {value} is None: {value}, {length} = b'', null",
        f"else: {value} = {value}.encode(); {length} = lengths[len({value})]",
    ]


def _attribute(name: str) -> str:
    # Python compares identifiers in a normal form, and attributes as they are.
    is_identifier = name.isascii() and name.isidentifier() and not iskeyword(name)
    return f"event.{name}" if is_identifier else f"getattr(event, {name!r})"


def tail_of(fields: Sequence[bytes | None]) -> bytes:
    """The end of a row, equal for all that the broker appended together."""
    return b"".join(
        NULL_FIELD if field is None else len(field).to_bytes(4, "big") + field for field in fields
    )
