"""Contracts and documents drawn by hypothesis: of every type that a field may have."""

import json
from collections.abc import Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal
from uuid import UUID

from hypothesis import strategies as st
from pydantic import AwareDatetime, BaseModel, Field, TypeAdapter, create_model

from streamflow import EpochMillis, Event, Hashed, Stream, Timestamp, TumblingWindow


class Colour(Enum):
    RED = "red"
    ODD = "a\\b'\"\t"


class Size(BaseModel):
    width: Decimal
    unit: str | None
    seen: datetime | None = None


TEXT = st.text(
    st.characters(exclude_characters="\0@", exclude_categories=["Cs"]), max_size=300
).filter(lambda text: "%40" not in text and "\\" not in text[:0])
BIGINT = st.integers(-(2**63), 2**63 - 1)
# jsonb holds numbers as decimals: from there on a double without a fraction reads as a whole number.
JSON = st.recursive(
    st.none() | st.booleans() | BIGINT | st.floats(-(10**15), 10**15) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
DAY = st.dates(date(1, 1, 2), date(9999, 12, 29))
TIMES = st.builds(
    lambda day, at, zone: f"{day.isoformat()}T{at.isoformat()}{zone}",
    DAY.filter(lambda day: date(1, 1, 4) < day < date(9999, 12, 27)),
    st.times(),
    st.sampled_from(("Z", "+05:30", "-11:00")),
)
# Written with milliseconds.
STAMPS = st.builds(
    lambda moment, milliseconds: f"{moment:%Y-%m-%dT%H:%M:%S}.{milliseconds:03d}Z",
    st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1)),  # noqa: DTZ001 (made one of UTC)
    st.integers(0, 999),
)
# Each annotation with values, as JSON.
FIELDS: dict[str, tuple[Any, st.SearchStrategy[Any]]] = {
    "text": (str, TEXT),
    "short": (Annotated[str, Field(max_length=3)], st.text(st.sampled_from("a\\\t\n'\"é😀"), max_size=3)),
    "number": (int, BIGINT),
    "wide": (Annotated[int, Field(ge=-(2**200), le=2**200)], st.integers(-(2**200), 2**200)),
    "ratio": (float, st.floats(allow_nan=False, allow_infinity=False)),
    "flag": (bool, st.booleans()),
    "price": (Annotated[Decimal, Field(max_digits=12, decimal_places=2)],
              st.decimals(-(10**9), 10**9, places=2).map(str)),
    "factor": (Decimal, st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**30),
                                    max_value=10**30).map(str)),
    "ref": (UUID, st.uuids().map(str)),
    "day": (date, DAY.map(date.isoformat)),
    "at": (time, st.times().map(time.isoformat)),
    "span": (timedelta, st.timedeltas(timedelta(days=-9000), timedelta(days=9000)).map(
        lambda span: TypeAdapter(timedelta).dump_python(span, mode="json"))),
    "colour": (Colour, st.sampled_from([each.value for each in Colour])),
    "kind": (Literal["a", "b"], st.sampled_from("ab")),
    "raw": (bytes, TEXT),
    "due": (AwareDatetime, TIMES),
    "stamp": (Timestamp, STAMPS),
    "millis": (EpochMillis, st.integers(-(10**13), 10**14)),
    "anything": (Any, JSON),
    "mixed": (int | str | list[int], BIGINT | TEXT | st.lists(BIGINT, max_size=3)),
    "tags": (list[str], st.lists(TEXT, max_size=3)),
    "counts": (dict[str, int | None], st.dictionaries(TEXT, BIGINT | st.none(), max_size=3)),
    "size": (Size, st.fixed_dictionaries(
        {"width": st.decimals(-(10**9), 10**9, places=3).map(str), "unit": TEXT | st.none()},
        optional={"seen": TIMES})),
    "hashed": (Hashed, st.text(st.sampled_from("0123456789abcdef"), min_size=64, max_size=64)),
}  # fmt: skip


@st.composite
def contracts(
    draw: st.DrawFn,
    among: Sequence[str] = (),
    shapes: Sequence[str] = ("required", "required", "nullable", "optional"),
) -> tuple[Stream, list[dict[str, Any]]]:
    """A stream with some of the fields (of those `among`, or of all), by other names in JSON or not,
    optional, nullable or not; and documents."""
    names = draw(
        st.lists(st.sampled_from(sorted(among or FIELDS)), min_size=1, max_size=6, unique=True)
    )
    fields: dict[str, Any] = {"moment": (Timestamp, ...)}
    values: dict[str, st.SearchStrategy[Any]] = {"moment": STAMPS}
    optional: dict[str, st.SearchStrategy[Any]] = {}
    for name in names:
        annotation, strategy = FIELDS[name]
        alias = draw(st.sampled_from((None, f"{name}Alias", "é x")))
        alias = alias if alias not in (*values, *optional) else None
        shape = draw(st.sampled_from(shapes))
        if shape != "required" and name != "anything":
            annotation, strategy = annotation | None, strategy | st.none()
        field = Field(... if shape != "optional" else None, alias=alias)
        fields[name] = (annotation, field)
        (optional if shape == "optional" else values)[alias or name] = strategy
    contract = create_model("Drawn", __base__=Event, **fields)
    countable = [name for name in names if name in COUNTABLE]
    by = draw(st.sampled_from([None, *countable]))
    stream = Stream(
        name="drawn", contract=contract, table="drawn", key=lambda _: "k", event_time="moment",
        unknown_fields=draw(st.sampled_from(("forbid", "ignore", "keep"))),
        windows=TumblingWindow("10s", by=by),
    )  # fmt: skip
    document = st.fixed_dictionaries(values, optional=optional)
    if stream.unknown_fields != "forbid":
        document = st.builds(
            lambda known, more: {f"x{name}": value for name, value in more.items()} | known,
            document,
            st.dictionaries(st.sampled_from("abc"), JSON, max_size=2),
        )
    return stream, draw(st.lists(document, min_size=1, max_size=5))


