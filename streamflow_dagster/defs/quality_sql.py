"""Queries of the data-quality checks: what is in the tables, how old it is, and how much arrived."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, LiteralString, NamedTuple

from psycopg import sql
from psycopg.rows import dict_row

from streamflow.dead_letters.select import Selection, conditions
from streamflow.dead_letters.selection_parser import source_of
from streamflow.postgres.connections import Connection
from streamflow.postgres.forgotten import NOT_ERASED
from streamflow.postgres.partitions import newest_first
from streamflow.privacy import HASH_PATTERN
from streamflow.stream import Stream

_PAGE: Final = 5_000  # rows
# A row's load time is when its transaction began: one that commits later is still read.
_OVERLAP: Final = timedelta(minutes=5)
EVER: Final = datetime.min.replace(tzinfo=UTC)
_RECENTLY: Final = timedelta(hours=1)


class Rate(NamedTuple):
    """Records that became rows and dead letters lately."""

    rows: int
    dead_letters: int
    codes: list[tuple[str, int]]
    sample: list[str]


def begin_scan(connection: Connection, scan: str, table: str) -> tuple[datetime, datetime]:
    """The time by the database's clock, and up to which load time a table's rows are known to be sound."""
    query = "SELECT loaded_through FROM quality_scans WHERE scan = %s AND table_name = %s"
    return database_time(connection), _value(connection, query, [scan, table]) or EVER


def note_scan(connection: Connection, scan: str, table: str, began: datetime) -> None:
    """Notes that all rows that were loaded before a scan began are sound."""
    note_sound(connection, scan, table, began - _OVERLAP)


def note_sound(connection: Connection, scan: str, table: str, through: datetime) -> None:
    """Notes that all rows that were loaded before then are sound."""
    connection.execute(
        "INSERT INTO quality_scans (scan, table_name, loaded_through) VALUES (%s, %s, %s)"
        " ON CONFLICT (scan, table_name) DO UPDATE SET loaded_through = excluded.loaded_through",
        [scan, table, through],
    )


def database_time(connection: Connection) -> datetime:
    """Load times are by the database's clock."""
    now: datetime = _value(connection, "SELECT clock_timestamp()")
    return now


def _value(
    connection: Connection,
    query: str | sql.Composed,
    parameters: Sequence[Any] | Mapping[str, Any] = (),
) -> Any:
    """The first column of the first row; None if there is no row."""
    row = connection.execute(query, parameters).fetchone()
    return None if row is None else row[0]


