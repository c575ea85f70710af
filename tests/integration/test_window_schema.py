"""The schema of windows' tables: made, kept, and refused where another declaration has counted."""

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from loads import Load, execute, rows, value
from streamflow import Count, HoppingWindow, Max, Min, Quantiles, Stream, Sum, TumblingWindow
from streamflow.errors import ConfigurationError
from streamflow.names import derives
from streamflow.postgres import schema
from streamflow.postgres.against import changes_for
from streamflow.postgres.evolution import Level
from streamflow.postgres.roles import role_statements
from streamflow.postgres.row_counts import row_counts
from streamflow.settings import Settings
from window_parts import ORDERS, TUMBLING, orders, parts_of, record

pytestmark = pytest.mark.integration


def ten_seconds(**more: Any) -> Stream:
    aggregates = {"orders": Count(), "sizes": Quantiles("weight", at=(0.5,))} | more
    return replace(ORDERS, windows=TumblingWindow("10s", by="country", **aggregates))


def test_tables_and_views_are_made_once(database: Settings) -> None:
    wanted = [
        "table orders",
        "table orders_10s",
        "view orders_10s_totals",
        "table orders_5min_by_1min",
        "view orders_5min_by_1min_totals",
    ]
    assert schema.pending(database, [ORDERS]) == wanted
    assert "orders_10s" in schema.not_loadable(database, [ORDERS])["orders"]
    assert schema.upgrade(database, [ORDERS]) == wanted

    assert schema.upgrade(database, [ORDERS]) == []
    assert schema.not_loadable(database, [ORDERS]) == {}
    assert list(row_counts(database, [ORDERS]).rows)[:3] == [
        "orders",
        "orders_10s",
        "orders_5min_by_1min",
    ]
    assert [one.what for one in changes_for(database, ORDERS)[0]] == []


def test_what_is_around_a_table_of_windows_is_taken(database: Settings) -> None:
    schema.upgrade(database, [ORDERS])
    found = rows(database, "SELECT relname FROM pg_class WHERE relname LIKE 'orders_10s%'")
    names = {name for (name,) in found} - {"orders_10s", "orders_10s_totals", "orders_10s_record"}

    assert len(names) > 8
    assert [name for name in names if not derives("orders_10s", name)] == []


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (ten_seconds(revenue=Sum("total")), "revenue is new"),
        (ten_seconds(orders=Count("quantity")), 'orders was Count() and is Count("quantity")'),
        (
            ten_seconds(orders=Count(where=lambda order: order.kind == "placed")),
            "orders was Count() and is Count(where=…)",
        ),
        (
            replace(ORDERS, windows=TumblingWindow("10s", by="country", orders=Count())),
            "sizes is gone",
        ),
        (
            replace(
                ORDERS,
                windows=TumblingWindow(
                    "1min", by="customer", name="orders_10s", orders=Count(), sizes=Quantiles("weight")
                ),
            ),
            "pane was 10s and is 1min; by was country and is customer",
        ),
        (
            replace(
                ORDERS,
                windows=HoppingWindow(
                    "20s", every="10s", by="country", name="orders_10s", orders=Count(),
                    sizes=Quantiles("weight"),
                ),
            ),
            "windows was TumblingWindow and is HoppingWindow",
        ),
    ],
)  # fmt: skip
def test_windows_that_are_declared_differently_need_another_name(
    database: Settings, changed: Stream, says: str
) -> None:
    schema.upgrade(database, [ten_seconds()])

    with pytest.raises(ConfigurationError) as caught:
        schema.upgrade(database, [changed])

    assert says in str(caught.value)
    assert 'give the windows another name (name="…")' in str(caught.value)
    assert says in schema.refused(database, [changed])["orders"]
    [breaking] = changes_for(database, changed)[0]
    assert (breaking.level, says in breaking.what) == (Level.BREAKING, True)
    assert "another name" in breaking.way
    renamed = replace(changed, windows=replace_name(changed, "others"))
    assert schema.upgrade(database, [renamed]) == ["table others", "view others_totals"]


def replace_name(stream: Stream, name: str) -> Any:
    [windows] = stream.windows
    changed = object.__new__(type(windows))
    for field in type(windows).__dataclass_fields__:
        object.__setattr__(changed, field, getattr(windows, field))
    object.__setattr__(changed, "name", name)
    return changed


