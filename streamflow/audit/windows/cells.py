"""Events and parts of windows with aggregates by cell, in SQL. Pure.

A cell is a window (of overlapping ones, a pane) and a group in it. What was emitted is judged as `counts`
judges it, from the offset on from which the windows count (`since`).

Some events are counted, and no row tells their values: refused ones, duplicates, and those of forgotten
persons. In a window with one of these the groups are not told apart: it is one *blurred* cell, of which only
the number of events is compared; so is each window whose groups the rows do not tell.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from psycopg import sql

from streamflow.audit.windows.values import value_sql
from streamflow.postgres.tables import Column
from streamflow.postgres.windows.tables import WindowTable
from streamflow.stream import Stream

Named = tuple[str, sql.Composable]  # a column, and its expression

# No query has a name that a table can have. Columns of users are named with their table, and where they stand
# beside ours they get names of ours, or ours have a space in them.
_READ: Final = """
SELECT e.{time} AS event_time, e.appended_at, e.origin_offset AS position{columns}
  FROM {events} AS e
 WHERE e.origin_topic = %(topic)s AND e.origin_partition = %(partition)s
   AND e.origin_offset >= %(since)s AND e.origin_offset < %(position)s {no_tombstone}
   AND NOT EXISTS (SELECT FROM replayed_events AS r
                    WHERE (r.origin_topic, r.origin_partition, r.origin_offset)
                        = (e.origin_topic, e.origin_partition, e.origin_offset))
UNION ALL
SELECT e.{time}, e.appended_at, r."offset"{columns}
  FROM replayed_events AS r JOIN {events} AS e USING (origin_topic, origin_partition, origin_offset)
 WHERE r.topic = %(topic)s AND r.partition = %(partition)s
   AND r."offset" >= %(since)s AND r."offset" < %(position)s {no_tombstone}
"""
_WITHOUT_ROWS: Final = """
SELECT d.event_time, coalesce(d.appended_at, 'infinity') AS appended_at, d."offset" AS position{nulls}
  FROM duplicates AS d
 WHERE d.topic = %(topic)s AND d.partition = %(partition)s
   AND d."offset" >= %(since)s AND d."offset" < %(position)s AND d.event_time IS NOT NULL
UNION ALL
SELECT x.event_time, x.appended_at, x."offset"{nulls}
  FROM refused_events AS x
 WHERE x.topic = %(topic)s AND x.partition = %(partition)s
   AND x."offset" >= %(since)s AND x."offset" < %(position)s
"""
_ERASED: Final = """
SELECT e.{time} AS event_time, e.appended_at, coalesce(r."offset", e.origin_offset) AS position
  FROM erased_records AS erased
  JOIN {events} AS e ON (e.origin_topic, e.origin_partition, e.origin_offset)
                      = (erased.topic, erased.partition, erased."offset")
  LEFT JOIN replayed_events AS r USING (origin_topic, origin_partition, origin_offset)
 WHERE erased.place = 'events' AND coalesce(r.topic, e.origin_topic) = %(topic)s
   AND coalesce(r.partition, e.origin_partition) = %(partition)s
   AND coalesce(r."offset", e.origin_offset) >= %(since)s
   AND coalesce(r."offset", e.origin_offset) < %(position)s
"""
_NOT_ERASED: Final = """
   AND NOT EXISTS (SELECT FROM erased_records AS erased
                    WHERE erased.place = 'events' AND erased.topic = e.origin_topic
                      AND erased.partition = e.origin_partition AND erased."offset" = e.origin_offset)
"""
# What `counting` takes as the event's time has no fractions of a millisecond.
_JUDGED: Final = """
SELECT *, closed OR ahead OR position < %(resume)s AS emitted
  FROM (SELECT found.*, {lost} AS lost,
               greatest(date_bin(%(pane)s * interval '1 ms', event_time, 'epoch'),
                        '0001-01-01T00:00:00Z') AS window_start,
               event_time > appended_at + (%(ahead)s + 0.999) * interval '1 ms' AS ahead,
               event_time < to_timestamp(%(closed)s / 1000.0) AS closed
          FROM ({read}) AS found) AS judged
"""
_BLUR: Final = """
CREATE TEMPORARY TABLE audited_blurred AS
SELECT DISTINCT window_start FROM ({judged}) AS judged WHERE emitted
"""
_EVENTS: Final = """
SELECT judged.*, {blurred} AS "is blurred"{conditions}
  FROM ({judged}) AS judged{joined}
