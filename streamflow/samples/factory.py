"""The samples of a stream."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from pydantic import TypeAdapter

from streamflow.checked_schema import checked
from streamflow.contract import Event
from streamflow.errors import ErrorCode
from streamflow.privacy import HASH_PATTERN, Hasher
from streamflow.records import Rejection
from streamflow.samples.containers import Field
from streamflow.samples.node import TIME_FORMS, Draw, NoSample, SampleEdge, SampleNode
from streamflow.samples.scalars import seeded
from streamflow.samples.shapes import Shapes
from streamflow.stream import Stream
from streamflow.user_code import name_of_fault

_TRIES: Final = 40  # documents until one is valid
_CLOSE: Final = timedelta(seconds=1)
_TIME_EDGES: Final = tuple(
    map(
        datetime.fromisoformat,
        (
            "0001-01-02T00:00:00+00:00", "1969-12-31T23:59:59.999+00:00",
            "2024-02-29T23:59:59.999999+00:00", "9999-12-30T00:00:00+00:00",
        ),
    )
)  # fmt: skip


class SampleEvent(NamedTuple):
    """A valid event. `field` names what is at a boundary of its type, with dots; empty in a plain one."""

    value: bytes  # the JSON document
    document: dict[str, Any]
    event: Event
    field: str = ""


class SampleFactory:
    """Makes valid events of a stream's contract, of each of its models.

    Args:
        stream: whose contract; its decoder decides what is valid.
        hasher: makes what private fields hold.
        seed: the same seed gives the same samples, but for their times.
        clock: returns the event time of the next plain sample.

    Raises:
        NoSample: no valid event of a model was found, as where a validator of the user's own accepts
            only what it alone knows.
    """

    def __init__(
        self,
        stream: Stream,
        hasher: Hasher | None = None,
        *,
        seed: int | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._stream = stream
        self._clock = clock
        self._draw = Draw(seeded("samples" if seed is None else f"samples/{seed}"), clock())
        if seed is None:
            self._draw.chance.seed()
        self._models = {
            model: self._model(model, hasher or Hasher()) for model in stream.decoder.models
        }
        for model in self._models.values():
            model.time_form = self._time_form(model)

    def plain(self) -> Iterator[SampleEvent]:
        """Endless ordinary events, happening now. Keys repeat, and texts are readable."""
        models = list(self._models.values())
        while True:
            self._draw.now = self._clock()
            sample = self._valid(self._draw.chance.choice(models))
            self._draw.number += 1
            yield sample

    def edges(self) -> Iterator[SampleEvent]:
        """Events of each model in which one field is at a boundary of its type, for each boundary that
        the contract allows, and plain otherwise."""
        for model in self._models.values():
            self._draw.time_form, self._draw.now = model.time_form, self._clock()
            for document, path in model.node.edges(self._draw):
                sample = self._decoded(document)
                if isinstance(sample, SampleEvent):
                    yield sample._replace(field=".".join(path))
                self._draw.number += 1

    def fields(self, sample: SampleEvent) -> list[Field]:
        """The fields of the model that a sample is of."""
        return self._models[type(sample.event)].shapes.fields

    def _model(self, model: type[Event], hasher: Hasher) -> "_Model":
        try:
            return _Model(self._stream, model, self._shapes(hasher))
        except NoSample as error:
            raise self._no_sample(model.__name__, str(error)) from None

    def _shapes(self, hasher: Hasher) -> Shapes:
        stream = self._stream

        def edges(draw: Draw) -> Iterator[SampleEdge]:
            return (SampleEdge(draw.time_form(moment)) for moment in _TIME_EDGES)

        time = SampleNode(lambda draw: draw.time_form(draw.now), edges)
        repeated = [*getattr(stream, "primary_key", ())]
        if isinstance(stream.key, str):
            repeated.append(stream.key)
        return Shapes(hasher, special={stream.event_time: time}, repeated=repeated)

    def _time_form(self, model: "_Model") -> Callable[[datetime], Any]:
        """How the model writes the event time, found by trying."""
        reasons: list[str] = []
        for _ in range(_TRIES):
            for form in TIME_FORMS:
                self._draw.time_form, self._draw.now = form, self._clock()
                sample = self._made(model)
                if isinstance(sample, Rejection):
                    reasons.append(sample.message)
                elif abs(self._stream.time_of(sample.event) - self._draw.now) < _CLOSE:
                    return form
                else:
                    reasons.insert(0, f"{self._stream.event_time}: is read as another time")
        raise self._no_sample(model.name, reasons[0])

    def _valid(self, model: "_Model") -> SampleEvent:
        self._draw.time_form = model.time_form
        reason = ""
        for tried in range(_TRIES):
            # The numbers in its texts may be what the contract refuses: others are taken each time.
            self._draw.shift = tried
            sample = self._made(model)
            if isinstance(sample, SampleEvent):
                self._draw.shift = 0
                return sample
            reason = sample.message
        raise self._no_sample(model.name, reason)

    def _made(self, model: "_Model") -> SampleEvent | Rejection:
        try:
            return self._decoded(model.node.plain(self._draw))
        except NoSample as error:
            raise self._no_sample(model.name, str(error)) from None

    def _decoded(self, document: dict[str, Any]) -> SampleEvent | Rejection:
        value = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
        try:
            event = self._stream.decoder.decode(value)
        except BaseException as error:  # noqa: BLE001 (a validator of the user's own)
            name = name_of_fault(error)
            return Rejection(ErrorCode.SCHEMA_VIOLATION, name, f"a validator raises {name}")
        return event if isinstance(event, Rejection) else SampleEvent(value, document, event)

    def _no_sample(self, model: str, reason: str) -> NoSample:
        return NoSample(
            f"stream {self._stream.name}: no valid sample of {model} could be made ({reason}): declare "
            "`simulate` of the stream, which makes its records"
        )


class _Model:
    def __init__(self, stream: Stream, model: type[Event], shapes: Shapes) -> None:
        self.name = model.__name__
        self.shapes = shapes
        schema = checked(
            TypeAdapter(model).core_schema,
            events=[model],
            private=stream.decoder.private_fields,
            hash_pattern=HASH_PATTERN,
            unknown_fields=stream.unknown_fields,
        )
        self.node = shapes.of(schema)
        self.time_form = TIME_FORMS[0]
