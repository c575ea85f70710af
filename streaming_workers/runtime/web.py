"""What the workers that are web servers share."""

import asyncio
import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from streamflow.errors import ConfigurationError
from streamflow.monitoring import Probe
from streaming_workers.runtime.process import PATIENCE, end_after

_BACKLOG = 512

# Status, headers and body.
Answer = tuple[int, Sequence[tuple[str, str]], bytes]


class WebServer(uvicorn.Server):
    """Serves while a thread works beside the event loop, until a signal or the end of that thread.

    Attributes:
        failure: the error that has ended the thread.
    """

    failure: BaseException | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves signals to us: uvicorn's own handling ends with the signal's exit code."""
        yield

    async def serve_beside(
        self,
        listener: socket.socket,
        name: str,
        work: Callable[[], None],
        stop: Callable[[], None],
    ) -> None:
        """Serves until SIGTERM, SIGINT or the end of `work`, which a thread of this name does meanwhile.
        Then what is in hand is answered, and `stop` makes the thread end."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal)

        def run() -> None:
            try:
                work()
            except BaseException as error:  # noqa: BLE001 (raised again in the main thread)
                self.failure = error
            finally:
                loop.call_soon_threadsafe(self._end)

        thread = threading.Thread(target=run, name=name, daemon=True)
        thread.start()
        await self.serve(sockets=[listener])
        stop()
        await asyncio.to_thread(thread.join)

    def _on_signal(self) -> None:
        self._end()
        # Ending hard loses nothing: the bridge stores nothing, and a retry with its key finds out what
        # ingest has stored. Hanging on a broker that is gone is worse (G10).
        end_after(PATIENCE)

    def _end(self) -> None:
        self.should_exit = True


def probed(probe: Probe) -> Answer:
    """The page of ``/health`` or ``/ready``."""
    good, why = probe()
    kind = [("content-type", "text/plain; charset=utf-8")]
    return (200 if good else 503), kind, f"{why}\n".encode()


def metrics() -> Answer:
    """The page of ``/metrics``."""
    return 200, [("content-type", CONTENT_TYPE_LATEST)], generate_latest()


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
