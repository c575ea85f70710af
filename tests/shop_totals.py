"""DuckDB's answers over the events of the shop, to be compared with the views of the totals. Nothing here is
of the product's code: events are those that were made, at the places that the topic has them."""

import json
import operator
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import duckdb

from shop_questions import QUESTIONS

Row = Mapping[str, Any]

_ORDERS: Final = {
    "id": "BIGINT", "kind": "TEXT", "created_at": "TIMESTAMPTZ", "country": "TEXT",
    "address": "STRUCT(city TEXT)", "customer": "TEXT", "email": "TEXT", "total": "DECIMAL(12, 2)",
    "weight": "DOUBLE", "quantity": "INT",
}  # fmt: skip
_READINGS: Final = {"id": "BIGINT", "device": "TEXT", "at": "BIGINT", "temperature": "DOUBLE"}
_PLACE: Final = {"source": "INT", "position": "BIGINT"}  # partition and offset
# What all queries ask: times in microseconds.
_TABLES: Final = """
CREATE TABLE orders AS SELECT *, epoch_us(created_at) AS us, address.city AS city
  FROM read_json('{orders}', columns={order_columns});
CREATE TABLE readings AS SELECT *, "at" * 1000 AS us
  FROM read_json('{readings}', columns={reading_columns});
"""


class Answers:
    """DuckDB, with all accepted events."""

    def __init__(self, orders: Sequence[Row], readings: Sequence[Row], directory: Path) -> None:
        self._connection = duckdb.connect()
        self._connection.execute("SET TimeZone = 'UTC'")
        files = {}
        for name, rows in (("orders", orders), ("readings", readings)):
            files[name] = directory / f"{name}.ndjson"
            files[name].write_text("".join(json.dumps(row) + "\n" for row in rows))
        columns = {"order_columns": _ORDERS | _PLACE, "reading_columns": _READINGS | _PLACE}
        self._connection.execute(_TABLES.format(**files, **columns))

    def set(self, name: str, value: Any) -> None:
        """A variable of a question."""
        self._connection.execute(f"SET VARIABLE {name} = {value}")

    def of(self, table: str) -> dict[Any, Row]:
        """By the window's start in microseconds, and the group."""
        question, answers = QUESTIONS[table], {}
        answered = self._connection.execute(question.query)
        names = [column[0] for column in answered.description or ()]
        for row in answered.fetchall():
            key = row[: 1 + question.group]
            assert key not in answers
            answers[key] = dict(zip(names[len(key) :], row[len(key) :], strict=True))
        return answers


def differences(table: str, found: Mapping[Any, Row], wanted: Mapping[Any, Row]) -> Iterator[str]:
    """What the view says otherwise than DuckDB, in words."""
    agree = QUESTIONS[table].agree
    for key in found.keys() - wanted.keys():
        yield f"{table} has {key}, and there is no such event: {found[key]}"
    for key, answers in wanted.items():
        if key not in found:
            yield f"{table} has no {key}: {answers}"
            continue
        for column, answer in answers.items():
            value = found[key][column]
            if not agree.get(column, operator.eq)(value, answer):
                yield f"{table} {key}: {column} is {value!r}, and DuckDB answers {str(answer)[:300]}"
