"""Reading cells in their order, without keeping them."""

from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any

from psycopg import sql

from streamflow.postgres.connections import Connection


def cells_of(
    connection: Connection,
    name: str,
    query: sql.Composed,
    parameters: Mapping[str, Any],
    width: int,
) -> Iterator[tuple[Any, Iterator[tuple[Any, ...]]]]:
    """The rows of each cell, by its window, whether it is blurred, and so many columns of its group."""
    with connection.cursor(name) as cursor:
        cursor.itersize = 10_000
        yield from groupby(cursor.execute(query, parameters), key=lambda row: row[: 2 + width])