COUNTABLE = ("text", "number", "wide", "flag", "price", "factor", "ref", "day", "colour", "kind")

# Values as JSON has them, odd in one way or another.
ODD = (
    "true", "false", "null", "0", "1", "-0", "-0.0", "1.0", "1.5", "1e3", "1E5", "1e400", "-1e-400", "0.1",
    "01", "+1", "1.", ".5", "NaN", "Infinity", "9223372036854775807", "9223372036854775808",
    "-9223372036854775809", "18446744073709551616", "12345678901234567890.123", "0.12345678901234567",
    "100000000000000000000000000000000000000000", "1" + "0" * 400, '""', '"1"', '"1.0"', '"1e5"', '"true"',
    '"null"', '"a"', '"b"', '"A"', '"red"', '"\\ud800"', '"\\ud83d\\ude00"', '"\\u0000"', '"\\u0061"',
    '"a\\/b\\n"', '"\x01"', '"\x7f"', '"é\u0301"', '"someone@example.com"', '" 1 "', '"1_000"', '"٣"', "[]",
    "{}",
    "[1]", '["a"]', '[1, "a", null]', '{"a": 1}', '{"a": 1, "a": 2}', '{"width": "1.50", "unit": null}',
    '{"width": 1.50, "unit": "kg", "more": 1}', '"2026-02-29T00:00:00Z"', '"2024-02-29T00:00:00Z"',
    '"2026-01-01T23:59:60Z"', '"2026-01-01T24:00:00Z"', '"2026-01-01 10:00:00Z"', '"2026-01-01t10:00:00z"',
    '"2026-01-01T10:00:00.1234567Z"', '"2026-01-01T10:00:00.9999999Z"', '"2026-01-01T10:00:00,123Z"',
    '"2026-01-01T10:00:00+0530"', '"2026-01-01T10:00:00+05:30"', '"2026-01-01T10:00:00-00:00"',
    '"2026-01-01T10:00:00+23:59"', '"2026-01-01T10:00:00+24:00"', '"2026-01-01T10:00:00"', '"2026-01-01"',
    '"2026-01-01T10:00Z"', '"0001-01-01T00:00:00Z"', '"0000-01-01T00:00:00Z"', '"9999-12-31T23:59:59Z"',
    '"2026-W01-1T10:00:00.123Z"', '"20260101T100000Z"', '"10:00:00"', '"10:00:00Z"', '"PT1H"', "1767225600",
    "1767225600000", '"2026-02-30"', '"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"',
    '"A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"', '"a0eebc999c0b4ef8bb6d6bb9bd380a11"',
    '"{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}"', '"urn:uuid:a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"',
    '"' + "0a" * 32 + '"', '"' + "0A" * 32 + '"', '"' + "0a" * 32 + '\\n"', '"' + "x" * 1000 + '"',
)  # fmt: skip


def as_json(members: list[tuple[str, str]], blank: str = "") -> bytes:
    inner = f",{blank}".join(f"{json.dumps(name)}{blank}:{value}" for name, value in members)
    return f"{blank}{{{inner}}}{blank}".encode()


@st.composite
def mutated(draw: st.DrawFn, document: dict[str, Any]) -> bytes:
    """A document with something about it changed, or nothing."""
    members = [(name, json.dumps(value)) for name, value in document.items()]
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, max(0, len(members) - 1)))
        if not members:
            break
        name, value = members[at]
        match draw(
            st.sampled_from(("odd", "odd", "odd", "twice", "away", "more", "name", "order"))
        ):
            case "odd":
                members[at] = (name, draw(st.sampled_from(ODD)))
            case "twice":
                members.insert(
                    draw(st.integers(0, len(members))), (name, draw(st.sampled_from(ODD)))
                )
            case "away":
                del members[at]
            case "more":
                members.append((draw(st.sampled_from(("unknown", "x", ""))), value))
            case "name":
                members[at] = (draw(st.sampled_from((name.upper(), f"{name} ", "moment"))), value)
            case "order":
                members.reverse()
    text = as_json(members, draw(st.sampled_from(("", "", " ", "\n\t "))))
    if draw(st.integers(0, 4)) == 0:
        at = draw(st.integers(0, len(text)))
        more = draw(
            st.sampled_from(
                (b"", b"\xff", b"\\", b'"', b",", b"0", b"}", b"\xed\xa0\x80", b"\xef\xbb\xbf")
            )
        )
        text = text[:at] + more + text[at + draw(st.integers(0, 2)) :]
    return text
