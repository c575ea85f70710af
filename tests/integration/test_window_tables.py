"""Windows with aggregates: from records of their parts to rows and totals, in a real database."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from loads import Load, rows, value
from streamflow.postgres import schema
from streamflow.settings import Settings
from window_parts import HOPPING, ORDERS, SPECS, TUMBLING, orders, parts_of, record, totals

pytestmark = pytest.mark.integration


@pytest.fixture
def database(database: Settings) -> Settings:
    schema.upgrade(database, [ORDERS])
    return database


@pytest.fixture
def load(database: Settings) -> Iterator[Load]:
    made = Load(database, [ORDERS])
    yield made
    made.sink.close()


def shown(settings: Settings, name: str) -> dict[tuple[Any, ...], dict[str, Any]]:
    """The view of the totals, by window and group."""
    found = {}
    with psycopg.connect(settings.database, row_factory=dict_row) as connection:
        connection.execute("SET timezone = 'UTC'")
        for row in connection.execute(f"SELECT * FROM {name}_totals".encode()):
            key = (row.pop("window_start"), *(row.pop(name) for name in SPECS[name].columns))
            length = timedelta(minutes=5) if name == HOPPING else timedelta(seconds=10)
            assert row.pop("window_end") - key[0] == length
            if "mean_total" in row:
                row["mean_total"] = round(row["mean_total"], 10)
            assert key not in found
            found[key] = row
    return found


@pytest.mark.parametrize("name", [TUMBLING, HOPPING])
def test_totals_are_those_of_the_events(load: Load, database: Settings, name: str) -> None:
    placed = orders(700)
    parts = list(parts_of(placed, name))
    load.load([record(offset, part) for offset, part in enumerate(parts)])

    assert load.delivered == []
    assert value(database, f"SELECT count(*) FROM {name}") == len(parts)
    assert shown(database, name) == totals(placed, name)
    assert rows(database, "SELECT table_name, count(*) FROM window_rows GROUP BY 1") == [
        (name, len(parts))
    ]
