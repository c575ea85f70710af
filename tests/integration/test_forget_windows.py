"""A person is forgotten in tables of windows (G16): what names them goes, the totals of others stay."""

import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from installations import Installation
from loads import execute, forget_listed, rows, value
from streamflow import (
    Count,
    Distinct,
    Event,
    First,
    Hashed,
    HoppingWindow,
    Last,
    Max,
    Min,
    Quantiles,
    Stream,
    Sum,
    Timestamp,
    TumblingWindow,
)
from streamflow.aggregates.distinct import hash_of
from streamflow.erasure import erase
from streamflow.erasure.certificate import Certificate
from streamflow.postgres.forgotten import ERASED_HASH, Kind
from streamflow.privacy import Hasher
from streamflow.settings import Settings
from window_parts import NOON, Placed

pytestmark = pytest.mark.integration


class Visit(Event):
    user: str
    email: Hashed | None
    city: str | None
    total: Decimal
    at: Timestamp


VISITS = Stream(
    name="visits", contract=Visit, table="visits", key="user", event_time="at",
    windows=[
        TumblingWindow(
            "10s", by=("user", "email"), idle="2s", n=Count(), spent=Sum("total"), least=Min("total")
        ),
        HoppingWindow(
            "1min", every="10s", by="city", idle="2s", n=Count(), spent=Sum("total"),
            mails=Distinct("email"), users=Distinct("user"), a=Min("user"), b=Max("email"),
            opening=First("city"), closing=Last("email"), who=First("user"), values=Quantiles("total"),
        ),
    ],
)  # fmt: skip
OWN, SHARED = "visits_10s", "visits_1min_by_10s"
MAIL = {name: Hasher().hash(f"{name}@example.com") for name in ("ann", "bob", "zoe")}
LONG = "ann " * 100  # a name that windows shorten


def visits() -> list[Placed]:
    """Of Ann and others, some of them without an address."""
    rng = random.Random(1)
    made = []
    for offset in range(60):
        name = rng.choice(["ann", "ann", "bob", "zoe"])
        made.append(
            Visit(
                user=name,
                email=rng.choice([MAIL[name], MAIL[name], None]),
                city=rng.choice(["Rome", "Oslo", None]),
                total=Decimal(offset),
                at=NOON + timedelta(seconds=offset),
            )
        )
    closing = {"user": "bob", "email": None, "at": NOON + timedelta(minutes=9)}
    made.append(made[0].model_copy(update=closing))
    return [Placed(0, offset, each) for offset, each in enumerate(made)]


def forget(
    settings: Settings, kind: Kind, text: str, streams: Sequence[Stream] = (VISITS,)
) -> Certificate:
    subject = erase.parse_subject(settings, streams, kind, text)
    planned = erase.plan(settings, streams, subject, requested_by="tests")
    done = erase.apply(settings, streams, subject, requested_by="tests")
    assert done.erased == planned.erased
    after = erase.plan(settings, streams, subject, requested_by="tests")
    assert not any(after.erased.values())
    assert after.already_erased == {
        table: done.erased.get(table, 0) + done.already_erased.get(table, 0)
        for table in done.erased | done.already_erased
    }
    return done


def holding(settings: Settings, *words: str) -> dict[str, int]:
    """The tables of windows that hold one of these texts, or what a sketch keeps of one."""
    forms = [form for word in words for form in (word, str(hash_of(word)))]
    held = " OR ".join(f"part::text ~ '\\y{form}\\y'" for form in forms)
    numbers = {
        table: value(settings, f"SELECT count(*) FROM {table} AS part WHERE {held}")
        for table in (OWN, SHARED)
    }
    return {table: number for table, number in numbers.items() if number}


def of_others(settings: Settings, condition: str) -> list[tuple[Any, ...]]:
    return rows(settings, f"SELECT * FROM {OWN}_totals WHERE {condition} ORDER BY 1, 2, 3, 4")


def numbers(settings: Settings) -> list[tuple[Any, ...]]:
    """What stays of all."""
    return rows(
        settings,
        'SELECT window_start, city, n, spent, "values_p50", counted, too_late'
        f" FROM {SHARED}_totals ORDER BY 1, 2",
    )