"""
_JOINED: Final = " LEFT JOIN pg_temp.audited_conditions AS judgement USING (position)"
# A part that was handed over is of a window that may be open. What is before `resume` is never read again.
_PARTS: Final = """
SELECT part.*, {blurred} AS "is blurred"
  FROM {parts} AS part
 WHERE part.origin_topic = %(topic)s AND part.partition = %(partition)s
   AND part.first_offset >= %(since)s
   AND CASE WHEN part.late THEN part.first_offset < %(position)s
            ELSE part.window_end <= to_timestamp(%(closed)s / 1000.0)
                 OR part.last_offset < %(resume)s END
"""
_NOTHING: Final = sql.SQL("")
_BLURRED: Final = "window_start IN (SELECT window_start FROM pg_temp.audited_blurred)"
_CELLS: Final = """
SELECT * FROM (
    SELECT event.window_start, event."is blurred", {event_groups}, 1 AS side, {of_events}
      FROM ({events}) AS event {emitted} GROUP BY {keys}{event_keys}
    UNION ALL
    SELECT part.window_start, part."is blurred", {part_groups}, 0, {of_parts}
      FROM ({parts}) AS part {told} {grouped}
) AS cells
 WHERE NOT EXISTS (SELECT FROM dropped_days AS gone
                    WHERE (gone.table_name = %(parts)s
                           AND gone.day = (window_start AT TIME ZONE 'UTC')::date)
                       OR (gone.table_name = %(table)s
                           AND gone.day >= (window_start AT TIME ZONE 'UTC')::date
                           AND gone.day <= ((window_start + %(pane)s * interval '1 ms'
                                             - interval '1 microsecond') AT TIME ZONE 'UTC')::date))
 ORDER BY {order}
