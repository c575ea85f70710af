import re
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import AliasChoices, Field

from streamflow import Event, Hashed, Timestamp
from streamflow.dead_letters.builtin_repairs import add_zone, coerce_numbers, hash_address
from streamflow.dead_letters.plan import PlannedOutcome, Planner, _tally
from streamflow.dead_letters.repairs import Document, Repair, choose, known_repairs, repair
from streamflow.dead_letters.report import ReplayReport
from streamflow.dead_letters.select import DeadLetter, Status
from streamflow.dead_letters.store import Outcome
from streamflow.errors import ConfigurationError, UsageError
from streamflow.privacy import Hasher
from streamflow.records import Headers, Origin
from streamflow.settings import Settings
from streamflow.stream import Stream
from streamflow.stream_topics import Topics
from streamflow.streams.user_events import USER_EVENTS

HASHER = Hasher(b"key", USER_EVENTS.private_fields)
HASHED = HASHER.hash("ann@example.com")


def mended(with_: Repair, **document: Any) -> Document:
    return with_(document, USER_EVENTS, HASHER)


def test_an_address_is_hashed_once() -> None:
    once = mended(hash_address, user_email="ann@example.com", user="u")
    assert once == {"user_email": HASHED, "user": "u"}
    assert mended(hash_address, **once) == once


def test_addresses_at_any_depth_are_hashed() -> None:
    document = {"contacts": [{"user_email": ["ann@example.com", 7]}], "note": "ann@example.com"}
    assert mended(hash_address, **document) == {
        "contacts": [{"user_email": [HASHED, 7]}], "note": "ann@example.com"
    }  # fmt: skip


@pytest.mark.parametrize("value", [None, 7, "", HASHED])
def test_what_is_no_clear_text_stays(value: Any) -> None:
    assert mended(hash_address, user_email=value) == {"user_email": value}


@pytest.mark.parametrize(
    ("text", "number"), [("7", 7), ("-3", -3), ("007", 7), ("9007199254740993", 2**53 + 1)]
)
def test_text_becomes_the_number_that_it_says(text: str, number: int) -> None:
    assert mended(coerce_numbers, id=text) == {"id": number}


@pytest.mark.parametrize(
    "text", ["", "seven", "7.0", " 7", "7\n", "1_000", "\u0667", "9" * 41, "0x1"]
)
def test_text_that_is_no_whole_number_stays(text: str) -> None:
    assert mended(coerce_numbers, id=text) == {"id": text}


def test_only_fields_that_are_numbers_become_numbers() -> None:
    assert mended(coerce_numbers, user="7", other="7") == {"user": "7", "other": "7"}


def test_a_time_without_a_zone_is_utc() -> None:
    assert mended(add_zone, timestamp="2026-03-01T12:00:00.5") == {
        "timestamp": "2026-03-01T12:00:00.5Z"
    }


@pytest.mark.parametrize(
    "text", ["2026-03-01T12:00:00Z", "2026-03-01T12:00:00+02:00", "2026-03-01", "noon", ""]
)
def test_any_other_time_stays(text: str) -> None:
    assert mended(add_zone, timestamp=text) == {"timestamp": text}


class Aliased(Event):
    number: Annotated[int, Field(alias="orderNumber")]
    weight: Annotated[float, Field(validation_alias=AliasChoices("weightKg", "weight_kg"))]
    placed: Annotated[Timestamp, Field(alias="placedAt")]
    mail: Annotated[Hashed | None, Field(alias="mailAddress")] = None


ALIASED = Stream(name="a", contract=Aliased, table="a", key="number", event_time="placed")


@pytest.mark.parametrize(
    ("with_", "text", "names", "result"),
    [
        (coerce_numbers, "7", ("number", "orderNumber"), 7),
        (coerce_numbers, "7.5", ("weight", "weightKg", "weight_kg"), 7.5),
        (add_zone, "2026-03-01T12:00:00", ("placed", "placedAt"), "2026-03-01T12:00:00Z"),
        (hash_address, "ann@example.com", ("mail", "mailAddress"), HASHED),
    ],
)
def test_fields_have_their_names_in_json_too(
    with_: Repair, text: str, names: tuple[str, ...], result: Any
) -> None:
    repaired = with_(dict.fromkeys(names, text), ALIASED, HASHER)
    assert repaired == dict.fromkeys(names, result)


