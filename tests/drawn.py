"""Contracts and documents drawn by hypothesis: of every type that a field may have."""

from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal
from uuid import UUID

from hypothesis import strategies as st
from pydantic import AwareDatetime, BaseModel, Field, create_model

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
        lambda span: span.total_seconds())),
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
def contracts(draw: st.DrawFn) -> tuple[Stream, list[dict[str, Any]]]:
    """A stream with some of the fields, by other names in JSON or not, optional, nullable or not; and
    documents."""
    names = draw(st.lists(st.sampled_from(sorted(FIELDS)), min_size=1, max_size=6, unique=True))
    fields: dict[str, Any] = {"moment": (Timestamp, ...)}
    values: dict[str, st.SearchStrategy[Any]] = {"moment": STAMPS}
    optional: dict[str, st.SearchStrategy[Any]] = {}
    for name in names:
        annotation, strategy = FIELDS[name]
        alias = draw(st.sampled_from((None, f"{name}Alias", "é x")))
        alias = alias if alias not in (*values, *optional) else None
        shape = draw(st.sampled_from(("required", "required", "nullable", "optional")))
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
