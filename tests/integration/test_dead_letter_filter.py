"""One filter of dead letters: dashboard, `streamflow dlq list` and a replay plan agree on what it matches."""

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

import order_streams
from loads import TOPIC, FakeRecord, Load, rows
from order_streams import ORDERS
from pipeline import environment
from streamflow.dead_letter_records import build
from streamflow.dead_letters.select import Status, read
from streamflow.errors import ErrorCode
from streamflow.postgres.connections import session
from streamflow.privacy import Hasher
from streamflow.records import Origin, Rejection
from streamflow.settings import Settings
from streamflow_cli.app import main
from streamflow_cli.dead_letter_views import dead_letter_json
from streamlit_app.records.pinned import DeadLetterFilter
from streamlit_app.records.queries import dead_letter, dead_letters

pytestmark = pytest.mark.integration

Command = Callable[..., str]

HASHER = Hasher(private_fields=("user_email",))
NOW = datetime.now(UTC)
# Value, message and header of each dead letter; its offset is its place in the list.
CONTENTS = [
    (b'{"a": "needle"}', "not a number", b"x"),
    (b"{}", "no needle here", b"x"),
    (b"{}", "not a number", b"needle"),
    (b'{"a": "Needle", "user_email": "ann@example.com"}', "an xylophone", b"\xff"),
]
OLD, OTHER_CODE = 0, 1


@pytest.fixture
def filled(load: Load) -> None:
    """Four dead letters; the first is two hours old, the second has another error code."""
    load.load([FakeRecord(offset, value) for offset, (value, _, _) in enumerate(CONTENTS)])
    for offset, (value, message, header) in enumerate(CONTENTS):
        code = ErrorCode.UNKNOWN_TYPE if offset == OTHER_CODE else ErrorCode.SCHEMA_VIOLATION
        made = build(
            FakeRecord(offset, value, headers=[("trace", header)]),
            Rejection(code, "ValueError", message),
            stage="validator",
            group="validators",
            topic="dead-letter-topic",
            hasher=HASHER,
            now=NOW - timedelta(hours=2) if offset == OLD else NOW,
        )
        load.load([FakeRecord(offset, made.value, topic=made.topic, headers=made.headers)])


