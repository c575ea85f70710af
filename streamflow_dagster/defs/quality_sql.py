"""Reads for the data-quality checks: what is in the tables, how old it is, and how much came."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from psycopg import sql
from psycopg.rows import dict_row

from streamflow.postgres.connections import Connection
from streamflow.privacy import HASH_PATTERN
from streamflow.stream import Stream

_PAGE: Final = 5_000  # rows
# A row's load time is when its transaction began: one that commits later is still looked at.
_OVERLAP: Final = timedelta(minutes=5)
_RECENTLY: Final = timedelta(hours=1)


class Rate(NamedTuple):
    """How many records became rows and dead letters lately."""

    rows: int
    letters: int
    codes: list[tuple[str, int]]
    sample: list[str]


def scanned_through(connection: Connection, scan: str, table: str) -> datetime | None:
    """Up to which load time a table's rows were looked at and found sound; None for none yet."""
    row = connection.execute(
        "SELECT loaded_through FROM quality_scans WHERE scan = %s AND table_name = %s",
        [scan, table],
    ).fetchone()
    return row[0] if row is not None else None


def note_scan(connection: Connection, scan: str, table: str, began: datetime) -> None:
    """Notes that everything loaded before a scan began is sound."""
    connection.execute(
        "INSERT INTO quality_scans (scan, table_name, loaded_through) VALUES (%s, %s, %s)"
        " ON CONFLICT (scan, table_name) DO UPDATE SET loaded_through = excluded.loaded_through",
        [scan, table, began - _OVERLAP],
    )


def database_time(connection: Connection) -> datetime:
    """The database's clock: load times are of it."""
    row = connection.execute("SELECT clock_timestamp()").fetchone()
    if row is None:
        raise LookupError("the database has no time")
    found: datetime = row[0]
    return found


def actual_columns(connection: Connection, table: str) -> dict[str, str]:
    """Names and types of a table's columns, with ``not null`` where so."""
    rows = connection.execute(
        "SELECT attname, format_type(atttypid, atttypmod), attnotnull FROM pg_attribute"
        " WHERE attrelid = to_regclass(quote_ident(%s)) AND attnum > 0 AND NOT attisdropped"
        " ORDER BY attnum",
        [table],
    )
    return {name: f"{kind}{' not null' if strict else ''}" for name, kind, strict in rows}


