"""Numbers, times and other values without parts, but for texts."""

import random
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from pydantic_core import to_jsonable_python

from streamflow.samples.node import Draw, SampleNode, Schema, leaf

_SPAN: Final = 1_000  # plain numbers have so many steps from their lowest
_WIDEST: Final = 1_000_000  # or all steps of their range, if it has no more than this
_ZONE: Final = "Z"
_INTS: Final = (0, 1, -1, 2**31, -(2**31) - 1, 2**53 - 1, -(2**53), 2**63 - 1, -(2**63))
_FLOATS: Final = (
    0.0, -0.0, 0.1, -1.5, 1e22, 123456789.123456789, 5e-324, 2.2250738585072014e-308,
    1.7976931348623157e308, -1.7976931348623157e308,
)  # fmt: skip
_DECIMALS: Final = (
    "0", "0.10", "-0.01", "-1E-10", "1E+5", "9" * 38 + "." + "9" * 12, "-1" + "0" * 60, 12.5, 7,
)  # fmt: skip
_DAYS: Final = ("0001-01-01", "9999-12-31", "1970-01-01", "1969-12-31", "2000-02-29")
_TIMES: Final = ("00:00:00", "23:59:59.999999", "12:30:00Z", "12:30:00.5+05:30")
_MOMENTS: Final = (
    "0001-01-01T00:00:00Z", "0001-01-02T00:00:00Z", "1969-12-31T23:59:59.999999Z",
    "1970-01-01T00:00:00Z", "2000-01-01T00:00:00-12:00", "2024-02-29T23:59:59.999999+14:00",
    "9999-12-30T00:00:00Z", "9999-12-31T23:59:59.999999Z",
)  # fmt: skip
_SPANS: Final = ("PT0S", "PT0.000001S", "-P1DT1S", "P31D", "PT36H", "P999999D")
_UUIDS: Final = (
    "00000000-0000-0000-0000-000000000000",
    "ffffffff-ffff-ffff-ffff-ffffffffffff",
    "C0FFEE00-0000-4000-8000-00000000ABCD",
)
_BOUNDS: Final = ("ge", "gt", "le", "lt")


def boolean(_schema: Schema, _name: str) -> SampleNode:
    return leaf(lambda draw: draw.chance.random() < 0.5, True, False)  # noqa: PLR2004


def integer(schema: Schema, name: str) -> SampleNode:
    low, high, step = _range(schema, Decimal(1), fixed=True)
    most = int((high - low) / step)

    def plain(draw: Draw) -> int:
        at = draw.number - 1 if name == "id" else draw.chance.randint(0, most)
        return int(low + step * min(at, max(most, 0)))

    if name == "id" and "le" not in schema and "lt" not in schema:
        most = 2**53
    return leaf(plain, *map(int, _bounds(schema)), *_INTS)


def decimal(schema: Schema, _name: str) -> SampleNode:
    places = schema.get("decimal_places")
    digits = schema.get("max_digits")
    grain = Decimal(1).scaleb(-(2 if places is None else places))
    if digits is not None and places is None:
        grain = Decimal(1)
    low, high, step = _range(schema, grain, fixed=places is not None or digits is not None)
    edges: list[Any] = list(map(str, _bounds(schema)))
    if digits is not None:
        widest = Decimal(10) ** (digits - (places or 0)) - Decimal(1).scaleb(-(places or 0))
        high = min(high, widest)
        edges += [str(widest), str(-widest)]
    most = int((high - low) / step)
    # As text: a number of JSON is a float to most of its readers.
    return leaf(lambda draw: str(low + step * draw.chance.randint(0, most)), *edges, *_DECIMALS)


def real(schema: Schema, _name: str) -> SampleNode:
    low, high, step = _range(schema, Decimal("0.01"), fixed=False)
    most = int((high - low) / step)
    edges = (*map(float, _bounds(schema)), *_FLOATS)
    return leaf(lambda draw: float(low + step * draw.chance.randint(0, most)), *edges)


def _range(schema: Schema, grain: Decimal, *, fixed: bool) -> tuple[Decimal, Decimal, Decimal]:
    """The lowest and highest plain number, and the step between two."""
    step = Decimal(str(schema.get("multiple_of", grain)))
    bounds = {name: Decimal(str(schema[name])) for name in _BOUNDS if schema.get(name) is not None}
    lowest = max(
        [bounds[name] for name in ("ge", "gt") if name in bounds], default=Decimal("-Infinity")
    )
    highest = min(
        [bounds[name] for name in ("le", "lt") if name in bounds], default=Decimal("Infinity")
    )
    if not fixed and "multiple_of" not in schema and lowest < highest < lowest + 10 * step:
        step = Decimal(10) ** ((highest - lowest).adjusted() - 2)  # in a narrow range, a finer one
    low = lowest if lowest.is_finite() else min(step, highest - _SPAN * step)
    low = step * (low / step).to_integral_value("ROUND_CEILING")
    if low == bounds.get("gt"):
        low += step
    high = min(highest, low + _SPAN * step)
    if highest.is_finite() and highest - low <= _WIDEST * step:
        high = low + step * ((highest - low) / step).to_integral_value("ROUND_FLOOR")
    if high == bounds.get("lt"):
        high -= step
    return low, max(low, high), step


