"""PostgreSQL over TLS. The embedded one is built without OpenSSL, so a proxy before it speaks it."""

import asyncio
import contextlib
import ssl
import struct
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Self

import trustme

# https://www.postgresql.org/docs/current/protocol-message-formats.html
_SSL_REQUEST = struct.pack("!II", 8, 80877103)
_FIELDS = (
    "SFATAL",
    "VFATAL",
    "C28000",
    'Mno pg_hba.conf entry for host "127.0.0.1", user "streamflow", database "any", no encryption',
)
_BODY = b"".join(field.encode() + b"\0" for field in _FIELDS) + b"\0"
_REFUSAL = b"E" + struct.pack("!I", len(_BODY) + 4) + _BODY
_ENDS = (OSError, asyncio.IncompleteReadError, asyncio.CancelledError)


class TlsProxy:
    """Takes TLS only, as a server whose pg_hba.conf has only `hostssl`, and passes on what is in it.

    Attributes:
        port: where it listens, on 127.0.0.1.
        ca: file with the certificate of the authority that its own is from.
        other_ca: file with that of another authority.
    """

    def __init__(self, target_port: int, directory: Path) -> None:
        authority = trustme.CA()
        self.ca, self.other_ca = directory / "ca.pem", directory / "other.pem"
        authority.cert_pem.write_to_path(str(self.ca))
        trustme.CA().cert_pem.write_to_path(str(self.other_ca))
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        # For the address only: by its name, localhost, it is another host.
        authority.issue_cert("127.0.0.1").configure_cert(self._context)
        self._target_port = target_port
        self._loop = asyncio.new_event_loop()
        self._ended = asyncio.Event()

    def __enter__(self) -> Self:
        listening: Future[int] = Future()
        self._thread = threading.Thread(
            target=self._loop.run_until_complete, args=[self._serve(listening)], daemon=True
        )
        self._thread.start()
        self.port = listening.result(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(10)
        self._loop.close()

    async def _serve(self, listening: "Future[int]") -> None:
        async with await asyncio.start_server(self._connected, "127.0.0.1", 0) as server:
            listening.set_result(server.sockets[0].getsockname()[1])
            await self._ended.wait()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(*_ENDS):
            if await reader.readexactly(len(_SSL_REQUEST)) != _SSL_REQUEST:
                writer.write(_REFUSAL)
                await writer.drain()
                return
            writer.write(b"S")
            await writer.start_tls(self._context)
            there, back = await asyncio.open_connection("127.0.0.1", self._target_port)
            with contextlib.closing(back):
                await asyncio.wait(
                    [
                        asyncio.ensure_future(_pass(reader, back)),
                        asyncio.ensure_future(_pass(there, writer)),
                    ],
                    return_when=asyncio.FIRST_COMPLETED,
                )


async def _pass(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