def suspects(
    connection: Connection,
    table: str,
    identity: Sequence[str],
    columns: Mapping[str, str],
    since: datetime | None,
) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Rows that could hold an address: where something is in them that every address needs.

    Args:
        connection: nothing else may be done on it meanwhile.
        table: to look at.
        identity: columns that name a row.
        columns: those to look at, with their types: text, bytea or jsonb.
        since: look only at rows loaded from then on.

    Yields:
        Identity as text, and the columns' contents as bytes, nulls left out.
    """
    tests = {
        # JSON may write the "@" as an escape. Headers are JSON of base64, which shows nothing.
        "text": "(position('@' in {0}) > 0 OR position('\\u0040' in {0}) > 0)",
        "bytea": "(position('@'::bytea in {0}) > 0 OR position('\\\\u0040'::bytea in {0}) > 0)",
        "jsonb": "{0} <> '[]'::jsonb",
    }
    found = [sql.SQL(tests[kind]).format(sql.Identifier(name)) for name, kind in columns.items()]
    query = sql.SQL(
        "SELECT concat_ws('/', {identity}), {columns} FROM {table}"
        " WHERE (%(since)s::timestamptz IS NULL OR loaded_at >= %(since)s) AND ({tests})"
    ).format(
        identity=sql.SQL(", ").join(map(sql.Identifier, identity)),
        columns=sql.SQL(", ").join(
            sql.SQL("{}::text").format(sql.Identifier(name))
            if kind == "jsonb"
            else sql.Identifier(name)
            for name, kind in columns.items()
        ),
        table=sql.Identifier(table),
        tests=sql.SQL(" OR ").join(found),
    )
    with connection.transaction(), connection.cursor("suspects") as cursor:
        cursor.itersize = _PAGE
        for where, *values in cursor.execute(query, {"since": since}):
            yield (
                where,
                {
                    name: value if isinstance(value, bytes) else str(value).encode()
                    for name, value in zip(columns, values, strict=True)
                    if value is not None
                },
            )


def loaded_since(connection: Connection, table: str, since: datetime | None) -> int:
    """How many rows were loaded from then on."""
    row = connection.execute(
        sql.SQL("SELECT count(*) FROM {} WHERE %s::timestamptz IS NULL OR loaded_at >= %s").format(
            sql.Identifier(table)
        ),
        [since, since],
    ).fetchone()
    return int(row[0]) if row is not None else 0


def some_rows(
    connection: Connection, table: str, since: datetime | None, share: float, most: int
) -> Iterator[dict[str, Any]]:
    """Rows loaded from then on, all of them or a random share, by column."""
    with (
        connection.transaction(),
        connection.cursor("some_rows", row_factory=dict_row) as cursor,
    ):
        cursor.itersize = _PAGE
        yield from cursor.execute(
            sql.SQL(
                "SELECT * FROM {} WHERE (%s::timestamptz IS NULL OR loaded_at >= %s)"
                " AND (%s >= 1 OR random() < %s) LIMIT %s"
            ).format(sql.Identifier(table)),
            [since, since, share, share, most],
        )


def last_loaded(connection: Connection, group: str, topics: Sequence[str]) -> datetime | None:
    """When the loader last moved on in these topics."""
    row = connection.execute(
        "SELECT max(updated_at) FROM loader_positions WHERE group_name = %s AND topic = ANY(%s)"
        " AND records > 0",
        [group, list(topics)],
    ).fetchone()
    return row[0] if row is not None else None


def last_event(connection: Connection, stream: Stream, ahead: timedelta) -> datetime | None:
    """The latest event time, those of clocks that are ahead left out. Looks at what was loaded lately,
    and at everything only where nothing was."""
    for recently in (_RECENTLY, None):
        row = connection.execute(
            sql.SQL(
                'SELECT max("timestamp") FROM {} WHERE "timestamp" <= now() + %s'
                " AND (%s::interval IS NULL OR loaded_at > now() - %s::interval)"
            ).format(sql.Identifier(stream.table)),
            [ahead, recently, recently],
        ).fetchone()
        if row is not None and row[0] is not None:
            found: datetime = row[0]
            return found
    return None


def letter_rate(connection: Connection, tables: Sequence[str], minutes: int) -> Rate:
    """Rows and dead letters of the last minutes, by load time. Replays of theirs do not count."""
    since = timedelta(minutes=minutes)
    rows = 0
    for table in tables:
        found = connection.execute(
            sql.SQL("SELECT count(*) FROM {} WHERE loaded_at > now() - %s").format(
                sql.Identifier(table)
            ),
            [since],
        ).fetchone()
        rows += int(found[0]) if found is not None else 0
    codes = connection.execute(
        "SELECT error_code, count(*) FROM dead_letters WHERE loaded_at > now() - %s"
        " GROUP BY 1 ORDER BY 2 DESC, 1",
        [since],
    ).fetchall()
    sample = connection.execute(
        "SELECT source_topic || '[' || source_partition || '] offset ' || source_offset || ': '"
        " || error_code FROM dead_letters WHERE loaded_at > now() - %s"
        " ORDER BY loaded_at DESC LIMIT 5",
        [since],
    ).fetchall()
    return Rate(
        rows,
        sum(number for _, number in codes),
        [(code, number) for code, number in codes],
        [text for (text,) in sample],
    )


def counted_by_hour(
    connection: Connection, stream: Stream, end: datetime, hours: int
) -> list[tuple[datetime, int]]:
    """Events of a stream in each of the hours before `end`, oldest first, from its windows; hours
    without any between others are there with 0."""
    rows = connection.execute(
        "SELECT date_bin('1 hour', window_start, 'epoch'), sum(count)::bigint FROM window_counts"
        " WHERE origin_topic = %s AND window_start >= %s AND window_start < %s GROUP BY 1",
        [stream.topic, end - timedelta(hours=hours), end],
    )
    found: dict[datetime, int] = dict(rows.fetchall())
    if not found:
        return []
    first = min(found)
    whole = round((end - first) / timedelta(hours=1))
    return [
        (hour, found.get(hour, 0))
        for hour in (first + timedelta(hours=number) for number in range(whole))
    ]


def unhashed(
    connection: Connection, table: str, columns: Sequence[str], since: datetime | None
) -> list[dict[str, Any]]:
    """Rows loaded from then on, a thousand at most, with something else than a hash in a column that
    may only hold hashes."""
    if not columns:
        return []
    tests = sql.SQL(" OR ").join(
        sql.SQL("{} !~ {}").format(sql.Identifier(name), sql.Literal(HASH_PATTERN))
        for name in columns
    )
    query = sql.SQL(
        "SELECT * FROM {} WHERE (%s::timestamptz IS NULL OR loaded_at >= %s) AND ({}) LIMIT 1000"
    ).format(sql.Identifier(table), tests)
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query, [since, since]).fetchall()
