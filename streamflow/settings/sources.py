"""Where settings come from besides the environment: ``streamflow.toml``, and a running stack."""

import difflib
import json
import tomllib
from collections.abc import Collection
from contextvars import ContextVar
from pathlib import Path
from typing import Any, ClassVar, Final

from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource

from streamflow.errors import ConfigurationError
from streamflow.settings.fields import expanded, variable

FILE: Final = "streamflow.toml"
COORDINATES_FILE: Final = "stack.json"


def read_file(path: Path, known: Collection[str]) -> dict[str, Any]:
    """The values in ``streamflow.toml``; none if there is no such file. Raises ConfigurationError if it
    is not TOML in UTF-8, or sets a name that is not `known`."""
    try:
        # An editor's byte order mark is not part of the first name.
        text = path.read_text("utf-8-sig")
    except FileNotFoundError:
        return {}
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            f"{path} is not UTF-8 from byte {error.start} on: save it as UTF-8"
        ) from None
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from None
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(
            f"{path} is not TOML: {error}. Write one NAME = value a line, texts in quotes"
        ) from None
    unknown = [name for name in values if name not in known]
    if unknown:
        raise ConfigurationError(f"{path}: {unknown[0]} is not a setting{_hint(unknown[0], known)}")
    return values


def _hint(name: str, known: Collection[str]) -> str:
    if variable(name) in known:
        return f"; write {variable(name)}"
    near = difflib.get_close_matches(name.upper(), known, 1)
    return f"; did you mean {near[0]}?" if near else "; docs/settings.md lists all of them"


def read_coordinates(state_dir: Path) -> dict[str, Any]:
    """What ``streamflow up`` wrote about the stack that runs in a folder; nothing if none runs."""
    try:
        content = json.loads((state_dir / COORDINATES_FILE).read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


class EnvironmentSource(PydanticBaseSettingsSource):
    """The environment, without the variables in `ignored`."""

    ignored: ClassVar[ContextVar[frozenset[str]]] = ContextVar("ignored", default=frozenset())

    def __init__(self, source: PydanticBaseSettingsSource) -> None:
        super().__init__(source.settings_cls)
        self._source = source

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        return self._source.get_field_value(field, field_name)

    def __call__(self) -> dict[str, Any]:
        ignored = self.ignored.get()
        return {name: value for name, value in self._source().items() if name not in ignored}


class FileSource(InitSettingsSource):
    def __init__(self, settings_cls: type[BaseSettings], known: Collection[str]) -> None:
        super().__init__(settings_cls, read_file(Path(FILE), known))


class CoordinatesSource(PydanticBaseSettingsSource):
    """Where the running stack of this folder listens, from the file that ``streamflow up`` wrote."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        """Not called: `__call__` returns all fields at once."""
        del field
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        state_dir = Path(self.current_state.get("STREAMFLOW_STATE_DIR") or ".streamflow")
        try:
            coordinates = read_coordinates(expanded(Path(state_dir)))
        except ValueError:  # the field says so
            return {}
        # Another port offset means another stack than the one that wrote the file.
        offset = coordinates.get("port_offset")
        if str(self.current_state.get("STREAMFLOW_PORT_OFFSET", offset)) != str(offset):
            return {}
        values = {
            "KAFKA_BOOTSTRAP_SERVERS": coordinates.get("kafka_bootstrap_servers"),
            "DATABASE_URL": coordinates.get("database_url"),
            "STREAMFLOW_PORT_OFFSET": offset,
            "STREAMFLOW_BROKERS": coordinates.get("brokers"),
        }
        return {name: value for name, value in values.items() if value is not None}
