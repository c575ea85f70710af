"""Times of RFC 3339 as whole microseconds since 1970.

Many texts are read at once, as a table of their characters, which takes a third of the time of reading them
one by one. Only the usual forms are read here; all others are None, and for pydantic to judge.
"""

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Integers = NDArray[np.int64]
    Flags = NDArray[np.bool_]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
# Years that are well within the calendar, whatever the offset from UTC.
_FIRST_YEAR: Final = 2
_LAST_YEAR: Final = 9998
_ZONES: Final = (19, 23, 26)  # where a zone may begin: behind 0, 3 or 6 digits of a fraction
# What stands where in a text in UTC, by its length.
_FORMS: Final = {
    len(form): form
    for zone in ("Z", "+00:00")
    for fraction in ("", ".dddddd", ".ddd")
    for form in [f"dddd-dd-ddTdd:dd:dd{fraction}{zone}"]
}
_DIGIT: Final = ord("d")
_ZERO: Final = ord("0")
_FEW: Final = 32  # texts that are read as soon one by one
_NINE: Final = 9
_PARTS: Final = ((0, 4), (4, 6), (6, 8), (8, 10), (10, 12), (12, 14), (14, 20))
_PLACES: Final = 20  # digits of a text with microseconds


def micros_of(moment: datetime) -> int:
    """A time as whole microseconds since 1970."""
    since = moment - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def moment_of(text: str) -> datetime | None:
    """The time that a text stands for, with its offset from UTC; None if it has not one of the usual forms,
    or is no time that an event may hold."""
    zone = len(text) - (1 if text[-1:] == "Z" else 6)
    if zone not in _ZONES or text[7] != "-" or text[10] != "T" or text[13] != ":":
        return None
    if text[16] != ":" or text[19] not in ".Z+-" or not text.isascii():
        return None
    if text[zone] != "Z" and (text[zone] not in "+-" or text[-3] != ":" or text[-2] > "5"):
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if _FIRST_YEAR <= moment.year <= _LAST_YEAR else None


def micros_of_texts(texts: Sequence[str]) -> list[int | None]:
    """Whole microseconds since 1970 for each text, None where `moment_of` is."""
    by_length: defaultdict[int, list[int]] = defaultdict(list)
    lengths = [*map(len, texts)]
    if len({*lengths}) == 1:
        return _of_one_length(texts, lengths[0])
    for index, length in enumerate(lengths):
        by_length[length].append(index)
    found: list[int | None] = [None] * len(texts)
    for length, indexes in by_length.items():
        same = _of_one_length([texts[index] for index in indexes], length)
        for index, micros in zip(indexes, same, strict=True):
            found[index] = micros
    return found


def _of_one_length(texts: Sequence[str], length: int) -> list[int | None]:
    form, joined = _FORMS.get(length), "".join(texts)
    if form is None or len(texts) < _FEW or not joined.isascii():
        return [*map(_one, texts)]
    try:
        import numpy as np  # noqa: PLC0415 (a worker that has little to do needs no 20 MB for it)
    except ImportError:  # of the extra `sketches`
        return [*map(_one, texts)]

    table = np.frombuffer(joined.encode(), np.uint8).reshape(-1, length)
    fixed = np.frombuffer(form.encode(), np.uint8)
    is_digit = fixed == _DIGIT
    digits = table[:, is_digit] - _ZERO  # wraps around: what is no digit is beyond nine
    sound = (digits <= _NINE).all(axis=1) & (table[:, ~is_digit] == fixed[~is_digit]).all(axis=1)
    micros, exists = _micros(digits)
    sound &= exists
    found: list[int | None] = micros.tolist()
    for index in np.flatnonzero(~sound).tolist():
        found[index] = _one(texts[index])
    return found


def _one(text: str) -> int | None:
    moment = moment_of(text)
    return None if moment is None else micros_of(moment)


def _micros(digits: "NDArray[np.uint8]") -> "tuple[Integers, Flags]":
    """Microseconds since 1970, and whether an event may hold such a time."""
    year, month, day, hour, minute, second, fraction = (
        _number(digits[:, first:end]) for first, end in _PARTS
    )
    fraction *= 10 ** (_PLACES - digits.shape[1])
    first_day, next_month = (
        ((year - 1970) * 12 + month - 1 + more).astype("M8[M]").astype("M8[D]").astype("i8")
        for more in (0, 1)
    )
    days = first_day + day - 1
    micros = (((days * 24 + hour) * 60 + minute) * 60 + second) * 1_000_000 + fraction
    exists = (month >= 1) & (month <= 12) & (day >= 1) & (days < next_month)  # noqa: PLR2004
    exists &= (hour < 24) & (minute < 60) & (second < 60)  # noqa: PLR2004
    return micros, exists & (year >= _FIRST_YEAR) & (year <= _LAST_YEAR)


def _number(digits: "NDArray[np.uint8]") -> "Integers":
    number: Integers = digits[:, :0].sum(axis=1, dtype="i8")  # zeros
    for place in range(digits.shape[1]):
        number = number * 10 + digits[:, place]
    return number