@pytest.fixture
def own(database: Settings, monkeypatch: pytest.MonkeyPatch) -> Installation:
    monkeypatch.setattr(erase, "with_kafka", lambda *given: given[-1])
    made = Installation(database, VISITS)
    made.load(visits())
    return made


def test_an_address_is_gone_and_all_else_stays(own: Installation, database: Settings) -> None:
    hashed = MAIL["ann"]
    others = f"email IS DISTINCT FROM '{hashed}' AND email IS DISTINCT FROM '{ERASED_HASH}'"
    kept, before = of_others(database, others), numbers(database)
    named = holding(database, hashed)
    assert named[OWN] > 2
    assert named[SHARED] > 2
    counted = value(database, f"SELECT sum(mails) FROM {SHARED}_totals")

    done = forget(database, Kind.ADDRESS, "ann@example.com")

    assert holding(database, hashed) == {}
    assert of_others(database, others) == kept
    assert numbers(database) == before
    # Windows without her address are left alone; her first values are gone where no hash is.
    assert done.erased[OWN] == named[OWN]
    assert done.erased[SHARED] >= named[SHARED]
    erased = rows(
        database, f"SELECT n, spent, \"user\" FROM {OWN}_totals WHERE email = '{ERASED_HASH}'"
    )
    assert sum(n for n, *_ in erased) == sum(
        each.order.email == hashed
        for each in visits()  # type: ignore[attr-defined]
    )
    # She is no longer one of the different addresses; other ones are.
    assert value(database, f"SELECT sum(mails) FROM {SHARED}_totals") < counted
    assert holding(database, MAIL["bob"]).keys() == {OWN, SHARED}
    for table in (OWN, SHARED):
        assert own.problems(table) == []
    [(places, held)] = rows(
        database,
        "SELECT count(*), count(DISTINCT topic) FROM erased_records WHERE starts_with(place, 'windows ')",
    )
    assert (places, held) == (done.erased[OWN] + done.erased[SHARED], 1)
    assert ("analytics", 0) in done.positions
    [groups] = [place for place in done.elsewhere if place.startswith("groups of windows")]
    assert "nobody by themselves: visits_1min_by_10s by city (docs" in groups


@pytest.mark.usefixtures("own")
def test_a_first_value_of_an_erased_event_is_gone(database: Settings) -> None:
    """It names nobody, but is what an erased row had."""
    theirs = f"""
        SELECT count(*) FROM {SHARED} AS part JOIN erased_records AS erased
            ON (erased.topic, erased.partition, erased."offset")
             = (part.origin_topic, part.partition, part.opening_offset)
         WHERE place = 'events'
    """
    named = f"SELECT count(*) FROM {SHARED} WHERE opening IS NOT NULL"
    before = value(database, named)
    forget(database, Kind.ADDRESS, "ann@example.com")
    emptied = value(database, f"{theirs} AND opening IS NULL")
    assert value(database, theirs) == emptied > 0
    assert value(database, named) == before - emptied


def test_a_user_is_gone_by_name(own: Installation, database: Settings) -> None:
    others = "\"user\" NOT IN ('ann', 'erased')"
    kept, before = of_others(database, others), numbers(database)
    assert holding(database, "ann").keys() == {OWN, SHARED}
    forget(database, Kind.USER, "ann")
    assert holding(database, "ann") == {}
    assert of_others(database, others) == kept
    assert numbers(database) == before
    for table in (OWN, SHARED):
        assert own.problems(table) == []


