"""A new key of hashes in tables of windows: groups and values get new names, also as they are loaded."""

import hmac
from datetime import timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from installations import Installation
from loads import rows, value
from streamflow import Count, Distinct, Event, First, Hashed, Min, Stream, Timestamp, TumblingWindow
from streamflow.postgres.forgotten import ERASED_HASH
from streamflow.postgres.rehash import rehash
from streamflow.postgres.rows.windows import WindowRows
from streamflow.postgres.windows.tables import window_tables
from streamflow.registry import hasher_for
from streamflow.settings import Settings
from streamflow_cli.app import app
from window_parts import NOON, Placed

pytestmark = pytest.mark.integration


class Click(Event):
    email: Hashed | None
    page: str
    at: Timestamp


CLICKS = Stream(
    name="clicks", contract=Click, table="clicks", key="page", event_time="at",
    windows=[
        TumblingWindow("10s", by="email", idle="2s", n=Count()),
        TumblingWindow(
            "1min", by="page", idle="2s", n=Count(), who=First("email"), least=Min("email"),
            mails=Distinct("email"),
        ),
    ],
)  # fmt: skip
KEYS = '{"2026a": "new", "legacy": "old"}'
OLD = {name: hmac.new(b"old", name.encode(), "sha256").hexdigest() for name in ("ann", "bob")}


def with_keys(settings: Settings) -> Settings:
    return settings.model_copy(update={"pii_key": Settings(STREAMFLOW_PII_KEY=KEYS).pii_key})


def clicks(hashes: dict[str, str], first: int = 0) -> list[Placed]:
    """A minute of them, and one that closes the windows of the others."""
    made = [
        Click(
            email=list(hashes.values())[number % 2] if number % 5 else None,
            page="ab"[number % 3 == 0],
            at=NOON + timedelta(seconds=number),
        )
        for number in range(60)
    ]
    made.append(made[0].model_copy(update={"at": NOON + timedelta(minutes=9)}))
    return [Placed(0, first + number, each) for number, each in enumerate(made)]  # type: ignore[arg-type]


@pytest.fixture
def lifted(database: Settings) -> dict[str, str]:
    keys = hasher_for(with_keys(database), [CLICKS]).keys
    found = {name: keys.lifted(old) for name, old in OLD.items()}
    assert None not in found.values()
    return {name: str(new) for name, new in found.items()}


def groups(settings: Settings) -> list[tuple[object, ...]]:
    return rows(settings, "SELECT email, sum(n)::int FROM clicks_10s_totals GROUP BY 1 ORDER BY 1")


def test_groups_and_values_are_lifted_once(database: Settings, lifted: dict[str, str]) -> None:
    own = Installation(database, CLICKS)
    own.load(clicks(OLD))
    # The same windows again, of a producer that has the new key already.
    own.load(clicks(lifted, 61))
    before = dict(groups(database))
    settings = with_keys(database)
    done = rehash(settings, [CLICKS])
    figures = {(each.table, each.column): each.lifted for each in done if not each.is_sketch}
    for column in ("who", "least"):
        assert figures["clicks_1min", column] > 0
    assert dict(groups(database)) == {
        None: before[None], **{lifted[name]: before[OLD[name]] + before[lifted[name]] for name in OLD}
    }  # fmt: skip
    old = "|".join(OLD.values())
    for table in ("clicks_10s", "clicks_1min"):
        assert (
            value(database, f"SELECT count(*) FROM {table} AS part WHERE part::text ~ '{old}'") == 0
        )
        assert own.problems(table) == []
    [note] = [note for each in done for note in each.notes()]
    assert note.startswith("clicks_1min.mails counts different hashes")
    # As it says: of two persons, four.
    assert value(database, "SELECT max(mails) FROM clicks_1min_totals") == 4
    again = rehash(settings, [CLICKS])
    assert not any(each.lifted for each in again)
    assert not any(each.notes() for each in again)


def test_an_erased_group_is_no_hash(database: Settings) -> None:
    own = Installation(database, CLICKS)
    own.load(clicks({"ann": ERASED_HASH, "bob": ERASED_HASH}))
    assert not any(each.lifted for each in rehash(with_keys(database), [CLICKS]))
    assert ERASED_HASH in dict(groups(database))


def test_parts_are_lifted_as_they_are_loaded(database: Settings, lifted: dict[str, str]) -> None:
    own = Installation(database, CLICKS)
    own.load(clicks(OLD))
    keys = hasher_for(with_keys(database), [CLICKS]).keys
    parts = {table.name: WindowRows(table, keys) for table in window_tables(CLICKS)}
    lines = []
    for record in own.loaded:
        if record.topic() == CLICKS.analytics_topic:
            [rows_of] = [
                made
                for name, made in parts.items()
                if f'"{name}"'.encode() in (record.value() or b"")
            ]
            line = rows_of.line(record, None)
            assert isinstance(line, bytes)
            lines.append(line)
    text = b"".join(lines).decode()
    for name, old in OLD.items():
        assert old not in text
        assert lifted[name] in text


def test_the_command_tells_what_cannot_be_lifted(
    database: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Installation(database, CLICKS)
    own.load(clicks(OLD))
    for name, content in {
        "DATABASE_URL": database.database,
        "STREAMFLOW_STREAMS": "test_rehash_windows:CLICKS",
        "STREAMFLOW_PII_KEY": KEYS,
        "STREAMFLOW_STATE_DIR": str(tmp_path),
    }.items():
        monkeypatch.setenv(name, content)
    monkeypatch.chdir(Path(__file__).parent)
    done = CliRunner().invoke(app, ["db", "rehash"])
    assert done.exit_code == 0, done.output
    assert "clicks_10s.email: " in done.stdout
    assert "mails" not in done.stdout
    assert "note: clicks_1min.mails counts different hashes" in done.stderr
