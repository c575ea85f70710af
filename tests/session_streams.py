"""Streams with sessions, rows for them, and what their sessions are by a plain loop in Python."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple

from psycopg import sql
from psycopg.rows import dict_row
from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import to_json

from streamflow import (
    Count,
    Distinct,
    Event,
    First,
    HashedAddress,
    Last,
    Max,
    Mean,
    Min,
    Quantiles,
    SessionWindow,
    Stream,
    Sum,
    Timestamp,
    Topics,
)
from streamflow.postgres.connections import Connection
from streamflow.postgres.partitions import table_exists
from streamflow.postgres.rows.events import EventRows
from streamflow.postgres.sessions.tables import SessionTable, session_tables
from streamflow.postgres.sink.copy import copy
from streamflow.records import Origin

MINUTE = 60.0  # seconds
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ONE = Topics(partitions=1)


class Address(BaseModel):
    model_config = ConfigDict(strict=True)

    city: str | None = Field(None, alias="town name")
    opened: date | None = None
    price: Decimal | None = None


class Purchase(Event):
    id: int
    customer: str | None = None
    user: str = "somebody"
    email: HashedAddress | None = None
    address: Address | None = None
    total: Decimal | None = None
    weight: float | None = None
    range: str | None = "a"
    session: int | None = None
    day: int | None = 7
    first_event: int | None = None
    at: Timestamp


BY_CUSTOMER = SessionWindow(
    "30min",
    by="customer",
    purchases=Count(),
    priced=Count("total"),
    spent=Sum("total"),
    weight=Sum("weight"),
    ids=Sum("id"),
    mean_total=Mean("total"),
    mean_weight=Mean("weight"),
    least=Min("total"),
    last_user=Max("user"),
    first=First("total"),
    last=Last("weight"),
    cities=Distinct("address.city"),
    weights=Quantiles("weight", at=(0, 0.5, 0.999)),
    totals=Quantiles("total", at=(0.25,)),
    last_price=Max("address.price"),
)
# Fields may be called as our SQL would call things.
BY_CITY = SessionWindow(
    "90s",
    by=("address.city", "customer", "range", "session", "day"),
    spent=Sum("address.price"),
    opened=Min("address.opened"),
    value=Count("first_event"),
)
PURCHASES = Stream(
    name="purchases", contract=Purchase, table="purchases", key="customer", event_time="at",
    private_fields=("email",), windows=[BY_CUSTOMER, BY_CITY], topics=ONE,
)  # fmt: skip
CUSTOMERS, CITIES = session_tables(PURCHASES)


class Row(NamedTuple):
    """An event and where it came from."""

    event: Purchase
    partition: int
    offset: int

    @property
    def origin(self) -> Origin:
        return Origin(PURCHASES.topic, self.partition, self.offset)


def purchase(number: int, seconds: float, customer: str | None = "ann", **fields: Any) -> Row:
    at = NOON + timedelta(seconds=seconds)
    document = {"id": number, "customer": customer, "at": at.isoformat()} | fields
    found = PURCHASES.decoder.decode(to_json(document))
    assert isinstance(found, Purchase), found
    return Row(found, 0, number)


def insert(connection: Connection, rows: Sequence[Row], *, stream: Stream = PURCHASES) -> None:
    """Stores rows as the loader does, in one transaction."""
    made = EventRows(stream)
    lines = [made.line(row.event, row.origin, (2, 0)) for row in rows]
    copy(connection, sql.Identifier(stream.event_table), made.table.columns, lines)


def stored(connection: Connection, table: SessionTable) -> list[dict[str, Any]]:
    """Its sessions, in the order of their keys and times, without when they were computed."""
    query = sql.SQL("SELECT * FROM {} ORDER BY session_start").format(sql.Identifier(table.name))
    with connection.cursor(row_factory=dict_row) as cursor:
        found = cursor.execute(query).fetchall()
    for row in found:
        del row["computed_at"]
    return sorted(found, key=lambda row: _order(row, table))


def _order(row: dict[str, Any], table: SessionTable) -> Any:
    return [(row[each.name] is not None, row[each.name]) for each in table.by], row["session_start"]


def expected(rows: Iterable[Row], table: SessionTable) -> list[dict[str, Any]]:
    """The sessions of rows, as `stored` has them."""
    keys: dict[Any, list[Row]] = defaultdict(list)
    for row in rows:
        keys[tuple(get(row.event, path) for path in table.spec.by_fields)].append(row)
    sessions: list[dict[str, Any]] = []
    gap = table.spec.gap
    for key, own in keys.items():
        part: list[Row] = []
        for row in sorted(own, key=lambda row: (row.event.at, row.partition, row.offset)):
            if part and row.event.at - part[-1].event.at >= gap:
                sessions.append(_session(key, part, table))
                part = []
            part.append(row)
        sessions.append(_session(key, part, table))
    return sorted(sessions, key=lambda row: _order(row, table))


def get(event: Any, path: str) -> Any:
    for name in path.split("."):
        event = None if event is None else getattr(event, name)
    return event


def _session(key: Any, rows: Sequence[Row], table: SessionTable) -> dict[str, Any]:
    found = {
        "session_start": rows[0].event.at,
        "session_end": rows[-1].event.at + table.spec.gap,
        **dict(zip(table.spec.by_columns, key, strict=True)),
        "counted": len(rows),
    }
    for name, aggregate in table.spec.aggregates.items():
        if aggregate.field is None:
            found[name] = len(rows)
            continue
        values = [value for row in rows if (value := get(row.event, aggregate.field)) is not None]
        names = aggregate.results(name)
        if isinstance(aggregate, Quantiles):
            at = [sorted(values)[max(math.ceil(share * len(values)), 1) - 1] if values else None
                  for share in aggregate.at]  # fmt: skip
            found |= dict(zip(names, at, strict=True))
        else:
            found[names[0]] = _FINISHED[type(aggregate)](values)
    return found


def _sum(values: Sequence[Any]) -> Any:
    if not values:
        return None
    return _number(sum(map(Fraction, values)), values)


def _mean(values: Sequence[Any]) -> Any:
    if not values:
        return None
    return _number(sum(map(Fraction, values)) / len(values), values)


def _number(number: Fraction, of: Sequence[Any]) -> Any:
    """Rounded once, if it is of doubles; a decimal is exact where it can be."""
    if not isinstance(of[0], float):
        return Decimal(number.numerator) / Decimal(number.denominator)
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf


_FINISHED: dict[type, Callable[[Sequence[Any]], Any]] = {
    Count: len,
    Sum: _sum,
    Mean: _mean,
    Min: lambda values: min(values, default=None),
    Max: lambda values: max(values, default=None),
    First: lambda values: values[0] if values else None,
    Last: lambda values: values[-1] if values else None,
    Distinct: lambda values: len(set(values)),
}


def age(connection: Connection) -> None:
    """What was loaded and computed so far was so an hour earlier: it is no longer looked at again."""
    for table, column in (
        ("purchases", "loaded_at"), (CUSTOMERS.name, "computed_at"), (CITIES.name, "computed_at")
    ):  # fmt: skip
        if table_exists(connection, table):
            connection.execute(f"UPDATE {table} SET {column} = {column} - interval '1 h'".encode())
