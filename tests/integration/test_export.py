"""Exports: every type as it is in the table, read by another program; and the proof that file and table
agree, which names whatever differs."""

import enum
import json
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, get_args
from uuid import UUID

import dagster as dg
import duckdb
import fsspec
import psycopg
import pytest
import yaml
from pydantic import Field
from pydantic.types import condecimal

from loads import FakeRecord, Load, dead_letter, events, execute, forget_listed, replay
from orchestration import Orchestration, metadata_of, orchestrated
from streamflow import Event, Stream, Timestamp
from streamflow.audit.report import Verdict
from streamflow.errors import UsageError
from streamflow.export.covered import Format
from streamflow.export.days import Exported, days, export_day
from streamflow.export.destination import Destination
from streamflow.export.proof import FileProof, prove
from streamflow.postgres.connections import session
from streamflow.postgres.schema import upgrade
from streamflow.settings import Settings
from streamflow.streams.user_events import USER_EVENTS
from streamflow_cli.app import main

pytestmark = pytest.mark.integration

FORMATS: tuple[Format, ...] = get_args(Format)
DAY = date(2026, 7, 1)


@pytest.fixture
def load(database: Settings) -> Iterator[Load]:
    one = Load(database)
    yield one
    one.sink.close()


Export = Callable[..., list[Exported]]


@pytest.fixture
def export(database: Settings, tmp_path: Path) -> Export:
    def export(kind: Format, stream: Stream = USER_EVENTS, url: str = "") -> list[Exported]:
        with session(database, "test") as connection:
            return [
                export_day(
                    connection, database, stream, day, Destination(url or str(tmp_path)), kind
                )
                for day in days(connection, stream, None, None)
            ]

    return export


def proof(settings: Settings, url: Path | str, stream: Stream = USER_EVENTS) -> FileProof:
    [found] = prove(settings, [stream], str(url)).files
    return found


class Colour(enum.StrEnum):
    RED = "red, green"
    BLUE = ""


class Every(Event):
    whole: int
    large: Annotated[int, Field(le=10**40)]
    text: str
    truth: bool
    fraction: float
    exact: condecimal(max_digits=12, decimal_places=3)  # type: ignore[valid-type]
    free: Decimal
    day: date
    clock: time
    span: timedelta
    name: UUID
    colour: Colour
    nested: dict[str, list[int]]
    maybe: str | None = None
    timestamp: Timestamp


EVERY = Stream(name="every", contract=Every, table="every", key="text")
TEXTS = (
    "plain",
    "",
    'a "quoted" one',
    "two\nlines",
    "tab\tcomma,semi;",
    "\u00e9\U0001f600",
    "=1+1",
    "NULL",
)


def every(number: int) -> Every:
    return Every(
        whole=-number, large=10**39 + number, text=TEXTS[number % len(TEXTS)], truth=number % 2 == 0,
        fraction=number / 7, exact=Decimal(number) / 8, free=Decimal(f"1e-{number}"), day=DAY,
        clock=time(1, 2, 3, number), span=timedelta(days=number, microseconds=1), name=UUID(int=number),
        colour=Colour.RED, nested={'k"': [number]}, maybe=None if number % 3 else "",
        timestamp=datetime(2026, 7, 1, 1, 0, 0, 1000 * number, UTC),
    )  # fmt: skip


@pytest.fixture
def loaded(database: Settings) -> Settings:
    """A database with rows of every type."""
    upgrade(database, [EVERY])
    one = Load(database, [EVERY])
    values = [EVERY.decoder.encode(every(number)) for number in range(40)]
    one.load([FakeRecord(number, each, topic="every") for number, each in enumerate(values)])
    one.sink.close()
    return database


READ: dict[Format, str] = {
    "parquet": "SELECT * FROM read_parquet('{}')",
    "csv": "SELECT * FROM read_csv('{}', all_varchar=true, nullstr='', allow_quoted_nulls=false)",
    "ndjson": "SELECT * FROM read_json_auto('{}', format='newline_delimited')",
}


@pytest.mark.parametrize("kind", FORMATS)
def test_another_program_reads_what_is_in_the_table(
    loaded: Settings, export: Export, kind: Format
) -> None:
    [done] = export(kind, EVERY)
    assert done.covered.rows == 40
    asked = (
        "SELECT whole, text, maybe, truth, exact, name::text, nested::text FROM ({})"
        " ORDER BY origin_offset::bigint"
    )
    found = duckdb.sql(asked.format(READ[kind].format(done.path))).fetchall()
    for row, number in zip(found, range(40), strict=True):
        expected = every(number)
        assert (int(row[0]), row[1], row[2]) == (expected.whole, expected.text, expected.maybe)
        assert str(row[3]).lower() == str(expected.truth).lower()
        assert Decimal(str(row[4])) == expected.exact
        assert UUID(row[5]) == expected.name
        if kind != "ndjson":  # DuckDB makes a struct of it
            assert json.loads(row[6]) == expected.nested
    assert proof(loaded, Path(done.path).parents[2], EVERY).verdict is Verdict.CLOSED