def test_a_field_of_another_type(database: Settings) -> None:
    by_weight = replace(ORDERS, windows=TumblingWindow("10s", name="w", most=Max("weight")))
    schema.upgrade(database, [by_weight])
    execute(database, "DROP VIEW w_totals; ALTER TABLE w ALTER COLUMN most TYPE text")

    refused = schema.refused(database, [by_weight])["orders"]
    assert "the column most is text, and its field needs double precision" in refused


def test_other_shares_are_another_view_only(database: Settings) -> None:
    schema.upgrade(database, [ten_seconds()])
    changed = ten_seconds(sizes=Quantiles("weight", at=(0.25, 1)))

    assert schema.pending(database, [changed]) == ["view orders_10s_totals"]
    schema.upgrade(database, [changed])

    assert {"sizes_p25", "sizes_p100"} <= schema_columns(database, "orders_10s_totals")
    assert "sizes_p50" not in schema_columns(database, "orders_10s_totals")


def test_a_view_that_something_uses_stays_and_the_stream_is_loaded(database: Settings) -> None:
    schema.upgrade(database, [ten_seconds()])
    execute(
        database,
        "CREATE VIEW my_report AS SELECT sizes_p50 FROM orders_10s_totals;"
        "CREATE FUNCTION mine() RETURNS bigint LANGUAGE sql"
        " BEGIN ATOMIC SELECT max(orders) FROM orders_10s_totals; END",
    )
    changed = ten_seconds(sizes=Quantiles("weight", at=(0.25, 1)))

    assert schema.upgrade(database, [changed]) == []
    assert schema.pending(database, [changed]) == []
    assert schema.not_loadable(database, [changed]) == {}
    assert "sizes_p50" in schema_columns(database, "orders_10s_totals")
    [says] = schema.surplus(database, [changed])
    assert says.startswith("the view orders_10s_totals stays as it was, since other columns are")
    assert "declared and function mine(), my_report uses it" in says
    [change] = changes_for(database, changed)[0]
    assert (change.level, change.what) == (Level.SAFE, says)

    execute(database, "DROP VIEW my_report; DROP FUNCTION mine")
    assert schema.upgrade(database, [changed]) == ["view orders_10s_totals"]
    assert schema.surplus(database, [changed]) == []
    assert "sizes_p25" in schema_columns(database, "orders_10s_totals")


def test_a_view_with_the_same_columns_is_replaced_under_what_uses_it(database: Settings) -> None:
    schema.upgrade(database, [ORDERS])
    made = "SELECT oid FROM pg_class WHERE relname = '{}'"
    views = ("orders_10s_totals", "orders_5min_by_1min_totals", "window_rows")
    before = [value(database, made.format(view)) for view in views]
    for number, view in enumerate(views):
        execute(
            database,
            f"CREATE VIEW mine_{number} AS SELECT * FROM {view};"
            f"COMMENT ON VIEW {view} IS 'of an older release'",
        )

    assert schema.upgrade(database, [ORDERS]) == [f"view {view}" for view in views[:2]]

    assert schema.upgrade(database, [ORDERS]) == []
    assert [value(database, made.format(view)) for view in views] == before
    assert "of definition" in value(database, "SELECT obj_description('window_rows'::regclass)")


def test_a_view_that_is_missing_keeps_no_row_from_its_table(database: Settings) -> None:
    schema.upgrade(database, [ORDERS])
    execute(database, "DROP VIEW orders_10s_totals")

    assert schema.not_loadable(database, [ORDERS]) == {}
    assert schema.pending(database, [ORDERS]) == ["view orders_10s_totals"]


def test_privileges_stay_where_a_view_is_made_again(database: Settings) -> None:
    reader = "pg_monitor"  # any role that is there
    stream = ten_seconds(sizes=Quantiles("weight", at=(0.5, 0.9)))
    schema.upgrade(database, [stream])
    execute(
        database,
        f'GRANT SELECT ON orders_10s_totals TO "{reader}" WITH GRANT OPTION;'
        "GRANT SELECT (country, orders, sizes_p50, sizes_p90) ON orders_10s_totals TO PUBLIC",
    )
    privileges = """
        SELECT grantee, privilege_type, is_grantable FROM information_schema.table_privileges
         WHERE table_name = 'orders_10s_totals' AND grantee <> current_user
    """
    columns = """
        SELECT attname FROM pg_attribute
         WHERE attrelid = 'orders_10s_totals'::regclass AND attacl IS NOT NULL
         ORDER BY attname
    """
    assert rows(database, privileges) == [(reader, "SELECT", "YES")]

    changed = ten_seconds(sizes=Quantiles("weight", at=(0.9, 0.5, 0.1)))
    assert schema.upgrade(database, [changed]) == ["view orders_10s_totals"]
    assert rows(database, privileges) == [(reader, "SELECT", "YES")]
    assert [name for (name,) in rows(database, columns)] == [
        "country", "orders", "sizes_p50", "sizes_p90",
    ]  # fmt: skip

    schema.upgrade(database, [ten_seconds(sizes=Quantiles("weight", at=(0.1,)))])
    assert rows(database, privileges) == [(reader, "SELECT", "YES")]
    assert [name for (name,) in rows(database, columns)] == ["country", "orders"]


