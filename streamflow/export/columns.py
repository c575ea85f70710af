"""The columns of an export, as they are read from PostgreSQL. Pure."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from psycopg import sql

from streamflow.postgres.column_types import JSON
from streamflow.postgres.tables import ORIGIN_COLUMNS, event_columns
from streamflow.stream import Stream

# Of these PostgreSQL writes the text: other programs have no such type, or a narrower one.
_AS_TEXT: Final = frozenset((JSON, "interval", "uuid", "numeric"))
_WIDEST: Final = 76  # digits of a decimal of Arrow


class ExportColumn(NamedTuple):
    """A column and its type, as PostgreSQL's ``format_type`` spells it."""

    name: str
    type: str

    @property
    def is_text(self) -> bool:
        """Whether its values are exported as the texts that PostgreSQL makes of them."""
        return self.type in _AS_TEXT or (self.decimal or (0, 0))[0] > _WIDEST

    @property
    def decimal(self) -> tuple[int, int] | None:
        """Digits and decimal places of a numeric type that names them."""
        if not self.type.startswith("numeric("):
            return None
        digits, places = self.type.removeprefix("numeric(").rstrip(")").split(",")
        return int(digits), int(places)


Row = tuple[object, ...]
Identity = tuple[str, int, int]  # topic, partition, offset: where the event first entered the log

# Of an event that was replayed, the record that brought it is the replay.
_QUERY: Final = """
SELECT {columns}, coalesce(r.topic, e.origin_topic), coalesce(r.partition, e.origin_partition),
       coalesce(r."offset", e.origin_offset)
  FROM {table} AS e LEFT JOIN replayed_events AS r USING (origin_topic, origin_partition, origin_offset)
 WHERE e.{time} >= %s AND e.{time} < %s
 ORDER BY e.origin_topic COLLATE "C", e.origin_partition, e.origin_offset
"""


class Columns:
    """The columns of a stream's event table, in the order of the table.

    Attributes:
        query: of the rows from a time on and before another, in the order of their identities, each with
            the topic, partition and offset of the record that brought it.
    """

    def __init__(self, stream: Stream) -> None:
        self.all: Sequence[ExportColumn] = [
            ExportColumn(column.name, column.type) for column in event_columns(stream)
        ]
        self.names = [column.name for column in self.all]
        self._origin = [self.names.index(name) for name in ORIGIN_COLUMNS]
        self.query = sql.SQL(_QUERY).format(
            columns=sql.SQL(", ").join(
                sql.SQL("e.{}::text" if column.is_text else "e.{}").format(
                    sql.Identifier(column.name)
                )
                for column in self.all
            ),
            table=sql.Identifier(stream.event_table),
            time=sql.Identifier(stream.event_time),
        )

    def identity(self, row: Sequence[object]) -> Identity:
        """Of a row, or of the same columns as texts."""
        topic, partition, offset = (row[index] for index in self._origin)
        return str(topic), int(str(partition)), int(str(offset))