@pytest.mark.usefixtures("loaded")
def test_a_parquet_file_is_typed(export: Export) -> None:
    [done] = export("parquet", EVERY)
    described = duckdb.sql(f"DESCRIBE SELECT * FROM read_parquet('{done.path}')").fetchall()
    types = {name: kind for name, kind, *_ in described}
    assert types == {
        "whole": "BIGINT", "large": "VARCHAR", "text": "VARCHAR", "truth": "BOOLEAN", "fraction": "DOUBLE",
        "exact": "DECIMAL(12,3)", "free": "VARCHAR", "day": "DATE", "clock": "TIME", "span": "VARCHAR",
        "name": "VARCHAR", "colour": "VARCHAR", "nested": "VARCHAR", "maybe": "VARCHAR",
        "timestamp": "TIMESTAMP WITH TIME ZONE", "origin_topic": "VARCHAR", "origin_partition": "INTEGER",
        "origin_offset": "BIGINT", "appended_at": "TIMESTAMP WITH TIME ZONE",
        "loaded_at": "TIMESTAMP WITH TIME ZONE",
    }  # fmt: skip


@pytest.mark.parametrize("kind", FORMATS)
def test_each_day_is_a_file_that_says_what_it_covers(
    load: Load, database: Settings, export: Export, kind: Format
) -> None:
    times = ["2026-07-01T23:59:59.999Z", "2026-07-02T00:00:00Z", "1999-12-31T00:00:00Z"]
    load.load([FakeRecord(0, b"{}"), *(
        FakeRecord(number, event_at(number, moment)) for number, moment in enumerate(times, 1)
    )])  # fmt: skip
    done = export(kind)
    assert [each.covered.day.isoformat() for each in done] == [
        "1999-12-31",
        "2026-07-01",
        "2026-07-02",
    ]
    for each in done:
        assert each.covered.rows == 1
        assert each.covered.positions == {"user-events/0": 4}
        assert each.path.endswith(
            f"/events/day={each.covered.day}/events-{each.covered.day}.{kind}"
        )
    files = prove(database, [USER_EVENTS], str(Path(done[0].path).parents[2])).files
    assert [(each.day, each.rows, each.verdict) for each in files] == [
        (each.covered.day, 1, Verdict.CLOSED) for each in done
    ]


def event_at(number: int, moment: str) -> bytes:
    return json.dumps(
        {"id": number, "type": "USER_LOGIN", "user": "ann", "timestamp": moment}
    ).encode()


@pytest.mark.parametrize("kind", FORMATS)
def test_what_comes_later_is_told_from_what_is_lost(
    load: Load, database: Settings, export: Export, tmp_path: Path, kind: Format
) -> None:
    load.load(
        [*events([0, 1]), FakeRecord(2, b"{}"), dead_letter(0, "user-events/0/2", 2), *events([3])]
    )
    export(kind)
    assert proof(database, tmp_path).verdict is Verdict.CLOSED

    # A replay has the identity of a record that was covered.
    load.sent("user-events/0/2", "user-events/0/5")
    load.load([*events([4]), replay(5, "user-events/0/2", 9)])
    later = proof(database, tmp_path)
    assert (later.verdict, later.equal, later.later) == (Verdict.NOT_YET, 3, 2)

    export(kind)
    assert proof(database, tmp_path).equal == 5
    execute(database, "DELETE FROM events WHERE origin_offset = 1")
    lost = proof(database, tmp_path)
    assert lost.problems == ("1 row in the file, not in the table (first user-events/0/1)",)
    export(kind)
    load.resume()
    execute(
        database,
        'INSERT INTO events (id, type, "user", timestamp, origin_topic, origin_partition, origin_offset)'
        " VALUES (1, 'USER_LOGIN', 'eve', '2026-07-01 12:00Z', 'user-events', 0, 1)",
    )
    assert proof(database, tmp_path).problems == (
        "1 row in the table, not in the file (first user-events/0/1)",
    )


@pytest.mark.parametrize("kind", FORMATS)
def test_a_changed_row_is_named(
    load: Load, database: Settings, export: Export, tmp_path: Path, kind: Format
) -> None:
    load.load(events(range(100)))
    export(kind)
    execute(database, "UPDATE events SET \"user\" = 'eve' WHERE origin_offset IN (7, 70)")
    found = proof(database, tmp_path)
    assert (found.verdict, found.equal) == (Verdict.OPEN, 98)
    assert found.problems == ("2 rows not the same as in the table (first user-events/0/7)",)