def suspects(
    connection: Connection,
    table: str,
    identity: Sequence[str],
    columns: Mapping[str, str],
    since: datetime,
    *,
    all_rows: bool,
) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Yields the rows loaded from then on that contain a character that every address has: identity as
    text, and the columns' contents as bytes, without nulls. The connection may not be used meanwhile.

    Args:
        identity: columns that identify a row.
        columns: those to search, with their types: text, bytea or jsonb; of none, nothing is suspected.
        all_rows: whether other values than addresses are looked for, of which no character is known.
    """
    if not columns:
        return
    tests = {
        # As `addresses.may_hold`. Headers are JSON of base64, which shows nothing.
        "text": r"{0} ~ '[@\\%%=&\uff20\ufe6b]'",
        "bytea": r"encode({0}, 'escape') ~ '[@\\%%=&]'",  # other bytes than ASCII become escapes
        "jsonb": "{0} <> '[]'::jsonb",
    }
    query = sql.SQL(
        "SELECT concat_ws('/', {identity}), {columns} FROM {table}"
        " WHERE loaded_at >= %(since)s AND (%(all_rows)s OR {tests})"
    ).format(
        identity=sql.SQL(", ").join(map(sql.Identifier, identity)),
        columns=sql.SQL(", ").join(
            sql.SQL("{}::text").format(sql.Identifier(name))
            if kind == "jsonb"
            else sql.Identifier(name)
            for name, kind in columns.items()
        ),
        table=sql.Identifier(table),
        tests=sql.SQL(" OR ").join(
            sql.SQL(tests[kind]).format(sql.Identifier(name)) for name, kind in columns.items()
        ),
    )
    with connection.transaction(), connection.cursor("suspects") as cursor:
        cursor.itersize = _PAGE
        for where, *values in cursor.execute(query, {"since": since, "all_rows": all_rows}):
            yield (
                where,
                {
                    name: value if isinstance(value, bytes) else str(value).encode()
                    for name, value in zip(columns, values, strict=True)
                    if value is not None
                },
            )


_LOADED: Final[LiteralString] = (
    " FROM {table} AS event WHERE loaded_at >= %(since)s AND " + NOT_ERASED
)


def loaded_since(connection: Connection, table: str, since: datetime) -> int:
    """The number of events loaded from then on, without erased ones."""
    query = sql.SQL("SELECT count(*)" + _LOADED).format(table=sql.Identifier(table))
    return int(_value(connection, query, {"since": since}))


def some_rows(
    connection: Connection, table: str, since: datetime, share: float, most: int
) -> Iterator[dict[str, Any]]:
    """Events loaded from then on, by column, without erased ones: all of them, or a random share."""
    query = (
        "SELECT event.*" + _LOADED + " AND (%(share)s >= 1 OR random() < %(share)s) LIMIT %(most)s"
    )
    with (
        connection.transaction(),
        connection.cursor("some_rows", row_factory=dict_row) as cursor,
    ):
        cursor.itersize = _PAGE
        yield from cursor.execute(
            sql.SQL(query).format(table=sql.Identifier(table)),
            {"since": since, "share": share, "most": most},
        )


def last_loaded(connection: Connection, group: str, topics: Sequence[str]) -> datetime | None:
    """When the loader last advanced in these topics."""
    last: datetime | None = _value(
        connection,
        "SELECT max(updated_at) FROM loader_positions WHERE group_name = %s AND topic = ANY(%s)"
        " AND records > 0",
        [group, list(topics)],
    )
    return last


_LAST_EVENT: Final = "SELECT max({time}) FROM {table} WHERE {time} <= now() + %(ahead)s"
_LATELY: Final = " AND loaded_at > now() - %(lately)s"


def last_event(connection: Connection, stream: Stream, ahead: timedelta) -> datetime | None:
    """The latest event time, without events that are further ahead of the clock. Reads what was loaded
    in the last hour, and if that is nothing the newest days, until one has an event."""
    time = sql.Identifier(stream.event_time)

    def query(table: sql.Identifier) -> sql.Composed:
        return sql.SQL(_LAST_EVENT).format(time=time, table=table)

    values = {"ahead": ahead, "lately": _RECENTLY}
    lately = query(sql.Identifier(stream.event_table)) + sql.SQL(_LATELY)
    recent: datetime | None = _value(connection, lately, values)
    if recent is not None:
        return recent
    default, *days = newest_first(connection, stream.event_table)
    last: datetime | None = None
    for leaf in days:
        last = last or _value(connection, query(leaf.identifier), values)
    # An index has the times of the default partition, which may have any day.
    in_default: datetime | None = _value(connection, query(default.identifier), values)
    return max(filter(None, (last, in_default)), default=None)


def dead_letter_rate(connection: Connection, stream: Stream, minutes: int) -> Rate:
    """A stream's rows and dead letters of the last minutes, by load time. Replays of theirs do not count."""
    since = timedelta(minutes=minutes)
    query = sql.SQL("SELECT count(*) FROM {} WHERE loaded_at > now() - %s")
    rows = int(_value(connection, query.format(sql.Identifier(stream.event_table)), [since]))
    where, values = conditions(Selection(stream=source_of(stream), statuses=()))
    recent = sql.SQL("{} AND loaded_at > now() - %(age)s").format(where)
    values |= {"age": since}
    codes = connection.execute(
        sql.SQL(
            "SELECT error_code, count(*) FROM dead_letters WHERE {} GROUP BY 1 ORDER BY 2 DESC, 1"
        ).format(recent),
        values,
    ).fetchall()
    sample = connection.execute(
        sql.SQL(
            "SELECT source_topic || '[' || source_partition || '] offset ' || source_offset || ': '"
            " || error_code FROM dead_letters WHERE {} ORDER BY loaded_at DESC LIMIT 5"
        ).format(recent),
        values,
    )
    return Rate(
        rows,
        sum(number for _, number in codes),
        [(code, number) for code, number in codes],
        [text for (text,) in sample],
    )


def unhashed(
    connection: Connection, table: str, columns: Sequence[str], since: datetime
) -> list[dict[str, Any]]:
    """Rows loaded from then on, at most 1000, that contain anything but a hash in one of these columns."""
    if not columns:
        return []
    tests = sql.SQL(" OR ").join(
        sql.SQL("{} !~ {}").format(sql.Identifier(name), sql.Literal(HASH_PATTERN))
        for name in columns
    )
    query = sql.SQL("SELECT * FROM {} WHERE loaded_at >= %s AND ({}) LIMIT 1000")
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query.format(sql.Identifier(table), tests), [since]).fetchall()
