"""What changes from a table that is there to the contract that is wanted: safe, a step, or breaking. Pure.

`classify` judges the columns. What they do not show, as a value that an Enum has no more, show the rows:
`judge_rows` reads stored ones with the contract that is wanted.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any, Final, NamedTuple

from streamflow.contract import Event
from streamflow.postgres.rows.read_back import event_of
from streamflow.postgres.tables import UNKNOWN_FIELDS, Column, event_columns, event_table
from streamflow.records import Rejection
from streamflow.stream import Stream
from streamflow.trace_context import TRACEPARENT
from streamflow.units import counted, either
from streamflow.user_code import name_of_fault

_NUMERIC: Final = re.compile(r"numeric(?:\((\d+),(-?\d+)\))?")
_FAULTS: Final = 3  # that are shown
_NEW_FIELD: Final = (
    "give the field a new name, and the column that is there stays; or give the stream a new name and a new "
    "table"
)


class Level(StrEnum):
    SAFE = "safe"
    STEP = "needs a step"
    BREAKING = "breaking"


_ORDER: Final = list(Level)


class Change(NamedTuple):
    """One change, and how to make it; nothing is to be done for a safe one that has no `way`."""

    level: Level
    what: str
    way: str = ""
    field: str = ""


class ExistingColumn(NamedTuple):
    type: str  # as PostgreSQL's ``format_type`` spells it
    nullable: bool
    filled: bool = False  # by a default, where no value is given

    @property
    def may_be_left_out(self) -> bool:
        return self.nullable or self.filled


class StoredTable(NamedTuple):
    """A stream's table as it is in a database; without columns if there is none."""

    columns: Mapping[str, ExistingColumn]
    partitioned_by: str | None


def widens_in_place(found: str, wanted: str) -> bool:
    """Whether a column's type can become another without a look at its rows: more digits before the
    point."""
    one, two = _NUMERIC.fullmatch(found), _NUMERIC.fullmatch(wanted)
    if one is None or two is None or one[1] is None or found == wanted:
        return False
    return two[1] is None or (one[2] == two[2] and int(two[1]) > int(one[1]))


def converts(found: str, wanted: str) -> bool:
    """Whether every value of a column's type is one of the other, but the rows must be written anew."""
    two = _NUMERIC.fullmatch(wanted)
    if two is None:
        return False
    if found == "bigint":
        return two[1] is None or int(two[1]) - int(two[2]) >= len(str(2**63))
    one = _NUMERIC.fullmatch(found)
    if one is None or one[1] is None or two[1] is None:
        return False
    digits, places = int(one[1]), int(one[2])
    return int(two[2]) > places and int(two[1]) - int(two[2]) >= digits - places


def classify(stored: StoredTable, stream: Stream) -> list[Change]:
    """What changes between a table and the table that a stream wants."""
    table = event_table(stream).name
    if not stored.columns:
        return [Change(Level.SAFE, f"the table {table} is new")]
    changes = []
    if stored.partitioned_by not in (None, stream.event_time):
        changes.append(
            Change(
                Level.BREAKING,
                f"the event time becomes `{stream.event_time}`, and {table} is partitioned by "
                f"`{stored.partitioned_by}`",
                "give the stream a new name and a new table, or keep "
                f"event_time={stored.partitioned_by!r}",
                stream.event_time,
            )
        )
    columns = event_columns(stream)
    for column in columns:
        known = stored.columns.get(column.name)
        if known is None:
            changes.append(_added(stream, column))
        elif known.type != column.type:
            changes.append(_retyped(table, column, known))
        elif column.nullable and not known.nullable:
            changes.append(_loosened(column))
    declared = {column.name for column in columns}
    changes += [
        _dropped(table, name, known)
        for name, known in stored.columns.items()
        if name not in declared
    ]
    return changes


def merged(columns: Iterable[Change], rows: Iterable[Change]) -> list[Change]:
    """Changes by columns and by rows; of those of one field the worst, and of two alike the first."""
    kept: dict[str, Change] = {}
    for number, change in enumerate((*columns, *rows)):
        name = change.field or f"#{number}"
        if name not in kept or _ORDER.index(change.level) > _ORDER.index(kept[name].level):
            kept[name] = change
    return list(kept.values())


def level_of(changes: Iterable[Change]) -> Level:
    """That of the worst."""
    return max((change.level for change in changes), key=_ORDER.index, default=Level.SAFE)


def _added(stream: Stream, column: Column) -> Change:
    if column.name == UNKNOWN_FIELDS:
        return Change(Level.SAFE, "fields that the contract does not declare are kept")
    if column.name == TRACEPARENT and stream.trace:
        return Change(Level.SAFE, "rows keep the trace of their record")
    if all(
        column.name in model.model_fields and model.model_fields[column.name].is_required()
        for model in stream.decoder.models
    ):
        return Change(
            Level.STEP,
            f"`{column.name}` is a new required field: events without it become dead letters, also those "
            "that are in Kafka already; its column is empty in the rows that are there",
            _required_step(stream),
            column.name,
        )
    return Change(Level.SAFE, f"`{column.name}` is a new optional field", field=column.name)


def _required_step(stream: Stream) -> str:
    if stream.unknown_fields == "forbid":
        return (
            "deploy it as an optional field first, then the producers that send it, and require it when the "
            "workers have read the events without it"
        )
    return "deploy the producers that send it first, and this when the workers have read what came before"


