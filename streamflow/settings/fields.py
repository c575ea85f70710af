"""What fields of settings are made of: the names of their variables, their documentation, common types."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_settings import NoDecode

PREFIX: Final = "STREAMFLOW_"


def variable(field_name: str) -> str:
    """The environment variable of a field, also its name in ``streamflow.toml``."""
    return PREFIX + field_name.upper()


def group(name: str) -> Callable[..., Any]:
    """A function that declares fields of one section of ``docs/settings.md``.

    It takes the default, the meaning of the setting, and pydantic's constraints. `shown` is the default
    in the documentation if that is not a constant.
    """

    def declare(default: Any, description: str, *, shown: str | None = None, **more: Any) -> Any:
        extra: dict[str, Any] = {"group": name} | ({} if shown is None else {"shown": shown})
        return Field(default, description=description, json_schema_extra=extra, **more)

    return declare


def _split(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return tuple(filter(None, map(str.strip, value.split(","))))


# A variable is one text: lists are written with commas.
Texts = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]


# "~" is the user's folder, as in a shell.
def expanded(path: Path) -> Path:
    """The path with the home directory for its ``~``. Raises ValueError if that is not known."""
    try:
        return path.expanduser()
    except RuntimeError:
        raise ValueError("begins with ~, and there is no such home directory") from None


UserPath = Annotated[Path, AfterValidator(expanded)]


_TOKEN_URL: Final = re.compile(
    # A password in it would be shown.
    r"(https://[^@/]+|http://(127\.0\.0\.1|localhost|\[::1\])(:[0-9]+)?)(/|$)"
)


def _require_safe(url: str) -> str:
    if not _TOKEN_URL.match(url):
        raise ValueError(
            "write https://HOST/PATH, without user and password; http:// only on this machine"
        )
    return url


# Where a client secret is sent to.
TokenUrl = Annotated[str, AfterValidator(_require_safe)]

_SERVER_URL: Final = re.compile(r"https?://[^@/?#\s]+(/[^@?#\s]*)?")


def without_credentials(url: str) -> str:
    """The same URL. Raises ValueError if it is none of a server, or holds a password."""
    if not _SERVER_URL.fullmatch(url):
        raise ValueError(
            "write http(s)://HOST:PORT/PATH, and user and password into settings of their own"
        )
    return url


# What messages and logs of libraries may quote.
ServerUrl = Annotated[str, AfterValidator(without_credentials)]

# RFC 4422 has names in capitals only, and librdkafka knows no others.
SaslMechanism = Annotated[str, AfterValidator(str.upper)]


def _whole_utc_hour(value: datetime) -> datetime:
    try:
        time = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    except OverflowError:
        raise ValueError("is no time that UTC has") from None
    return time.replace(minute=0, second=0, microsecond=0)


# Dagster takes a partition's start by its wall clock, and PostgreSQL by its instant: in whole hours of UTC
# these are the same. Without an offset it is UTC; what is in between is rounded down.
WholeUtcHour = Annotated[datetime, AfterValidator(_whole_utc_hour)]


def _require_names(value: tuple[str, ...]) -> tuple[str, ...]:
    if any("/" in name or "*" in name for name in value):
        raise ValueError("holds names as web.example.com or web.example.com:8443, comma-separated")
    return value


# Under which a server is reached, some with a port.
HostNames = Annotated[Texts, AfterValidator(_require_names)]