def schema_columns(settings: Settings, table: str) -> set[str]:
    query = f"SELECT column_name FROM information_schema.columns WHERE table_name = '{table}'"
    return {name for (name,) in rows(settings, query)}


@pytest.mark.parametrize(
    ("foreign", "says"),
    [
        ("CREATE TABLE orders_10s (a int)", "the table orders_10s exists already"),
        ("CREATE VIEW orders_10s_totals AS SELECT 1 AS a", "orders_10s_totals exists already"),
    ],
)
def test_what_is_of_another_owner_is_not_touched(
    database: Settings, foreign: str, says: str
) -> None:
    execute(database, foreign)

    with pytest.raises(ConfigurationError, match=says):
        schema.upgrade(database, [ORDERS])

    assert value(database, "SELECT count(*) FROM window_tables") == 0
    assert says in schema.refused(database, [ORDERS])["orders"]


def test_windows_of_another_stream(database: Settings) -> None:
    schema.upgrade(database, [ten_seconds()])
    other = replace(
        ten_seconds(), name="others", table="others", windows=replace_name(ten_seconds(), TUMBLING)
    )

    assert "has windows of the stream orders" in schema.refused(database, [other])["others"]


@pytest.fixture
def load(database: Settings) -> Iterator[Load]:
    schema.upgrade(database, [ORDERS])
    made = Load(database, [ORDERS])
    yield made
    made.sink.close()


def test_windows_that_are_given_up_stay(load: Load, database: Settings) -> None:
    parts = list(parts_of(orders(20), TUMBLING))
    load.load([record(offset, part) for offset, part in enumerate(parts)])
    plain = replace(ORDERS, windows=None)

    [change, _] = changes_for(database, plain)[0]
    assert change == (
        Level.SAFE,
        (
            "windows with the table orders_10s are declared no more: it stays as it is; declared again, they "
            "would begin anew, and miss what comes until then"
        ),
        "",
        "",
    )
    assert schema.upgrade(database, [plain]) == []
    assert value(database, "SELECT count(*) FROM window_rows") == len(parts)
    # The table of the other windows has no rows: nothing is missing between them.
    [again] = changes_for(database, ORDERS)[0]
    what = (
        r"the windows in orders_10s are declared again, and begin anew where analytics is: what came since "
        r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ is not in them"
    )
    assert re.fullmatch(what, again.what)
    assert (again.level, "streamflow audit --acknowledge" in again.way) == (Level.STEP, True)
    # Not said of a stream that has given them up still.
    assert schema.upgrade(database, [plain]) == []
    [done] = schema.upgrade(database, [ORDERS])
    assert re.fullmatch(what + "; the audit names what they miss", done)
    assert schema.upgrade(database, [ORDERS]) == []
    assert changes_for(database, ORDERS)[0] == []
    assert schema.windows_with_parts(database, [ORDERS, plain]) == {TUMBLING}

    execute(database, "DROP TABLE orders_10s CASCADE")
    schema.upgrade(database, [plain])
    assert value(database, "SELECT count(*) FROM window_rows") == 0


def test_workers_may_insert_and_not_update(database: Settings) -> None:
    schema.upgrade(database, [ORDERS])
    inserted = [
        statement
        for statement in role_statements(database, [ORDERS], "tests")
        if '"orders_10s"' in statement
    ]

    assert len(inserted) == 1
    assert inserted[0].startswith("GRANT INSERT ON TABLE")


def test_text_is_ordered_by_code_points_and_a_reserved_word_is_a_name(database: Settings) -> None:
    stream = replace(
        ORDERS, windows=TumblingWindow("1d", by="kind", order=Count(), group=Min("customer"))
    )
    schema.upgrade(database, [stream])

    assert {"order", "group", "kind"} <= schema_columns(database, "orders_1d_totals")