def _bounds(schema: Schema) -> list[Any]:
    return [schema[name] for name in _BOUNDS if schema.get(name) is not None]


def moment(schema: Schema, _name: str) -> SampleNode:
    naive = schema.get("tz_constraint") == "naive"

    def plain(draw: Draw) -> str:
        found = _near(schema, draw, draw.now, timedelta(milliseconds=1), naive=naive)
        return _text(found)

    edges = (*map(_text, _bounds(schema)), *_MOMENTS)
    return leaf(plain, *((text.rstrip(_ZONE) for text in edges) if naive else edges))


def day(schema: Schema, _name: str) -> SampleNode:
    def plain(draw: Draw) -> str:
        found: date = _near(schema, draw, draw.now.date(), timedelta(days=1), naive=True)
        return found.isoformat()

    return leaf(plain, *map(str, _bounds(schema)), *_DAYS)


def _near(schema: Schema, draw: Draw, now: Any, grain: timedelta, *, naive: bool) -> Any:
    """A time within the bounds, lately if they allow that."""
    if naive and isinstance(now, datetime):
        now = now.replace(tzinfo=None)
    steps = draw.chance.randint(1, _SPAN)
    found = now + steps * grain if schema.get("now_op") == "future" else now - steps * grain
    for name in ("ge", "gt"):
        if (bound := schema.get(name)) is not None and found <= bound:
            found = bound + steps * grain
    for name in ("le", "lt"):
        if (bound := schema.get(name)) is not None and found >= bound:
            found = bound - steps * grain
    return found


def _text(found: datetime) -> str:
    return found.isoformat().replace("+00:00", _ZONE)


def clock(schema: Schema, _name: str) -> SampleNode:
    zone = _ZONE if schema.get("tz_constraint") == "aware" else ""

    def plain(draw: Draw) -> str:
        chance = draw.chance
        low, high = (
            _seconds(schema.get(first, schema.get(second)), default)
            for first, second, default in (("ge", "gt", 0), ("le", "lt", 86_399))
        )
        seconds = chance.randint(low, max(low, high))
        return (
            time(seconds // 3600, seconds // 60 % 60, seconds % 60, chance.randint(1, 999) * 1000)
        ).isoformat() + zone

    return leaf(plain, *(bound.isoformat() for bound in _bounds(schema)), *_TIMES)


def _seconds(bound: time | None, default: int) -> int:
    return default if bound is None else bound.hour * 3600 + bound.minute * 60 + bound.second


def duration(schema: Schema, _name: str) -> SampleNode:
    low = schema.get("ge", schema.get("gt"))
    high = schema.get("le", schema.get("lt"))

    def plain(draw: Draw) -> Any:
        share = draw.chance.randint(1, _SPAN - 1) / _SPAN
        if low is not None and high is not None:
            return to_jsonable_python(low + (high - low) * share)
        if high is not None:
            return to_jsonable_python(high - timedelta(hours=1) * share)
        return to_jsonable_python((low or timedelta(0)) + timedelta(hours=1) * share)

    return leaf(plain, *map(to_jsonable_python, _bounds(schema)), *_SPANS)


def uuid(schema: Schema, _name: str) -> SampleNode:
    version = schema.get("version") or 4

    def plain(draw: Draw) -> str:
        bits = draw.chance.getrandbits(128) & ~(0xF000 << 64) & ~(0xC000 << 48)
        return str(UUID(int=bits | version << 76 | 0x8000 << 48))

    return leaf(plain, *_UUIDS)


def anything(_schema: Schema, name: str) -> SampleNode:
    def plain(draw: Draw) -> Any:
        number = draw.few()
        values = (f"{name}-{number}", number, number % 2 == 0, {"number": number}, [number])
        return draw.chance.choice(values)

    deep: Any = "deep"
    for _ in range(30):
        deep = [{"within": deep}]
    texts = ("", "hello", '"quoted"', "null", "12", "{}", "\\N", "tab\tline\n", "𐍈🎉")
    return leaf(plain, None, True, False, 0, -1.5, 2**53, *texts, [], {}, [None], {"": {}}, deep)


def url(schema: Schema, name: str) -> SampleNode:
    scheme = (schema.get("allowed_schemes") or ["https"])[0]
    host = f"{scheme}://example.com/{name}"
    return leaf(
        lambda draw: f"{host}/{draw.few()}", host, f"{host}?q=%C3%A4&r=1#top", f"{host}/{'x' * 200}"
    )


SCALARS: Final[dict[str, Callable[[Schema, str], SampleNode]]] = {
    "any": anything,
    "none": lambda _schema, _name: leaf(lambda _draw: None, None),
    "bool": boolean,
    "int": integer,
    "float": real,
    "decimal": decimal,
    "date": day,
    "time": clock,
    "datetime": moment,
    "timedelta": duration,
    "uuid": uuid,
    "url": url,
    "multi-host-url": url,
    "complex": lambda _schema, _name: leaf(lambda draw: f"{draw.few()}+2j", "0j", "-1.5-2j"),
}


def seeded(text: str) -> random.Random:
    return random.Random(text)  # noqa: S311 (repeatable, not secret)