@pytest.fixture
def command(
    database: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Runs `streamflow dlq …` and returns its output."""
    for name, content in environment(database).items():
        monkeypatch.setenv(name, content)

    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["streamflow", "dlq", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit):
            main()
        return capsys.readouterr().out

    return run


@pytest.mark.parametrize(
    ("shown", "arguments", "offsets"),
    [
        ({}, (), [0, 1, 2, 3]),
        ({"text": "needle"}, ("--text", "needle"), [0, 1]),
        ({"text": '"needle'}, ("--text", '"needle'), [0]),
        ({"text": "needle here"}, ("--text", "needle here"), [1]),
        ({"text": " needle"}, ("--text", " needle"), [1]),
        ({"text": "x"}, ("--text", "x"), [3]),  # headers are not searched
        ({"text": "ann@example.com"}, ("--text", "ann@example.com"), [3]),
        ({"codes": ("UNKNOWN_TYPE",)}, ("--code", "UNKNOWN_TYPE"), [1]),
        ({"span": 3600.0}, ("--since", "1h"), [1, 2, 3]),
        ({"span": 3600.0, "text": "needle"}, ("--since", "1h", "--text", "needle"), [1]),
    ],
)
@pytest.mark.usefixtures("filled")
def test_a_filter_matches_the_same_everywhere(
    database: Settings,
    command: Command,
    shown: dict[str, Any],
    arguments: tuple[str, ...],
    offsets: list[int],
) -> None:
    expected = {str(Origin(TOPIC, 0, offset)) for offset in offsets}

    selection = DeadLetterFilter(**shown, status="open").selection(HASHER, datetime.now(UTC))
    on_the_page = dead_letters(database, selection)
    assert {str(letter.id) for letter in on_the_page.rows} == expected
    assert sum(on_the_page.counts.values()) == len(expected)

    listed = command("list", *arguments, "--json").splitlines()
    assert {json.loads(line)["id"] for line in listed} == expected

    plan_id = json.loads(command("replay", *arguments, "--json"))["plan_id"]
    planned = rows(
        database,
        "SELECT source_topic, source_partition, source_offset FROM replay_plan_letters"
        f" WHERE plan_id = {plan_id}",
    )
    assert {str(Origin(*position)) for position in planned} == expected


@pytest.mark.usefixtures("filled")
def test_a_status_and_ids_match_the_same(database: Settings, command: Command) -> None:
    ids = [str(Origin(TOPIC, 0, offset)) for offset in (1, 3)]
    named = [part for id_ in ids for part in ("--id", id_)]
    assert {json.loads(line)["id"] for line in command("list", *named, "--json").splitlines()} == {
        *ids
    }
    assert json.loads(command("replay", *named, "--json"))["selected"] == 2
    for status in (None, *Status):
        selection = DeadLetterFilter(status=status).selection(HASHER, datetime.now(UTC))
        listed = command("list", "--status", status or "any", "--json").splitlines()
        assert len(dead_letters(database, selection).rows) == len(listed)


@pytest.mark.usefixtures("filled")
def test_dead_letters_are_listed_and_replayed_by_stream(
    database: Settings, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMFLOW_STREAMS", order_streams.STREAMS)
    insert = (
        "INSERT INTO dead_letters (source_topic, source_partition, source_offset, origin_topic,"
        " origin_partition, origin_offset, record_topic, record_partition, record_offset, error_code,"
        " stage, group_name, exception, message, attempt, redacted, headers)"
        " VALUES (%s, 0, %s, %s, 0, 0, 'dead-letter-topic', 0, %s, 'SCHEMA_VIOLATION', 'loader', 'g',"
        " 'ValueError', 'wrong', 0, false, '[]')"
    )
    orders = ORDERS.name
    theirs = [
        (orders, 0, orders),
        ("notifications", 1, orders),
        (f"{orders}@ab12", 2, f"{orders}@ab12"),  # set aside when the topic was recreated
    ]
    others = [
        ("notifications", 3, TOPIC),
        (TOPIC, 4, orders),  # whose header claims to be a replay of an order
        (f"{orders}-archive", 5, f"{orders}-archive"),
    ]
    with psycopg.connect(database.database) as connection:
        for source, offset, origin in theirs + others:
            connection.execute(insert, [source, offset, origin, 100 + offset])

    listed = command("list", "--stream", orders, "--json").splitlines()
    assert {json.loads(line)["id"] for line in listed} == {
        str(Origin(source, 0, offset)) for source, offset, _ in theirs
    }
    assert json.loads(command("replay", "--stream", orders, "--json"))["selected"] == len(theirs)
    listed = command("list", "--stream", TOPIC, "--text", "needle", "--json").splitlines()
    assert len(listed) == 2


@pytest.mark.usefixtures("filled")
def test_a_dead_letter_is_the_same_for_page_command_and_replay(
    database: Settings, command: Command
) -> None:
    id_ = Origin(TOPIC, 0, 3)
    page = dead_letter(database, id_)
    assert page is not None
    with session(database, "test") as connection:
        [replayed] = read(connection, [id_], group=database.group("loader"))
    assert page == replayed
    assert (page.is_read, page.redacted, page.size) == (True, True, len(page.value or b""))
    assert HASHER.hash("ann@example.com").encode() in (page.value or b"")
    assert page.original_headers == [("trace", b"\xff")]
    shown = json.loads(command("show", str(id_), "--json"))
    assert shown == dead_letter_json(page, [])
    assert shown["headers"][0] == ["trace", {"base64": "/w=="}]
    assert dead_letter(database, Origin(TOPIC, 0, 99)) is None
