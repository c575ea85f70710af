"""What a contract is made of: the base of its models, and types for their fields."""

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from types import UnionType
from typing import Annotated, Any, Final, TypeGuard, Union, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    GetCoreSchemaHandler,
    PlainSerializer,
    StringConstraints,
    TypeAdapter,
)
from pydantic_core import core_schema

from streamflow.core_schema import EARLIEST, LATEST
from streamflow.pii_keys import HASH_PATTERN

__all__ = ["EARLIEST", "LATEST"]

# RFC 3339 section 5.6, with a zone. ASCII digits only: "\d" would take any script's.
RFC3339: Final = (
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?"
    r"([Zz]|[+-][0-9]{2}:[0-9]{2})$"
)

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

# Texts of the parts of a time: looking them up is three times as fast as formatting.
MINUTES: Final = [f"{minute // 60:02d}:{minute % 60:02d}:" for minute in range(24 * 60)]
SECONDS: Final = [f"{second:02d}." for second in range(60)]
_MILLISECONDS: Final = [f"{millisecond:03d}Z" for millisecond in range(1000)]


@lru_cache(maxsize=1024)
def _day_text(ordinal: int) -> str:
    return f"{date.fromordinal(ordinal).isoformat()}T"


def format_time(moment: datetime) -> str:
    """RFC 3339 in UTC with milliseconds and ``Z``: the form in which every time is written."""
    if moment.tzinfo is not PYDANTIC_UTC:
        moment = moment.astimezone(UTC)
    # On the path of every event.
    day, minute = _day_text(moment.toordinal()), MINUTES[moment.hour * 60 + moment.minute]
    return f"{day}{minute}{SECONDS[moment.second]}{_MILLISECONDS[moment.microsecond // 1000]}"


def _at(moment: datetime) -> str:
    return format_time(moment).replace(".000Z", "Z")


class _Rfc3339:
    """Core schema of a time stamp: RFC 3339 text with a zone, to an aware ``datetime``."""

    @classmethod
    def __get_pydantic_core_schema__(
        cls, _source: object, _handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        # The text's form is checked before, so here text may become a time.
        moment = core_schema.datetime_schema(
            tz_constraint="aware", ge=EARLIEST, le=LATEST, strict=False
        )
        return core_schema.json_or_python_schema(
            json_schema=core_schema.chain_schema(
                [core_schema.str_schema(pattern=RFC3339, strict=True), moment]
            ),
            python_schema=moment,
        )


class _Epoch:
    """Core schema of a time stamp that JSON holds as a whole number of units since 1970, in UTC."""

    def __init__(self, unit: timedelta, name: str) -> None:
        self._unit, self._name = unit, name

    def __get_pydantic_core_schema__(
        self, _source: object, _handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        moment = core_schema.datetime_schema(tz_constraint="aware", ge=EARLIEST, le=LATEST)
        number = core_schema.custom_error_schema(
            core_schema.int_schema(
                strict=True, ge=self.number_of(EARLIEST), le=self.number_of(LATEST)
            ),
            "epoch_time",
            custom_error_message=f"should be a time, as a whole number of {self._name} since 1970, between "
            f"{_at(EARLIEST)} and {_at(LATEST)}",
        )
        to_moment = core_schema.no_info_plain_validator_function(self._moment)
        return core_schema.json_or_python_schema(
            json_schema=core_schema.chain_schema([number, to_moment, moment]),
            python_schema=moment,
            serialization=core_schema.plain_serializer_function_ser_schema(
                self.number_of, return_schema=core_schema.int_schema(), when_used="json"
            ),
        )

    def number_of(self, moment: datetime) -> int:
        return (moment - _EPOCH) // self._unit

    def _moment(self, number: int) -> datetime:
        return _EPOCH + number * self._unit


def epoch_number(schema: Mapping[str, Any]) -> Callable[[datetime], int] | None:
    """What makes the number of a time, for the core schema of `EpochSeconds` and its like; else None."""
    function = schema.get("serialization", {}).get("function")
    return function if isinstance(getattr(function, "__self__", None), _Epoch) else None


Timestamp = Annotated[
    datetime, _Rfc3339, PlainSerializer(format_time, return_type=str, when_used="json")
]
EpochSeconds = Annotated[datetime, _Epoch(timedelta(seconds=1), "seconds")]
EpochMillis = Annotated[datetime, _Epoch(timedelta(milliseconds=1), "milliseconds")]
EpochMicros = Annotated[datetime, _Epoch(timedelta(microseconds=1), "microseconds")]
# The zone object that pydantic gives to a time written with "Z". Comparing identities is seven times
# faster than asking for the offset; if pydantic stops sharing it, only the speed is lost.
PYDANTIC_UTC: Final = TypeAdapter(Timestamp).validate_python("2000-01-01T00:00:00Z").tzinfo

# A text that StreamFlow's producer hashes before it leaves its process (G7).
Hashed = Annotated[str, StringConstraints(pattern=HASH_PATTERN)]
HashedAddress = Hashed


class NotNull:
    """Marks a field that may be absent, but not null: ``Annotated[str | None, NotNull] = None``."""

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        schema = handler(source)
        return schema["schema"] if schema["type"] == "nullable" else schema


class Event(BaseModel):
    """Base of all event contracts: strict types, immutable. `Stream` says which of its fields is the event
    time, and what becomes of fields that it does not declare."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


def choices_in(contract: Any) -> Iterator[Any]:
    """What a contract is a union of; itself if it is none."""
    contract = getattr(contract, "__value__", contract)  # of a type alias
    if get_origin(contract) in (Annotated, Union, UnionType):
        for argument in contract.__args__:
            yield from choices_in(argument)
    else:
        yield contract


def is_event_model(choice: Any) -> TypeGuard[type[Event]]:
    return isinstance(choice, type) and issubclass(choice, Event)