def test_a_file_that_still_holds_a_forgotten_person_is_named(
    load: Load, database: Settings, export: Export, tmp_path: Path
) -> None:
    load.load(events(range(3)))
    export("csv")
    forget_listed(database, "user", "user1")
    execute(
        database,
        "UPDATE events SET \"user\" = 'gone' WHERE origin_offset = 1; INSERT INTO erased_records"
        " (erasure_id, place, topic, partition, \"offset\") SELECT id, 'events', 'user-events', 0, 1"
        " FROM erasures",
    )
    [problem] = proof(database, tmp_path).problems
    assert problem.startswith(
        "1 row of a forgotten person, and still in the file: export the day again"
    )
    assert problem.endswith("(first user-events/0/1)")


@pytest.mark.parametrize("kind", FORMATS)
def test_a_changed_or_damaged_file_is_named(
    load: Load, database: Settings, export: Export, tmp_path: Path, kind: Format
) -> None:
    load.load(events(range(1_000)))
    [done] = export(kind)
    path = Path(done.path)
    whole = path.read_bytes()
    if kind != "parquet":
        path.write_bytes(whole.replace(b"user5,", b"user6,").replace(b'"user5"', b'"user6"'))
        assert "the file has changed since it was written" in proof(database, tmp_path).problems
    path.write_bytes(whole[: len(whole) // 2])
    assert proof(database, tmp_path).verdict is Verdict.OPEN


def test_a_file_without_what_it_covers_is_named(
    load: Load, database: Settings, export: Export, tmp_path: Path
) -> None:
    load.load(events(range(3)))
    [done] = export("ndjson")
    export("csv")
    Path(f"{done.path}.covered.json").unlink()
    found = prove(database, [USER_EVENTS], str(tmp_path))
    assert found.verdict is Verdict.OPEN
    problems = {Path(file.path).suffix: file.problems for file in found.files}
    assert problems[".csv"] == ()
    assert "does not say what it covers" in problems[".ndjson"][0]
    with pytest.raises(UsageError, match="has no export of events: name the folder that"):
        proof(database, tmp_path / "elsewhere")


def test_days_without_a_file_are_named(
    load: Load, database: Settings, export: Export, tmp_path: Path
) -> None:
    load.load([
        FakeRecord(day, event_at(day, f"2026-07-0{day + 1}T12:00:00Z")) for day in range(5)
    ])  # fmt: skip
    export("parquet")
    for day in (1, 3, 5):
        shutil.rmtree(tmp_path / "events" / f"day=2026-07-0{day}")
    found = prove(database, [USER_EVENTS], str(tmp_path))
    assert found.verdict is Verdict.NOT_YET
    assert found.missing == {"events": [date(2026, 7, 3)]}
    assert found.outside == {"events": [date(2026, 7, 1), date(2026, 7, 5)]}
    shutil.rmtree(tmp_path / "events" / "day=2026-07-04")
    # What was not exported at all is told, and is no fault of what was.
    assert prove(database, [USER_EVENTS], str(tmp_path)).verdict is Verdict.CLOSED


def test_a_day_that_retention_dropped_stays_proved(
    load: Load, database: Settings, export: Export, tmp_path: Path
) -> None:
    load.load(events(range(3)))
    export("parquet")
    execute(
        database,
        "DELETE FROM events; INSERT INTO dropped_days (table_name, day, rows)"
        f" VALUES ('events', '{DAY}', 3)",
    )
    assert proof(database, tmp_path).verdict is Verdict.CLOSED
    execute(database, "UPDATE dropped_days SET rows = 4")
    assert proof(database, tmp_path).verdict is Verdict.OPEN


@pytest.mark.parametrize("kind", ["csv", "ndjson"])
def test_a_file_of_a_dropped_day_is_not_to_change_either(
    load: Load, database: Settings, export: Export, tmp_path: Path, kind: Format
) -> None:
    load.load(events(range(3)))
    [done] = export(kind)
    execute(
        database,
        "DELETE FROM events; INSERT INTO dropped_days (table_name, day, rows)"
        f" VALUES ('events', '{DAY}', 3)",
    )
    assert proof(database, tmp_path).verdict is Verdict.CLOSED
    path = Path(done.path)
    path.write_bytes(path.read_bytes().replace(b"user1", b"user2"))
    assert proof(database, tmp_path).problems == ("the file has changed since it was written",)


def test_a_day_that_was_exported_before_its_first_event(
    load: Load, database: Settings, tmp_path: Path
) -> None:
    with session(database, "test") as connection:
        export_day(connection, database, USER_EVENTS, DAY, Destination(str(tmp_path)), "parquet")
    assert proof(database, tmp_path).verdict is Verdict.CLOSED
    load.load(events(range(3)))
    found = proof(database, tmp_path)
    assert (found.verdict, found.later) == (Verdict.NOT_YET, 3)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_large_value(loaded: Settings, export: Export, tmp_path: Path, kind: Format) -> None:
    one = Load(loaded, [EVERY])
    value = EVERY.decoder.encode(every(0).model_copy(update={"text": "x," * 100_000}))
    one.load([FakeRecord(40, value, topic="every")])
    one.sink.close()
    export(kind, EVERY)
    assert proof(loaded, tmp_path, EVERY).verdict is Verdict.CLOSED


@pytest.mark.parametrize(("kind", "line"), [("csv", b"a\rb\n"), ("ndjson", b"[]\n")])
def test_a_line_that_is_no_row_is_damage(
    load: Load, database: Settings, export: Export, tmp_path: Path, kind: Format, line: bytes
) -> None:
    load.load(events(range(3)))
    [done] = export(kind)
    with Path(done.path).open("ab") as file:
        file.write(line)
    assert any("is damaged" in problem for problem in proof(database, tmp_path).problems)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_failed_export_leaves_the_file_that_was_there(
    load: Load, database: Settings, export: Export, kind: Format
) -> None:
    load.load(events(range(3)))
    [done] = export(kind)
    folder = Path(done.path).parent
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert len(before) == (1 if kind == "parquet" else 2)
    execute(database, "ALTER TABLE events RENAME COLUMN id TO other")
    with pytest.raises(Exception, match="id"):
        export(kind)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_any_store_that_fsspec_knows(load: Load, database: Settings, export: Export) -> None:
    load.load(events(range(3)))
    url = "memory://bucket/exports"
    export("parquet", url=url)
    assert proof(database, url).verdict is Verdict.CLOSED
    fsspec.filesystem("memory").rm("/bucket", recursive=True)
    with pytest.raises(UsageError, match="nowhere://x cannot be written to"):
        Destination("nowhere://x")


def test_the_commands(
    load: Load, database: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    load.load(events(range(1_000)))
    monkeypatch.setenv("DATABASE_URL", database.database)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[Any, str]:
        monkeypatch.setattr("sys.argv", ["streamflow", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        out = capsys.readouterr()
        return ended.value.code, " ".join((out.out + out.err).split())

    path = f"{tmp_path}/x/events/day={DAY}/events-{DAY}.csv"
    assert run("export", "user-events", "--format", "csv", "--out", "x") == (
        0,
        f"{DAY}: 1,000 events in {path} exported 1,000 events of 1 day",
    )
    assert run("export", "user-events", "--from", "2020-01-01", "--to", "2020-01-31") == (
        0,
        "events has no events of these days: nothing was written",
    )
    code, told = run("audit", "--export", "x")
    assert code == 0
    assert "closed: files and tables agree, row by row." in told
    load.load(events([1_000]))
    code, told = run("audit", "--export", "x", "--json")
    assert code == 1
    assert json.loads(told)["verdict"] == "not_yet"
    code, told = run("export", "user-events", "--from", "2026-02-02", "--to", "2026-02-01")
    assert (code, told) == (2, "error: --to is before --from")
    code, told = run("audit", "--export", "x", "--acknowledge")
    assert code == 2
    assert "--acknowledge is for the ledger, not for --export" in told
    code, told = run("export", "orders")
    assert code == 2
    assert "orders" in told


def test_the_sources_of_dbt_are_the_tables(database: Settings) -> None:
    from streamflow.export.dbt import sources

    [source] = yaml.safe_load(sources(database, [USER_EVENTS], "public"))["sources"]
    with psycopg.connect(database.database) as connection:
        for table in source["tables"]:
            found = connection.execute(
                "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute"
                " WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped",
                [table["name"]],
            ).fetchall()
            assert {(each["name"], each["data_type"]) for each in table["columns"]} == {*found}


def test_a_partition_of_the_asset_is_a_day(
    load: Load, database: Settings, stack_settings: Settings, tmp_path: Path
) -> None:
    load.load(events(range(10)))
    settings = orchestrated(
        stack_settings, DATABASE_URL=database.database, STREAMFLOW_EXPORT_URL=str(tmp_path),
        STREAMFLOW_PREFIX="",
    )  # fmt: skip
    with dg.DagsterInstance.ephemeral() as instance:
        one = Orchestration(instance, settings)
        result = one.materialize("exports/events", partition=str(DAY))
        assert result.success
        found = metadata_of(result, "exports/events")
    assert (found["dagster/row_count"], found["day_was_over"]) == (10, True)
    assert proof(database, tmp_path).verdict is Verdict.CLOSED
