"""Which columns of a table of windows may name a person, and what is left in them (G16). Pure."""

from typing import Final

from streamflow.aggregates.distinct import Distinct
from streamflow.aggregates.extremes import First, Last
from streamflow.postgres.forgotten import ERASED, ERASED_HASH, USER
from streamflow.postgres.windows.tables import WindowTable, sources_of
from streamflow.stream import Stream
from streamflow.windows.specs import Windows

_TEXT: Final = "text"


def names_person(stream: Stream, path: str) -> bool:
    """Whether a field names a user, or holds hashes: others may say who somebody is, and nobody knows it."""
    return path == USER or _is_private(stream, path)


def _is_private(stream: Stream, path: str) -> bool:
    return path.rpartition(".")[2] in stream.decoder.private_fields


def naming_columns(table: WindowTable, *, of_user: bool) -> dict[str, str | None]:
    """The columns with values of events that may be names of users, or hold hashes of addresses, and what is
    left in them. Of a group that is a text, so that the group of events without a value does not grow."""
    types = {column.name: column.type for column in table.columns}
    groups = {column.name for column in table.by if column.type == _TEXT}

    def blank(name: str, path: str) -> str | None:
        if name not in groups:
            return None
        return ERASED_HASH if _is_private(table.stream, path) else ERASED

    return {
        name: blank(name, path)
        for name, path in sources_of(table.spec).items()
        if (path == USER if of_user else types[name] == _TEXT)
    }


def naming_sketches(table: WindowTable, *, of_user: bool) -> list[str]:
    """The columns with hashes of such values."""
    return [
        f"{name}{each.suffixes[1]}"
        for name, each in table.spec.aggregates.items()
        if isinstance(each, Distinct)
        and (each.field == USER if of_user else table.types[name] == _TEXT)
    ]


def private_columns(stream: Stream, spec: Windows) -> list[str]:
    """The columns with hashes, as the events have them."""
    return [name for name, path in sources_of(spec).items() if _is_private(stream, path)]


def private_sketches(table: WindowTable) -> list[str]:
    """The aggregates that count different hashes."""
    return [
        name
        for name, each in table.spec.aggregates.items()
        if isinstance(each, Distinct) and _is_private(table.stream, str(each.field))
    ]


def end_columns(table: WindowTable) -> dict[str, str]:
    """The columns with the value of one event, and those with its offset."""
    return {
        f"{name}{each.suffixes[0]}": f"{name}{each.suffixes[2]}"
        for name, each in table.spec.aggregates.items()
        if isinstance(each, First | Last)
    }


def erased_place(table: str) -> str:
    """What `erased_records` calls the emptied rows of a table of windows."""
    return f"windows {table}"
