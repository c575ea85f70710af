"""Loading the configured streams, and importing modules of users."""

import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module, invalidate_caches
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from streamflow.errors import ConfigurationError, UsageError
from streamflow.pii_keys import PiiKeys
from streamflow.privacy import Hasher
from streamflow.private_values import PrivateValue
from streamflow.settings import Settings
from streamflow.stream import Stream


def load_streams(settings: Settings) -> tuple[Stream, ...]:
    """Imports the streams that ``STREAMFLOW_STREAMS`` names as ``module:NAME``. Raises ConfigurationError
    if one cannot be imported, or two share a name or a table."""
    streams = tuple(_load(path).prefixed(settings.prefix) for path in settings.streams)
    for what in ("name", "table"):
        names = [getattr(stream, what) for stream in streams]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ConfigurationError(f"two streams have the same {what}: {', '.join(twice)}")
    if not streams:
        raise ConfigurationError("no stream is configured: set STREAMFLOW_STREAMS")
    return streams


def stream_named(streams: Sequence[Stream], name: str) -> Stream:
    """Raises UsageError, with the names that there are, if none is called so."""
    names = {stream.name: stream for stream in streams}
    if name in names:
        return names[name]
    close = get_close_matches(name, names, 1)
    meant = f": did you mean {close[0]}?" if close else "."
    raise UsageError(f"no stream is called {name}{meant} Configured: {', '.join(names)}")


def import_named(module: str) -> ModuleType:
    """Imports a module that a setting names: an installed one, or one in the current folder, which is
    searched last and only if no installed module has that name, so that nothing in it can shadow a
    library."""
    package, _, _ = module.partition(".")
    if package and find_spec(package) is None:
        sys.path.append(str(Path.cwd()))
        invalidate_caches()
    return import_module(module)


def hasher_for(settings: Settings, streams: Sequence[Stream]) -> Hasher:
    key = settings.pii_key
    return Hasher(
        PiiKeys.parse(None if key is None else key.get_secret_value()),
        {name for stream in streams for name in stream.private_fields},
        private_values_of(streams),
    )


def private_values_of(streams: Sequence[Stream]) -> tuple[PrivateValue, ...]:
    """Of all streams, each once: dead letters and logs hold records of all."""
    return tuple(dict.fromkeys(value for stream in streams for value in stream.private_values))


def _load(path: str) -> Stream:
    module_name, _, name = path.partition(":")
    try:
        stream = getattr(import_named(module_name), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigurationError(
            f"stream {path!r} cannot be imported ({error}): name it as module:NAME, the module in "
            "this folder or installed"
        ) from error
    if not isinstance(stream, Stream):
        raise ConfigurationError(f"{path} is not a Stream but a {type(stream).__name__}")
    return stream
