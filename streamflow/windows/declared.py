"""What is wrong with the windows of a declaration, in a sentence each. Pure."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from difflib import get_close_matches
from typing import Any, Final

from streamflow import extras
from streamflow.decoder import Decoder
from streamflow.names import table_fault
from streamflow.stream import Stream
from streamflow.windows.fields import Field, NoField, field_at, wrong_default
from streamflow.windows.progress import COUNTS, fits
from streamflow.windows.specs import CountedWindows, Windows, column_of

# Kinds of fields to group by. A float or a time is a measure: nearly every event would be a group of its own.
GROUPING: Final = frozenset(("text", "integer", "decimal", "boolean", "uuid", "date"))
# Columns of the tables of windows, and of their totals, besides those of groups and aggregates.
OWN_COLUMNS: Final = frozenset((
    "window_start", "window_end", "counted", "too_late", "partition", "late", "first_offset",
    "last_offset", "origin_topic", "record_topic", "record_partition", "record_offset", "appended_at",
    "loaded_at", "session_start", "session_end", "computed_at", "tableoid", "xmin", "cmin", "xmax", "cmax",
    "ctid",
))  # fmt: skip
_LONGEST_COLUMN: Final = 63  # bytes; PostgreSQL cuts the rest off
_MOST_BYTES: Final = 900_000  # of a record; a broker takes 1 MiB
_BY_BYTES: Final = 2_048  # of a value that events are grouped by; a character may take six


def window_faults(stream: Stream) -> Iterator[str]:
    if wrong := [f"windows: {fault}" for each in stream.windows for fault in each.faults()]:
        yield from wrong
        return
    plain = [each for each in stream.windows if not each.aggregates]
    if len(plain) > 1:
        yield (
            f"it declares {len(plain)} windows without aggregates, and only one can count into {COUNTS}: "
            "give the others aggregates, as in events=Count(), and with that tables of their own"
        )
    tables = Counter(each.table_of(stream.table) for each in stream.windows if each.aggregates)
    for table, number in tables.items():
        if number > 1:
            yield f"{number} of its windows have one table, {table}: give one of them a name="
        if fault := table_fault(table):
            yield f"the table {table[:80]} of its windows {fault}: give them a name="
    names = [
        COUNTS if not each.aggregates else each.table_of(stream.table) for each in stream.counted
    ]
    if not fits(names):
        yield (
            f"it declares {len(names)} windows, and there is no room for what is kept of so many beside an "
            "offset: declare fewer, or give them shorter names"
        )
    for spec in stream.windows:
        if spec.aggregates:
            yield from _aggregates(stream, spec)


def _aggregates(stream: Stream, spec: Windows) -> Iterator[str]:
    own = f"the windows {spec.table_of(stream.table)}"
    for path in spec.by_fields:
        yield from _by(stream.decoder, own, path)
    for name, each in spec.aggregates.items():
        if each.field is None:
            continue
        field = _field(stream.decoder, each.field, everywhere=False)
        what = f"{name} of {own}"
        if each.extra is not None and not extras.is_installed(each.extra):
            yield f"{what}: {extras.missing(type(each).__name__, each.extra)}"
        if isinstance(field, str):
            yield f"{what}: {field}"
        elif field.kind not in each.takes:
            yield f"{what}: {type(each).__name__} takes {each.takes_words}, and {each.field} is none"
        else:
            yield from _defaults(stream.decoder, what, field)
    yield from _columns(own, spec)
    if isinstance(spec, CountedWindows):
        most = _BY_BYTES * len(spec.by_fields) + sum(
            each.most_bytes() for each in spec.aggregates.values()
        )
        if most > _MOST_BYTES:
            yield (
                f"a record of {own} may take {most:,} bytes, and there is room for {_MOST_BYTES:,}: choose a "
                "smaller lg_k or k, or declare other windows for some of the aggregates"
            )


def _by(decoder: Decoder, own: str, path: str) -> Iterator[str]:
    field = _field(decoder, path, everywhere=True)
    if isinstance(field, str):
        yield f"by of {own}: {field}"
    elif field.kind not in GROUPING:
        yield (
            f"{own} cannot group by {path}: it must be a text, a whole number, a Decimal, a bool, an Enum, a "
            "UUID or a date"
        )
    else:
        yield from _defaults(decoder, f"by of {own}", field)


def _field(decoder: Decoder, path: str, *, everywhere: bool) -> Field | str:
    """The field, or why there is none."""
    try:
        return field_at(decoder, path, everywhere=everywhere)
    except NoField as error:
        if error.fields is None:
            return f"{error.owner} is no model, so it has no field {error.name}"
        near = get_close_matches(error.name, error.fields, 1)
        hint = f"did you mean {near[0]}?" if near else f"its fields are {', '.join(error.fields)}"
        return f"{error.owner} has no field {error.name}: {hint}"


def _defaults(decoder: Decoder, what: str, field: Field) -> Iterator[str]:
    if path := wrong_default(decoder, field.path):
        yield (
            f"{what}: the default of {path} is not of its type, and pydantic converts no defaults: write one "
            "that is; a number is finite, a datetime has a zone"
        )
    has_factory: Callable[[Any], bool] = lambda part: "default_factory" in part  # noqa: E731
    if any(decoder.definitions.holds(schema, has_factory) for schema in field.schemas):
        yield (
            f"{what}: {field.path} must not have a default_factory, with which each worker that reads an "
            "event makes another value: give it a plain default, or none"
        )


def _columns(own: str, spec: Windows) -> Iterator[str]:
    for path, number in Counter(spec.by_fields).items():
        if number > 1:
            yield f"by of {own} names {path} {number} times: once is enough"
    of_table, of_totals = _owners(spec)
    for name in spec.aggregates:
        if not name.isidentifier():
            yield f"{name[:80]!r} of {own} is no plain name: use letters, digits and _"
    for column, owners in (of_table | of_totals).items():
        shared = next((own for own in (of_table, of_totals) if len(own.get(column, ())) > 1), None)
        if column in OWN_COLUMNS:
            yield (
                f"{owners[0]} of {own} needs a column {column}, and all windows have one of that name: give "
                "it another name"
            )
        elif len(column.encode()) > _LONGEST_COLUMN:
            yield (
                f"{own} would have a column {column}, which is longer than {_LONGEST_COLUMN} bytes, and "
                "PostgreSQL cuts it off: shorten the name"
            )
        elif shared is not None:
            both = " and ".join(shared[column])
            yield f"{own} would have two columns {column}, of {both}: give one of them another name"


class _ColumnOwners(dict[str, list[str]]):
    """What needs a column, in words, by the column."""

    def add(self, owner: str, columns: Sequence[str]) -> None:
        for column in columns:
            self.setdefault(column, []).append(owner)


def _owners(spec: Windows) -> tuple[_ColumnOwners, _ColumnOwners]:
    """Of the columns of the table, and of the totals."""
    of_table, of_totals = _ColumnOwners(), _ColumnOwners()
    for path in dict.fromkeys(spec.by_fields):
        of_table.add(f"the field {path}", [column_of(path)])
        of_totals.add(f"the field {path}", [column_of(path)])
    for name, each in spec.aggregates.items():
        # Sessions have finished values only.
        if isinstance(spec, CountedWindows):
            of_table.add(f"the aggregate {name}", [name + suffix for suffix in each.suffixes])
        of_totals.add(f"the aggregate {name}", each.results(name))
    return of_table, of_totals
