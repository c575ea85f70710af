"""The audit of windows takes every name and every number that windows take."""

import re
from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Final

import pytest
from pydantic import Field, create_model

import streamflow.audit.windows
from installations import Installation
from loads import execute, rows
from streamflow import (
    Count,
    Distinct,
    Event,
    First,
    Max,
    Quantiles,
    Stream,
    Sum,
    Timestamp,
    TumblingWindow,
)
from streamflow.audit.windows.counts import reconcile
from streamflow.declarations import problems
from streamflow.postgres.connections import session
from streamflow.settings import Settings
from streamflow.windows.declared import OWN_COLUMNS
from window_parts import NOON, Placed

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

_FOLDER: Final = Path(streamflow.audit.windows.__file__).parent


def one_key(_event: Any) -> str:
    return "key"


def is_known(event: Any) -> bool:
    return bool(event.at is not None)


def stream_of(names: Sequence[str], windows: Any) -> Stream:
    fields: dict[str, Any] = {name: (Annotated[int, Field(ge=0, le=99)], ...) for name in names}
    contract = create_model("AnyName", __base__=Event, at=(Timestamp, ...), **fields)
    return Stream(
        name="named",
        contract=contract,
        table="named",
        key=one_key,
        event_time="at",
        windows=windows,
    )


def words_of_queries() -> list[str]:
    """All words in the audit's SQL, which a query may have for names of its own."""
    text = "\n".join(path.read_text() for path in sorted(_FOLDER.glob("*.py")))
    literals = re.findall(r'"""(.*?)"""|"([^"\n]*)"|\'([^\'\n]*)\'', text, re.DOTALL)
    words = re.findall(r"[A-Za-z][a-z_A-Z0-9]*", " ".join(" ".join(each) for each in literals))
    return sorted({word.lower() for word in words} - OWN_COLUMNS - {"at"})


def is_taken(name: str) -> bool:
    try:
        grouped = TumblingWindow("10s", by=name, aggregates={"a_count": Count()})
        named = TumblingWindow("20s", aggregates={name: Sum(name)})
        return not problems(stream_of([name], [grouped, named]))
    except (NameError, TypeError, ValueError, Warning):  # what pydantic refuses
        return False


def test_fields_and_aggregates_with_the_names_of_queries(database: Settings) -> None:
    names = [name for name in words_of_queries() if is_taken(name)]
    assert {"event_time", "position", "blurred", "found", "part", "event", "select"} <= {*names}
    few = [name for name in names if name in NASTY]
    windows = [
        TumblingWindow(
            "10s",
            name=f"named_{place}",
            idle="2s",
            by=by,
            aggregates={
                name: Sum(name, where=is_known) if number % 3 else Max(name)
                for number, name in enumerate(names)
                if name not in by and (number % 2 == place or name in few)
            },
        )
        for place, by in enumerate((few[::2], few[1::2]))
    ]
    windows += [
        TumblingWindow(
            "20s",
            idle="2s",
            by=name,
            name=f"named_by_{place}",
            aggregates={
                few[place - 1]: Distinct(few[place - 2], lg_k=5),
                few[place - 2]: Quantiles(few[place - 3], k=8, at=(0.5,)),
                few[place - 3]: First(name, where=is_known),
            },
        )
        for place, name in enumerate(few)
        if place % 3 == 0
    ]
    stream = stream_of(names, windows)
    assert problems(stream) == []
    own = Installation(database, stream)
    placed = [
        Placed(
            0,
            offset,
            stream.contract.model_validate(
                {
                    "at": NOON + timedelta(seconds=offset * 1.7),
                    **{name: (offset * 7 + place) % 5 for place, name in enumerate(names)},
                }
            ),
        )
        for offset in range(40)
    ]
    own.load(placed)
    for name in stream.window_tables:
        assert own.problems(name) == []
        assert own.compare(name).cells > 1
    # What is kept of answers is for all columns of a row.
    kept = "SELECT digest FROM judged_conditions WHERE table_name = 'named_0'"
    digests = rows(database, kept)
    for name in ("found", "position", "digest"):
        execute(database, f'UPDATE named SET "{name}" = "{name}" + 1 WHERE origin_offset = 3')
        assert own.problems("named_0") or own.problems("named_1")
        execute(database, f'UPDATE named SET "{name}" = "{name}" - 1 WHERE origin_offset = 3')
    assert own.problems("named_0") == []
    assert rows(database, kept) == digests


