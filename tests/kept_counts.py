"""Whether the counts that are kept beside the rows are those of the rows."""

from collections.abc import Iterable

import psycopg

_DEAD_LETTERS = """
SELECT (coalesce(appended_at, loaded_at) AT TIME ZONE 'UTC')::date, source_topic, origin_topic, error_code,
       stage, status, record_topic = source_topic AND record_partition = source_partition
                      AND record_offset = source_offset, count(*)
  FROM dead_letters GROUP BY 1, 2, 3, 4, 5, 6, 7
"""
_KEPT_DEAD_LETTERS = """
SELECT day, source_topic, origin_topic, error_code, stage, status, is_foreign, sum(number)::bigint
  FROM dead_letter_counts GROUP BY 1, 2, 3, 4, 5, 6, 7 HAVING sum(number) <> 0
"""
_DUPLICATES = "SELECT topic, count(*) FROM duplicates GROUP BY 1"
_KEPT_DUPLICATES = """
SELECT topic, sum(number)::bigint FROM duplicate_counts GROUP BY 1 HAVING sum(number) <> 0
"""
_ROWS = "SELECT table_name, sum(rows)::bigint FROM row_counts GROUP BY 1"


def require_exact_kinds(url: str) -> None:
    """Of dead letters and duplicates: whatever changed them."""
    with psycopg.connect(url) as connection:
        [(counts,)] = connection.execute("SELECT to_regclass('dead_letter_counts')")
        if counts is None:
            return
        for counted, kept in (
            (_DEAD_LETTERS, _KEPT_DEAD_LETTERS),
            (_DUPLICATES, _KEPT_DUPLICATES),
        ):
            assert set(connection.execute(kept)) == set(connection.execute(counted))


def require_exact_rows(url: str) -> dict[str, int]:
    """Of all tables that are counted, which this returns; rows that a test writes itself are none."""
    with psycopg.connect(url) as connection:
        kept: dict[str, int] = dict(connection.execute(_ROWS).fetchall())
        assert kept == dict(_counted(connection, kept))
    return kept


def _counted(
    connection: psycopg.Connection[tuple[int, ...]], tables: Iterable[str]
) -> Iterable[tuple[str, int]]:
    for table in tables:
        [(rows,)] = connection.execute(f'SELECT count(*) FROM "{table}"'.encode())
        yield table, rows
