"""The two-minute form of `make chaos`, and that its faults are what their names say."""

import json
import random

import psycopg
import pytest
from losses import LAST, LOSING, PLANTED, planted
from nemesis import FAULTS
from oracle import Verdict
from rounds import Round, main, plan
from soak import Sample, growing

from loads import FakeRecord, Load, dead_letter, events, value, window_count
from streamflow.settings import Settings

# What no other test of `make test` does to a whole pipeline.
SHORT = (
    "SIGKILL broker", "break in COPY", "replay killed, and two at once", "an event is gone",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.acceptance
@pytest.mark.timeout(600)
def test_nothing_is_lost_under_faults() -> None:
    options = {"--seed": "1", "--minutes": "1.2", "--rate": "300", "--faults": ";".join(SHORT)}
    assert main([word for option in options.items() for word in option]) == 0


def test_each_fault_has_its_turn_before_one_comes_again() -> None:
    turns = plan(random.Random(3), list(FAULTS))
    first, second = ([next(turns) for _ in FAULTS] for _ in range(2))
    assert sorted(first) == sorted(second) == sorted(FAULTS)
    assert first != second
    repeated = plan(random.Random(3), list(FAULTS))
    assert [next(repeated) for _ in FAULTS] == first
    assert FAULTS.keys().isdisjoint(LAST)
    assert LOSING.keys() <= LAST.keys()
    assert set(SHORT) <= FAULTS.keys() | PLANTED.keys() | LAST.keys()


@pytest.mark.integration
def test_what_is_planted_is_taken_back(load: Load, database: Settings) -> None:
    note = {"message": "m", "time": "2026-07-01T12:00:01Z", "event_id": 1, "user": "user1"}
    load.load(
        [
            *events(range(1, 6)),
            FakeRecord(0, json.dumps(note).encode(), topic="notifications"),
            dead_letter(0, "user-events/0/3", 3),
            window_count(0, 1),
        ]
    )

    def numbers() -> dict[str, int]:
        tables = ("events", "notifications", "dead_letters", "window_counts")
        return {table: value(database, f"SELECT count(*) FROM {table}") for table in tables}

    before = numbers()
    for what, (table, *_, gone) in PLANTED.items():
        with psycopg.connect(database.database, autocommit=True) as connection:
            with planted(connection, what):
                assert numbers() == before | {table: before[table] + (-1 if gone else 1)}
            assert numbers() == before


def test_what_was_lost_before_is_no_loss_of_this_round() -> None:
    verdict = Verdict(10)
    verdict.lost["events"] = 5
    assert Round("topic recreated", 10, 1.0, 0, verdict, "open: gap_recreated", 4).good
    assert not Round("topic recreated", 10, 1.0, 0, verdict, "open: gap_recreated", 5).good


@pytest.mark.parametrize(
    ("fault", "lost", "audit", "good"),
    [
        ("SIGKILL broker", 0, "closed", True),
        ("SIGKILL broker", 1, "closed", False),
        ("SIGKILL broker", 0, "not yet: []", False),
        ("records removed", 1, "open: gap_retention; []", True),
        ("records removed", 1, "open: twice; []", False),
        # The worst fault there is.
        ("records removed", 1, "closed", False),
        ("records removed", 0, "closed", False),
        ("an event is gone", 1, "open: rows_vanished; []", True),
        ("an event is gone", 1, "closed", False),
        ("an event is gone", 0, "open: rows_vanished; []", False),
    ],
)
def test_an_audit_that_says_otherwise_than_the_oracle_is_no_good(
    fault: str, lost: int, audit: str, good: bool
) -> None:
    verdict = Verdict(10)
    verdict.lost["events"] = lost
    assert Round(fault, 10, 1.0, 0, verdict, audit).good is good


def test_a_round_that_was_never_mended_is_no_good() -> None:
    assert not Round("SIGKILL broker", 10, None, 0, Verdict(10), "closed").good


@pytest.mark.parametrize(("each_minute", "grows"), [(0.0, False), (0.05, False), (1.0, True)])
def test_growth_is_seen_through_noise_and_restarts(each_minute: float, grows: bool) -> None:
    chance, samples = random.Random(1), []
    for second in range(0, 1800, 5):
        age = float(second % 600)
        memory = 100 + each_minute * second / 60 + chance.uniform(-1, 1) - (50 if age < 30 else 0)
        samples.append(Sample("loader", float(second), memory, 20, 9, 4, age, second // 600))
    assert bool(growing(samples, 1800)) is grows


@pytest.mark.parametrize(
    ("minutes", "each_minute", "grows"),
    [(30, 0.5, False), (30, 1.0, True), (120, 0.0, False), (120, 0.2, True)],
)
def test_a_cache_of_the_code_server_may_fill_but_not_for_ever(
    minutes: int, each_minute: float, grows: bool
) -> None:
    seconds = minutes * 60
    samples = [
        Sample("dagster-code", second, 100 + each_minute * second / 60, 20, 9, 4, second, 1)
        for second in map(float, range(0, seconds, 20))
    ]
    assert bool(growing(samples, seconds)) is grows