# Names of ours, and what reads a row as a whole.
NASTY: Final = (
    "event_time", "position", "blurred", "found", "part", "event", "judged", "chunk", "value", "side",
    "offset", "topic", "lost", "emitted", "ahead", "closed", "kept", "digest",
)  # fmt: skip


@pytest.mark.parametrize(
    "name", ["event_time", "position", "total", "event_type", "judged", "kind"]
)
def test_windows_without_aggregates_by_fields_with_the_names_of_queries(
    database: Settings, name: str
) -> None:
    stream = stream_of([name], TumblingWindow("10s", by=name, idle="2s"))
    own = Installation(database, stream)
    own.load(
        [
            Placed(
                0,
                offset,
                stream.contract.model_validate(
                    {"at": NOON + timedelta(seconds=offset), name: offset % 3}
                ),
            )
            for offset in range(40)
        ]
    )
    with session(database, "test") as connection:
        compared = reconcile(connection, stream, 0, own.progress(0))
    assert compared.differences == []
    assert compared.cells > 3


class Numbers(Event):
    at: Timestamp
    exact: Decimal
    whole: int
    large: Annotated[int, Field(ge=-(10**400), le=10**400)]
    share: float


NUMBERS = Stream(
    name="numbers", contract=Numbers, table="numbers", key=one_key, event_time="at",
    windows=[
        TumblingWindow(
            "10s", idle="2s", s=Sum("exact"), m=Max("exact"), d=Distinct("exact"), n=Count("exact"),
            exact=Quantiles("exact"), whole=Quantiles("whole"), large=Quantiles("large"),
            share=Quantiles("share"),
        ),
        TumblingWindow("20s", idle="2s", by="exact", n=Count(), s=Sum("exact")),
    ],
)  # fmt: skip
EXACT: Final = (
    "0E-1001", "0E-2000", "0E+2000", "-0", "1." + "0" * 1_001, "1." + "0" * 1_001 + "1", "1E-1000", "1E-1001",
    "10E-1001", "1E-400", "-1E-400", "2.47E-324", "2.4703282292E-324", "2.4703282292062328E-324",
    "-2.4703282292062327E-324", "4E-324", "1E309", "-1E999", "1E1000", "0.1",
)  # fmt: skip


def test_numbers_at_the_ends_of_what_windows_take(database: Settings) -> None:
    own = Installation(database, NUMBERS)
    wholes = (-(2**63), 2**63 - 1, 0, 2**53 + 1)
    larges = (-(10**400), 10**308, 10**309, 0)
    shares = (5e-324, -5e-324, 0.0, -0.0, 1.7976931348623157e308)
    placed = [
        Placed(
            0,
            offset,
            Numbers(  # type: ignore[arg-type]
                at=NOON + timedelta(seconds=offset),
                exact=Decimal(EXACT[offset % len(EXACT)]),
                whole=wholes[offset % len(wholes)],
                large=larges[offset % len(larges)],
                share=shares[offset % len(shares)],
            ),
        )
        for offset in range(3 * len(EXACT))
    ]
    own.load(placed)
    assert own.compare("numbers_10s").cells > 3
    assert own.problems("numbers_10s") == []
    assert own.problems("numbers_20s") == []
    [(zeros,)] = rows(
        database,
        "SELECT count(DISTINCT exact)::int FROM numbers_20s WHERE exact = 0",
    )
    assert zeros == 1
    execute(database, "UPDATE numbers_10s SET exact_values[1] = exact_values[1] + 1e-9")
    assert own.problems("numbers_10s")
