"""What the workers that are web servers share."""

import contextlib
import socket
from collections.abc import Iterator

import uvicorn

from streamflow.errors import ConfigurationError

_BACKLOG = 512


class WebServer(uvicorn.Server):
    """Leaves signals to us: uvicorn's own handling ends with the signal's exit code."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def listen(host: str, port: int, part: str) -> socket.socket:
    """A socket that listens. Raises ConfigurationError if that is not possible, naming the setting of the
    port of that part."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise ConfigurationError(
            f"port {port} ({part}) cannot be used on {host} ({error.strerror}): end what listens "
            f"there, or choose another with STREAMFLOW_{part.upper()}_PORT"
        ) from error