def _retyped(table: str, column: Column, known: ExistingColumn) -> Change:
    name, found, wanted = column.name, known.type, column.type
    if widens_in_place(found, wanted):
        return Change(
            Level.STEP,
            f"`{name}` is widened from {found} to {wanted}",
            "run `streamflow db upgrade`, as `init` and `up` do, before a producer sends larger numbers",
            name,
        )
    if converts(found, wanted):
        return Change(
            Level.STEP,
            f"`{name}` becomes {wanted}, and its column is {found}",
            f"run ALTER TABLE {_quoted(table)} ALTER COLUMN {_quoted(name)} TYPE {wanted}, which writes the "
            "table anew and locks it meanwhile, and then deploy",
            name,
        )
    return Change(
        Level.BREAKING, f"`{name}` becomes {wanted}, and its column is {found}", _NEW_FIELD, name
    )


def _loosened(column: Column) -> Change:
    return Change(
        Level.STEP,
        f"`{column.name}` becomes optional, and its column must have a value",
        "run `streamflow db upgrade`, as `init` and `up` do, before a producer leaves the field out",
        column.name,
    )


def _dropped(table: str, name: str, known: ExistingColumn) -> Change:
    if known.may_be_left_out:
        return Change(
            Level.SAFE,
            f"`{name}` is no field any more: its column stays, empty in new rows",
            "",
            name,
        )
    return Change(
        Level.BREAKING,
        f"`{name}` is no field any more, and its column must have a value",
        f"keep the field as optional, or run ALTER TABLE {_quoted(table)} ALTER COLUMN {_quoted(name)} DROP "
        "NOT NULL",
        name,
    )


def judge_rows(
    stream: Stream,
    stored: StoredTable,
    rows: Sequence[Mapping[str, Any]],
    examples: Mapping[type[Event], Event],
) -> list[Change]:
    """What stored rows show of a change: the newest are like the events that producers send today.

    Args:
        stream: as it is wanted.
        stored: its table as it is.
        rows: of it, as psycopg reads them.
        examples: a valid event of each model, whose values stand for those that a row lacks.
    """
    types = {column.name: column.type for column in event_columns(stream)}
    # Their columns are judged already.
    retyped = {
        name
        for name, known in stored.columns.items()
        if name in types
        and types[name] != known.type
        and not widens_in_place(known.type, types[name])
        and not converts(known.type, types[name])
    }
    invalid, faults = 0, Counter[str]()
    lacking: Counter[str] = Counter()
    for row in rows:
        given = {name: value for name, value in row.items() if name not in retyped}
        wrong = _faults(stream, given)
        if not wrong:
            continue
        if names := _missing(stream, given, examples):
            lacking.update(name for name in names if name not in retyped)
        else:
            invalid += 1
            faults.update(wrong)
    return [
        *_rejected(invalid, faults, len(rows)),
        *_lacking(stream, lacking, len(rows)),
        *_still_sent(stream, stored, rows),
    ]


def _faults(stream: Stream, row: Mapping[str, Any]) -> tuple[str, ...]:
    """Why a row is no valid event; empty for one that is."""
    try:
        event = event_of(stream, row)
    except BaseException as error:  # noqa: BLE001 (types and validators of the user's own)
        return (f"reading it raises {name_of_fault(error)}",)
    return (event.faults or (event.message,)) if isinstance(event, Rejection) else ()


def _missing(
    stream: Stream, row: Mapping[str, Any], examples: Mapping[type[Event], Event]
) -> list[str]:
    """The required fields that a row only lacks to be a valid event: it is one with those of an example."""
    definitions = stream.decoder.definitions
    for model, example in examples.items():
        fields = stream.decoder.fields_of(model)
        lacking = {
            name: getattr(example, name)
            for name, field in model.model_fields.items()
            if row.get(name) is None
            and field.is_required()
            and not definitions.is_nullable(fields[name])
        }
        if lacking and not _faults(stream, {**row, **lacking}):
            return list(lacking)
    return []


def _rejected(invalid: int, faults: Counter[str], among: int) -> list[Change]:
    """Of rows that are invalid, each with one fault or more."""
    if not invalid:
        return []
    told = [f"{fault} ({count:,})" for fault, count in faults.most_common(_FAULTS)]
    if len(faults) > _FAULTS:
        told.append(f"and {counted(len(faults) - _FAULTS, 'other fault')}")
    return [
        Change(
            Level.BREAKING,
            f"{invalid:,} of {counted(among, 'newest row')} "
            f"{either(invalid, 'is no valid event', 'are no valid events')} "
            f"any more: "
            f"{'; '.join(told)}",
            "let the contract accept such events as well; or give the stream a new name and a new table, and "
            "let the producers move there",
        )
    ]


def _lacking(stream: Stream, lacking: Counter[str], among: int) -> list[Change]:
    return [
        Change(
            Level.STEP,
            f"`{name}` is required, and {count:,} of {counted(among, 'newest row')} "
            f"{either(count, 'has', 'have')} none: such events become "
            "dead letters",
            _required_step(stream),
            name,
        )
        for name, count in lacking.items()
    ]


def _still_sent(
    stream: Stream, stored: StoredTable, rows: Sequence[Mapping[str, Any]]
) -> list[Change]:
    """Fields that are gone, and that producers still send."""
    if stream.unknown_fields != "forbid":
        return []
    # A trace is in a record's headers, and not sent as a field.
    declared = {TRACEPARENT, *(column.name for column in event_columns(stream))}
    sent = Counter(
        name
        for row in rows
        for name in stored.columns
        if name not in declared and row.get(name) not in (None, {})
    )
    return [
        Change(
            Level.STEP,
            f"`{name}` is no field any more, and {count:,} of {counted(len(rows), 'newest row')} "
            f"{either(count, 'has', 'have')} it: such events "
            "become dead letters",
            "deploy the producers that do not send it first, or declare the stream with "
            'unknown_fields="ignore"',
            name,
        )
        for name, count in sent.items()
        # A default fills in what no event has.
        if not stored.columns[name].filled
    ]


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