def test_unknown_repairs_are_named_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"no repair nope: choose from hash_address \(.*add_zone"):
        choose(Settings(), ["add_zone", "nope"])


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = "repairs_of_a_team"
    (tmp_path / f"{name}.py").write_text(
        "from streamflow.dead_letters.repairs import repair\n"
        "@repair('upper_type', 'Writes the type in capitals.')\n"
        "def upper_type(document, stream, hasher):\n"
        "    return {**document, 'type': document['type'].upper()}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, name, raising=False)
    return name


def test_a_team_adds_its_own(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMFLOW_REPAIRS", f" {module} ,")
    settings = Settings()

    assert settings.repairs == (module,)
    [found] = choose(settings, ["upper_type"])
    assert mended(found, type="user_login") == {"type": "USER_LOGIN"}
    assert {"hash_address", "coerce_numbers", "add_zone"} < known_repairs(settings).keys()


@pytest.mark.parametrize(
    ("modules", "says"),
    [
        (("no_such_module",), "STREAMFLOW_REPAIRS: there is no module no_such_module"),
        (("json",), "has no repair"),
    ],
)
def test_a_module_without_repairs(modules: tuple[str, ...], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        known_repairs(Settings(STREAMFLOW_REPAIRS=modules))


def test_two_repairs_of_one_name(module: str) -> None:
    sys.modules[module] = sys.modules[__name__]  # holds one named as a built-in one is
    with pytest.raises(ConfigurationError, match="two repairs have the name add_zone"):
        known_repairs(Settings(STREAMFLOW_REPAIRS=(module,)))


@repair("add_zone", "Clashes.")
def clashing(document: Document, _stream: Stream, _hasher: Hasher) -> Document:
    return document


@repair("raising", "Raises.")
def raising(document: Document, _stream: Stream, _hasher: Hasher) -> Document:
    raise ValueError(f"not in a report: {document}")


@repair("wrong", "Returns no document.")
def wrong(document: Document, _stream: Stream, _hasher: Hasher) -> Document:
    return list(document)  # type: ignore[return-value]


EVENT = b'{"id":1, "type":"USER_LOGIN","user":"u","timestamp":"2026-03-01T12:00:00Z"}'
NO_ZONE = EVENT.replace(b"00Z", b"00")


def letter(value: bytes | None, **changes: Any) -> DeadLetter:
    source = Origin("user-events", 0, 7)
    # Own headers of the dead letter are not sent with its replay.
    headers: Headers = [("trace", b"1"), ("trace", None), ("__connect.errors.offset", b"7")]
    plain = DeadLetter(
        id=source,
        origin=source,
        identity=source,
        record=Origin("dead-letter-topic", 0, 1),
        error_code="SCHEMA_VIOLATION",
        stage="validator",
        group_name="validator",
        exception="",
        message="",
        attempt=0,
        redacted=False,
        status=Status.OPEN,
        failed_at=None,
        appended_at=None,
        loaded_at=datetime(2026, 3, 1, tzinfo=UTC),
        is_read=True,
        key=b"key",
        value=value,
        size=None if value is None else len(value),
        headers=headers,
    )
    return replace(plain, **changes)


def judged(
    dead_letter: DeadLetter, *repairs: Repair, limit: int = 3, force: bool = False
) -> PlannedOutcome:
    planner = Planner([USER_EVENTS], HASHER, repairs, max_attempts=limit, force=force)
    return planner.judge(dead_letter)


def test_a_dead_letter_goes_back_where_it_came_from() -> None:
    record = judged(letter(EVENT, attempt=1, identity=Origin("user-events", 0, 3))).record
    assert record is not None
    assert record[:3] == ("user-events", b"key", EVENT)
    assert record.headers == [
        ("trace", b"1"),
        ("trace", None),
        ("__streamflow.origin", b"user-events/0/3"),
        ("__streamflow.attempt", b"2"),
    ]


@pytest.mark.parametrize(
    ("topics", "reason"),
    [
        (Topics(), None),
        (Topics(replays=False), r"Topics\(replays=False\)"),
        (Topics(managed=False), r"producer send .* again, .*Topics\(managed=False, replays=True\)"),
        (Topics(managed=False, replays=True), None),
    ],
)
def test_no_replay_appends_to_another_owner_s_topic(topics: Topics, reason: str | None) -> None:
    planner = Planner([replace(USER_EVENTS, topics=topics)], HASHER, (), max_attempts=3)
    planned = planner.judge(letter(EVENT))
    assert (planned.record is None) == (reason is not None)
    if reason is not None:
        assert (planned.outcome, planned.reason) == (Outcome.FAILS, "NOT_OURS")
        assert re.search(reason, planned.message)
    # What would fail anyway says why.
    assert planner.judge(letter(NO_ZONE)).reason == "SCHEMA_VIOLATION"


def test_bytes_that_no_repair_changes_stay_the_same_bytes() -> None:
    record = judged(letter(EVENT), hash_address, coerce_numbers, add_zone).record
    assert record is not None
    assert record.value == EVENT


@pytest.mark.parametrize(
    ("dead_letter", "repairs", "unrepaired"),
    [
        (letter(NO_ZONE), (), False),
        (letter(NO_ZONE), (coerce_numbers,), True),
        (letter(NO_ZONE), (coerce_numbers, add_zone), False),
        (letter(NO_ZONE.replace(b"1,", b'"1",')), (coerce_numbers,), False),
        (letter(b"not JSON"), (add_zone,), True),
        (letter(None), (add_zone,), True),
        (letter(EVENT), (raising,), False),
        (letter(EVENT, attempt=3), (add_zone,), False),
    ],
)
def test_a_plan_knows_what_no_repair_changes(
    dead_letter: DeadLetter, repairs: tuple[Repair, ...], unrepaired: bool
) -> None:
    planned = judged(dead_letter, *repairs)
    assert planned.unrepaired is unrepaired
    report = ReplayReport(dry_run=True, plan_id=7)
    _tally(report, [planned])
    assert report.as_dict()["unrepaired"] == unrepaired
    assert ("1 of them as before" in report.summary()) is unrepaired


def test_repairs_are_combined_in_order() -> None:
    broken = NO_ZONE.replace(b"1,", b'"1",')
    assert judged(letter(broken), coerce_numbers).outcome is Outcome.FAILS
    assert judged(letter(broken), coerce_numbers, add_zone).outcome is Outcome.PASSES


@pytest.mark.parametrize(
    ("dead_letter", "repairs", "reason"),
    [
        (letter(NO_ZONE), (), "SCHEMA_VIOLATION"),
        (letter(None), (add_zone,), "EMPTY_VALUE"),
        (letter(b"\xff"), (add_zone,), "INVALID_UTF8"),
        (letter(b"[" * 100_000), (add_zone,), "INVALID_JSON"),
        (letter(b"[1]"), (add_zone,), "SCHEMA_VIOLATION"),
        (letter(EVENT.replace(b'"u"', b'"\\ud800"')), (add_zone,), "UNSTORABLE_VALUE"),
        (letter(NO_ZONE.replace(b'"u"', b'"\\ud800"')), (add_zone,), "UNSTORABLE_VALUE"),
        (letter(EVENT), (raising,), "REPAIR_FAILED"),
        (letter(EVENT), (wrong,), "REPAIR_FAILED"),
        (letter(EVENT, is_read=False), (), "NOT_LOADED_YET"),
        (letter(EVENT, id=Origin("dead-letter-topic", 0, 1)), (), "NOT_REPLAYABLE"),
        (letter(EVENT, id=Origin("elsewhere", 0, 1)), (), "NOT_REPLAYABLE"),
        (letter(b"{}", id=Origin("analytics", 0, 1)), (), "SCHEMA_VIOLATION"),
        (letter(b"{}", id=Origin("notifications", 0, 1)), (), "SCHEMA_VIOLATION"),
        (letter(EVENT, headers=[("big", b"x" * 2**20)]), (), "TOO_LARGE"),
    ],
)
def test_what_cannot_be_sent(
    dead_letter: DeadLetter, repairs: tuple[Repair, ...], reason: str
) -> None:
    planned = judged(dead_letter, *repairs)
    assert (planned.outcome, planned.reason, planned.record) == (Outcome.FAILS, reason, None)
    assert "USER_LOGIN" not in planned.message


def test_the_limit_of_attempts() -> None:
    tired = letter(EVENT, attempt=3)
    assert judged(tired).outcome is Outcome.QUARANTINED
    assert judged(tired).reason == "TOO_MANY_ATTEMPTS"
    assert judged(tired, limit=4).outcome is Outcome.PASSES
    assert judged(tired, force=True).outcome is Outcome.PASSES