@pytest.mark.parametrize(("kind", "text"), [(Kind.ADDRESS, "ann@example.com"), (Kind.USER, "ann")])
def test_nothing_comes_back(own: Installation, database: Settings, kind: Kind, text: str) -> None:
    """Not with the records, whatever is loaded first, nor with late events."""
    word = MAIL["ann"] if kind is Kind.ADDRESS else "ann"
    forget(database, kind, text)
    before = {
        table: rows(database, f"SELECT * FROM {table}_totals ORDER BY 1, 2, 3, 4, 5")
        for table in (OWN, SHARED)
    }
    execute(database, f"DELETE FROM visits; DELETE FROM {OWN}; DELETE FROM {SHARED}")
    own.load_again()
    assert holding(database, word) == {}
    after = {
        table: rows(database, f"SELECT * FROM {table}_totals ORDER BY 1, 2, 3, 4, 5")
        for table in (OWN, SHARED)
    }
    assert after == before
    late = [
        each._replace(offset=61 + number, order=each.order.model_copy(update={"total": Decimal(7)}))
        for number, each in enumerate(visits()[:9])
    ]
    own.load(late)
    assert value(database, f"SELECT count(*) FROM {OWN} WHERE late") > 2
    assert holding(database, word) == {}
    for table in (OWN, SHARED):
        assert own.problems(table) == []
    again = forget(database, kind, text)
    assert not any(again.erased.values())
    assert again.already_erased[OWN] > 0


def test_who_is_on_the_list_before_anything_is_loaded(
    database: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erase, "with_kafka", lambda *given: given[-1])
    made = Installation(database, VISITS)
    forget_listed(database, Kind.ADDRESS, "ann@example.com")
    forget_listed(database, Kind.USER, "zoe")
    made.load(visits())
    assert holding(database, MAIL["ann"], "zoe") == {}
    assert holding(database, "bob", MAIL["bob"]).keys() == {OWN, SHARED}
    found = rows(database, f'SELECT DISTINCT "user" FROM {OWN} ORDER BY 1')
    assert found == [("ann",), ("bob",), ("erased",)]
    for table in (OWN, SHARED):
        assert made.problems(table) == []
    # The certificate counts what the loader has emptied.
    [_, zoe] = erase.listed(database)
    done = erase.apply(database, [VISITS], zoe, requested_by="tests")
    assert done.already_erased[OWN] == value(
        database, f"SELECT count(*) FROM {OWN} WHERE \"user\" = 'erased'"
    )


def test_a_long_name_is_known_as_windows_shorten_it(
    database: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erase, "with_kafka", lambda *given: given[-1])
    made = Installation(database, VISITS)
    long = [each._replace(order=each.order.model_copy(update={"user": LONG})) for each in visits()]
    made.load(long)
    assert value(database, f"SELECT count(*) FROM {OWN} WHERE starts_with(\"user\", 'ann ann')") > 0
    forget(database, Kind.USER, LONG)
    named = f"SELECT count(*) FROM {OWN} WHERE starts_with(\"user\", 'ann ann')"
    assert value(database, named) == 0
    execute(database, f"DELETE FROM {OWN}; DELETE FROM {SHARED}")
    made.load_again()
    assert value(database, named) == 0
    assert value(database, f"SELECT count(*) FROM {SHARED} WHERE starts_with(a, 'ann ann')") == 0


class Badge(Event):
    user: int
    at: Timestamp


def test_a_user_that_is_a_number(database: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """No number stands for nobody: the group becomes that of events without a user."""
    monkeypatch.setattr(erase, "with_kafka", lambda *given: given[-1])
    stream = Stream(
        name="badges", contract=Badge, table="badges", key="user", event_time="at",
        windows=TumblingWindow(
            "10s", by="user", idle="2s", n=Count(), users=Distinct("user"), most=Max("user")
        ),
    )  # fmt: skip
    made = Installation(database, stream)
    made.load(
        [
            Placed(0, each, Badge(user=each % 2, at=NOON + timedelta(seconds=each)))
            for each in [*range(20), 60]
        ]  # type: ignore[arg-type]
    )
    forget(database, Kind.USER, "1", [stream])
    assert rows(
        database,
        'SELECT "user", sum(n), max(most), sum(users) FROM badges_10s_totals GROUP BY 1 ORDER BY 1',
    ) == [(0, 10, 0, 2), (None, 10, None, 0)]
    assert made.problems("badges_10s") == []


@pytest.mark.usefixtures("own")
def test_windows_that_are_declared_no_more_are_named(database: Settings) -> None:
    done = forget(database, Kind.ADDRESS, "ann@example.com", [replace(VISITS, windows=None)])
    [undeclared] = [place for place in done.elsewhere if place.startswith("tables of windows")]
    assert undeclared.startswith(
        f"tables of windows that are declared no more ({OWN}, {SHARED}): drop them, or declare"
    )
