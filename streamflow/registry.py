"""Loading the configured streams."""

from collections.abc import Collection, Iterable, Sequence
from difflib import get_close_matches
from types import ModuleType
from typing import NamedTuple, Self

import structlog

from streamflow import declarations, user_code
from streamflow.errors import ConfigurationError, UsageError
from streamflow.pii_keys import PiiKeys
from streamflow.privacy import Hasher
from streamflow.private_values import PrivateValue
from streamflow.settings import Settings
from streamflow.stream import Stream
from streamflow.trial import fails_at_start

log = structlog.get_logger()


class DeclarationFault(ConfigurationError):
    """A declaration has these faults, in a sentence each."""

    def __init__(self, where: str, faults: Sequence[str]) -> None:
        super().__init__(f"{where}{'; '.join(faults)}")
        self.faults = tuple(f"{where}{fault}" for fault in faults)


class FailedStream(NamedTuple):
    """A declaration that cannot work."""

    path: str  # as the setting names it
    name: str | None  # None if it cannot be read
    why: str
    error: BaseException  # for --debug

    @property
    def faults(self) -> tuple[str, ...]:
        """Why, in a sentence for each fault."""
        return self.error.faults if isinstance(self.error, DeclarationFault) else (self.why,)

    def __str__(self) -> str:
        return f"{f'stream {self.name}' if self.name else self.path} does not start: {self.why}"


class Streams(tuple[Stream, ...]):  # noqa: SLOT001 (a tuple cannot have any)
    """The streams that can work.

    Attributes:
        failed: the others. Nothing of theirs is read or written, and they keep their positions.
    """

    failed: tuple[FailedStream, ...]

    def __new__(cls, streams: Iterable[Stream], failed: Iterable[FailedStream] = ()) -> Self:
        made = super().__new__(cls, streams)
        made.failed = tuple(failed)
        return made


def load_streams(settings: Settings) -> Streams:
    """Imports the streams that ``STREAMFLOW_STREAMS`` names as ``module:NAME``. One that cannot work is
    left out, and stops no other (G14). Of two that clash, the first one holds. Raises
    ConfigurationError if none is left."""
    streams = read_streams(settings)
    if streams.failed and not streams:
        why = "; ".join(map(str, streams.failed))
        raise ConfigurationError(why) from streams.failed[0].error
    if not streams:
        raise ConfigurationError("no stream is configured: set STREAMFLOW_STREAMS")
    return streams


def read_streams(settings: Settings) -> Streams:
    """As `load_streams`, but none may be left."""
    good: list[Stream] = []
    failed = []
    for path in settings.streams:
        name = None
        try:
            module, stream = _load(path)
            stream = stream.prefixed(settings.prefix)
            name = stream.name if isinstance(stream.name, str) else None
            _require_sound(module, path, stream, good)
        except ConfigurationError as error:
            name = name or user_code.declared_name(path)
            failed.append(FailedStream(path, name, str(error), error))
        else:
            good.append(stream)
    return Streams(good, failed)


def without_streams(settings: Settings, names: Collection[str]) -> Settings:
    """The settings without the streams of these names."""

    def stays(path: str) -> bool:
        alone = read_streams(settings.model_copy(update={"streams": (path,)}))
        return not any(stream.name in names for stream in alone)

    return settings.model_copy(update={"streams": tuple(filter(stays, settings.streams))})


def log_failed(streams: Streams) -> None:
    """One line for each declaration that cannot work, when a process starts."""
    for failed in streams.failed:
        log.error("stream failed", stream=failed.name or failed.path, why=failed.why)


def stream_named(streams: Sequence[Stream], name: str) -> Stream:
    """The stream of that name.

    Raises:
        ConfigurationError: it is configured, and cannot work.
        UsageError: none is called so; with the names that there are.
    """
    for failed in streams.failed if isinstance(streams, Streams) else ():
        if failed.name == name:
            raise ConfigurationError(
                f"stream {name} is configured, but it does not start: {failed.why}"
            )
    names = {stream.name: stream for stream in streams}
    if name not in names:
        raise UsageError(no_stream_called(name, list(names)))
    return names[name]


def no_stream_called(name: str, names: Sequence[str]) -> str:
    close = get_close_matches(name, names, 1)
    meant = f": did you mean {close[0]}?" if close else "."
    return f"no stream is called {name}{meant} Configured: {', '.join(names)}"


def hasher_for(settings: Settings, streams: Sequence[Stream]) -> Hasher:
    key = settings.pii_key
    return Hasher(
        PiiKeys.parse(None if key is None else key.get_secret_value()),
        {name for stream in streams for name in stream.decoder.private_fields},
        private_values_of(streams),
    )


def private_values_of(streams: Sequence[Stream]) -> tuple[PrivateValue, ...]:
    """Of all streams, each once: dead letters and logs hold records of all."""
    return tuple(dict.fromkeys(value for stream in streams for value in stream.private_values))


def _load(path: str) -> tuple[ModuleType, Stream]:
    module_name, colon, name = path.partition(":")
    module = user_code.import_named(module_name)
    names = [known for known, value in vars(module).items() if isinstance(value, Stream)]
    has = f"its streams are {', '.join(names)}" if names else "it has no Stream"
    if not colon or not name:
        example = f", as in {module_name}:{names[0]}" if names else ""
        raise ConfigurationError(
            f"write module:NAME{example}: {module_name} alone is no stream, {has}"
        )
    if not hasattr(module, name):
        hint = user_code.nearest(name, names)
        raise ConfigurationError(f"{module_name} has no {name}{hint}: {has}")
    stream = getattr(module, name)
    if not isinstance(stream, Stream):
        kind = "the class" if isinstance(stream, type) else "a"
        what = stream.__name__ if isinstance(stream, type) else type(stream).__name__
        raise ConfigurationError(
            f"{user_code.declared_at(module, name)}{name} is not a Stream but {kind} {what}: {has}"
        )
    return module, stream


def _require_sound(
    module: ModuleType, path: str, stream: Stream, earlier: Sequence[Stream]
) -> None:
    def where() -> str:
        return user_code.declared_at(module, path.partition(":")[2])

    found = user_code.explained(
        lambda: declarations.problems(stream, earlier) or fails_at_start(stream),
        module.__name__,
        where,
    )
    if found:
        raise DeclarationFault(where(), found)
