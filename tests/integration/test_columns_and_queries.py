"""Fields and tables with the names that our own SQL uses inside."""

import pytest
from pydantic import Field, create_model

from loads import execute
from releases import Installation
from streamflow import Event, Hashed, Stream, Timestamp, TumblingWindow
from streamflow.erasure import erase
from streamflow.postgres.against import changes_for
from streamflow.postgres.connections import session
from streamflow.postgres.evolution import Level
from streamflow.postgres.forgotten import ERASED, Kind
from streamflow.postgres.rehash import rehash
from streamflow.records import Origin
from streamflow.settings import Settings
from streamlit_app.records.traces import trace

pytestmark = pytest.mark.integration

HASH = "a" * 64
NAMES = (
    "topic", "partition", "offset", "position", "attempt", "record_topic", "record_partition",
    "record_offset", "total", "lost", "closed", "ahead", "event_type", "event_time", "window_start",
    "kept", "held", "first", "line", "state", "of_column", "place", "erased", "change", "replay", "day",
    "table_name", "outcome", "stage", "newest", "partitions", "late", "count", "hour", "at_most",
)  # fmt: skip


def declared(table: str, most: int) -> Stream:
    contract = create_model(
        "Order",
        __base__=Event,
        kind=(str, ...),
        at=(Timestamp, ...),
        user=(str, ...),
        number=(int, Field(le=most)),
        old=(Hashed, ...),
        new=(Hashed, ...),
        **dict.fromkeys(NAMES, (str, "x")),
    )
    return Stream(
        name="orders", contract=contract, table=table, key="kind", event_time="at",
        windows=TumblingWindow("10s", by="kind", idle="0s"),
    )  # fmt: skip


def order(number: int) -> dict[str, object]:
    return {
        "kind": "placed", "at": f"2026-03-01T12:00:{number % 60:02d}.000Z", "user": "ann",
        "number": number, "old": HASH, "new": HASH,
    }  # fmt: skip


@pytest.mark.parametrize(
    "table", ["orders", "incoming", "refused", "trial", "counted", "fresh", "theirs"]
)
def test_they_are_taken_for_nothing_else(database: Settings, table: str) -> None:
    shop = Installation(database, declared(table, 1_000))
    shop.send(*map(order, (1, 2, 700, 13, 5_000)))
    execute(database, f"ALTER TABLE {table} ADD CONSTRAINT odd CHECK (number <> 13)")
    shop.run()
    # The row that the database refuses is singled out.
    assert shop.rows("number") == [(1,), (2,), (700,)]
    assert [code for _, code, _ in shop.dead_letters()] == ["UNSTORABLE_VALUE", "SCHEMA_VIOLATION"]
    shop.assert_closed()

    changes, looked_at = changes_for(database, declared(table, 500))
    assert looked_at == 3
    assert any(
        change.level is Level.BREAKING and change.what.startswith("1 of 3") for change in changes
    )

    execute(database, f"ALTER TABLE {table} DROP CONSTRAINT odd")
    shop.release(declared(table, 10_000))
    assert [outcome.outcome for outcome in shop.replay()] == ["passes", "passes"]
    assert shop.rows("number, topic, attempt") == [(n, "x", "x") for n in (1, 2, 700, 13, 5_000)]
    shop.assert_closed()

    traced = trace(database, [shop.stream], Origin(shop.stream.topic, 0, 2))
    assert traced.row is not None
    assert traced.row["number"] == 700

    with_key = database.model_copy(
        update={"pii_key": Settings(STREAMFLOW_PII_KEY='{"2026a": "new", "legacy": "old"}').pii_key}
    )
    shop.stop()
    lifted = {done.column: done.lifted for done in rehash(with_key, [shop.stream])}
    assert (lifted["old"], lifted["new"]) == (5, 5)

    subject = erase.parse_subject(database, [shop.stream], Kind.USER, "ann")
    with session(database, "test") as connection, connection.transaction():
        run = erase._Erasure.begin(connection, database, [shop.stream], subject, "a test")
        run.erase_events()
    assert shop.rows('"user"') == [(ERASED,)] * 5
