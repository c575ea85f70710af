"""Whether the tables of windows have names of their own, beside all others. Pure."""

from collections.abc import Iterator, Mapping, Sequence

from streamflow.names import derives, totals_name
from streamflow.stream import Stream

_RENAME = 'give the windows another name (name="…")'


def window_name_faults(stream: Stream) -> Iterator[str]:
    """What the windows of a stream are called like, of the tables of that stream."""
    names = dict.fromkeys(_tables(stream))
    for name in names:
        rest = {other: "another of its windows" for other in names if other != name}
        yield from _clashes(name, _others(stream) | rest)


def window_name_clashes(stream: Stream, other: Stream) -> Iterator[str]:
    """The names of windows' tables that two streams cannot both have."""
    theirs = dict.fromkeys((*_others(other), *_tables(other)), f"stream {other.name}")
    for name in _tables(stream):
        yield from _clashes(name, theirs)
    for name in _tables(other):
        for own, what in _others(stream).items():
            if _clash(name, own):
                yield (
                    f"{what}, {own}, has the name of {name}, the table of windows of stream {other.name}, or "
                    "of a part of it: give one of them another name"
                )


def _tables(stream: Stream) -> list[str]:
    """The names as declared: one may be there twice."""
    return [each.table_of(stream.table) for each in stream.windows if each.aggregates]


def _others(stream: Stream) -> dict[str, str]:
    """A stream's tables that are of no windows, and what they are."""
    tables: Sequence[str] = (stream.table, *stream.tables)
    return {rollup.table: "its rollup" for rollup in stream.rollups} | dict.fromkeys(
        tables, "its table"
    )


def _clashes(name: str, others: Mapping[str, str]) -> Iterator[str]:
    for other, whose in others.items():
        if _clash(name, other):
            yield (
                f"the table {name} of its windows, or its view {totals_name(name)}, has the name of {other} "
                f"({whose}), or of a part of it: {_RENAME}"
            )
            return


def _clash(name: str, other: str) -> bool:
    """Whether a table of windows, with its view, cannot be beside another table."""
    made = (name, totals_name(name), f"{name}_record")
    return other in made or derives(name, other) or any(derives(other, each) for each in made)