"""


@dataclass(slots=True)
class CellQueries:
    """Queries of one declaration's cells in one source partition.

    Attributes:
        lost: whether there are acknowledged gaps.
        has_conditions: whether the table `audited_conditions` says what each `where` says of each event.
        values: expressions of an event's values, by the names that they get.
    """

    stream: Stream
    table: WindowTable
    lost: bool
    conditions: Sequence[str] = ()
    values: dict[str, sql.Composable] = field(default_factory=dict)
    _names: dict[tuple[str, bool], str] = field(default_factory=dict)

    def value(self, path: str, *, whole: bool, counted: bool = False) -> sql.Composed | None:
        """The value of a field of an event, by the name that it gets; None if no row tells it."""
        expression = value_sql(self.stream, path, whole=whole, counted=counted)
        if expression is None:
            return None
        # A path may be longer than a name can be.
        name = self._names.setdefault((path, whole), f"value {len(self._names)}")
        self.values[name] = expression
        return sql.SQL("{}").format(sql.Identifier("event", name))

    def condition(self, number: int) -> sql.Composed:
        return sql.SQL("{}").format(sql.Identifier("event", self.conditions[number]))

    @property
    def groups_are_told(self) -> bool:
        """Whether rows tell the groups of all events."""
        return None not in (value_sql(self.stream, path) for path in self.table.spec.by_fields)

    def lock(self) -> sql.Composed:
        """Keeps retention waiting, which drops partitions whatever a snapshot shows. To be called first."""
        tables = [self.stream.event_table, self.table.name]
        return sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(
            sql.SQL(", ").join(map(sql.Identifier, tables))
        )

    def blur(self) -> sql.Composed:
        """Finds the windows with events whose values no row tells."""
        read = sql.SQL(" UNION ALL ").join(
            [sql.SQL(_WITHOUT_ROWS).format(nulls=sql.SQL("")), self._of_table(_ERASED)]
        )
        return sql.SQL(_BLUR).format(judged=self._judged(read))

    def rows(self, columns: Sequence[str]) -> sql.Composed:
        """The position of each event that is in the table and not erased, and these columns, in this order,
        under names of ours."""
        names = [
            (f"field {place}", sql.Identifier("e", name)) for place, name in enumerate(columns)
        ]
        read = self._of_table(_READ, columns=_columns(names), only=sql.SQL(_NOT_ERASED))
        listed = sql.SQL(", ").join(sql.Identifier(name) for name, _ in names)
        return sql.SQL("SELECT position, {} FROM ({}) AS found").format(listed, read)

    def cells(
        self,
        of_events: Sequence[Named],
        of_parts: Sequence[sql.Composable],
        *,
        each_value: sql.Composable | None = None,
        in_order: bool = False,
    ) -> sql.Composed:
        """By cell: what its parts tell, on the side 0, and what its events tell, on the side 1. With
        `each_value` there is a row of each part, and one of each such value: not of blurred cells."""
        groups = self.table.by
        event_groups = [self._group(*each) for each in enumerate(groups)] or [sql.SQL("NULL")]
        part_groups: list[sql.Composable] = [
            sql.SQL('CASE WHEN NOT part."is blurred" THEN {} END').format(
                sql.Identifier("part", column.name)
            )
            for column in groups
        ] or [sql.SQL("NULL")]
        numbers = [sql.SQL(str(3 + place)) for place in range(len(event_groups))]
        comma = sql.SQL(", ")
        keys = comma.join([sql.SQL("1, 2"), *numbers])
        return sql.SQL(_CELLS).format(
            event_groups=comma.join(event_groups),
            part_groups=comma.join(part_groups),
            of_events=_listed(of_events),
            of_parts=comma.join(of_parts),
            events=self._events(),
            parts=self._parts(),
            keys=keys,
            event_keys=sql.SQL("") if each_value is None else sql.SQL(", ") + each_value,
            emitted=sql.SQL(
                "" if each_value is None else 'WHERE emitted AND NOT event."is blurred"'
            ),
            told=sql.SQL("" if each_value is None else 'WHERE NOT part."is blurred"'),
            grouped=sql.SQL("GROUP BY {}").format(keys) if each_value is None else sql.SQL(""),
            order=comma.join([*self._order(), sql.SQL("side, value" if in_order else "side")]),
        )

    def _group(self, place: int, column: Column) -> sql.Composable:
        path = self.table.spec.by_fields[place]
        value = self.value(path, whole=False) if self.groups_are_told else None
        return sql.SQL('(CASE WHEN NOT event."is blurred" THEN {} END)::{} AS {}').format(
            value or sql.SQL("NULL"), sql.SQL(column.type), sql.Identifier(f"by {place}")
        )

    def _order(self) -> Iterator[sql.Composable]:
        yield sql.SQL('window_start, "is blurred"')
        for place, column in enumerate(self.table.by):
            collated = '{} COLLATE "C"' if column.type == "text" else "{}"
            yield sql.SQL(collated).format(sql.Identifier(f"by {place}"))  # fmt: skip

    def _events(self) -> sql.Composed:
        columns = list(self.values.items())
        nulls: list[Named] = [(name, sql.SQL("NULL")) for name in self.values]
        read = sql.SQL(" UNION ALL ").join(
            [
                self._of_table(_READ, columns=_columns(columns)),
                sql.SQL(_WITHOUT_ROWS).format(nulls=_columns(nulls)),
            ]
        )
        conditions: list[Named] = [
            (name, sql.Identifier("judgement", name)) for name in self.conditions
        ]
        return sql.SQL(_EVENTS).format(
            judged=self._judged(read),
            blurred=self._blurred(),
            conditions=_columns(conditions),
            joined=sql.SQL(_JOINED if self.conditions else ""),
        )

    def _parts(self) -> sql.Composed:
        return sql.SQL(_PARTS).format(
            parts=sql.Identifier(self.table.name), blurred=self._blurred()
        )

    def _judged(self, read: sql.Composable) -> sql.Composed:
        lost = "position <@ %(lost)s::int8multirange" if self.lost else "false"
        return sql.SQL(_JUDGED).format(read=read, lost=sql.SQL(lost))

    def _blurred(self) -> sql.SQL:
        return sql.SQL(_BLURRED if self.groups_are_told else "true")

    def _of_table(
        self, query: Any, columns: sql.Composable = _NOTHING, only: sql.Composable = _NOTHING
    ) -> sql.Composed:
        no_tombstone = sql.SQL("AND NOT e.deleted" if self.stream.mode == "upsert" else "")
        return sql.SQL(query).format(
            events=sql.Identifier(self.stream.event_table),
            time=sql.Identifier(self.stream.event_time),
            no_tombstone=no_tombstone + only,
            columns=columns,
        )


def _columns(pairs: Sequence[Named]) -> sql.Composed:
    return sql.SQL("").join(
        sql.SQL(", {} AS {}").format(expression, sql.Identifier(name)) for name, expression in pairs
    )


def _listed(pairs: Sequence[Named]) -> sql.Composed:
    return sql.SQL(", ").join(
        sql.SQL("{} AS {}").format(expression, sql.Identifier(name)) for name, expression in pairs
    )
