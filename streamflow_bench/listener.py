"""A Socket.IO client as a process of its own: notes when each event came.

It reads as fast as Python can, so that what is measured is the bridge: the WebSocket protocol is that
of the ``websockets`` library without its I/O, the socket a plain one that blocks, and of Engine.IO and
Socket.IO it knows only what a client that listens needs. It does parse every frame and every body;
about 3 µs an event on this project's 2-core machine, where a python-socketio client that calls a
handler for each takes so much of the two cores that it delays what it measures. That browsers' and
Node's own clients get the same events is shown by the tests.

Run by the benchmark: ``python -m streamflow_bench.listener FILE``. The bridge's address and token are
those of the settings.
"""

import os
import socket
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import orjson
from websockets.client import ClientProtocol
from websockets.frames import Frame
from websockets.http11 import Response
from websockets.uri import parse_uri

from streamflow.errors import StreamFlowError, Unavailable
from streamflow.settings import Settings, load_settings

CONNECTED: Final = 0  # instead of a number: from here on every event comes

_PIECE: Final = 1 << 18  # bytes
_TIMEOUT: Final = 60.0  # seconds; heartbeats come more often
_NOTE: Final = struct.Struct("<qd")
NOTE_BYTES: Final = _NOTE.size

# First characters of what the server sends: of Engine.IO (4), then of Socket.IO (5).
_OPEN, _PING, _ACCEPTED, _REFUSED, _EVENT = b"0", b"2", b"40", b"44", b"42"


class Note(NamedTuple):
    """What came when.

    Attributes:
        number: the ``id`` of an event; `CONNECTED`; or, negative, how many records were missed.
        at: on the monotonic clock, which all processes of a machine share.
    """

    number: int
    at: float


def read_notes(data: bytes) -> list[Note]:
    """The notes in what a listener has written, a last one left out that is not whole."""
    whole = len(data) - len(data) % NOTE_BYTES
    return [Note(*each) for each in _NOTE.iter_unpack(data[:whole])]


def listen(settings: Settings, target: int) -> None:
    """Notes events into a file descriptor until the process is ended.

    Raises:
        Unavailable: the bridge cannot be reached, or has closed the connection.
        StreamFlowError: the bridge refuses.
    """
    address = f"{settings.host}:{settings.bridge}"
    token = settings.bridge_token
    auth = {} if token is None else {"token": token.get_secret_value()}
    try:
        with socket.create_connection((settings.host, settings.bridge), _TIMEOUT) as connection:
            for at, numbers in _received(connection, address, auth):
                os.write(target, b"".join([_NOTE.pack(number, at) for number in numbers]))
    except OSError as error:
        raise Unavailable(f"the bridge at {address}: {error}") from error


def _received(
    connection: socket.socket, address: str, auth: dict[str, str]
) -> Iterator[tuple[float, list[int]]]:
    """What each read of the socket brought, as `Note.number`, and when."""
    protocol = ClientProtocol(
        parse_uri(f"ws://{address}/socket.io/?EIO=4&transport=websocket"), max_size=None
    )
    protocol.send_request(protocol.connect())
    while True:
        for data in protocol.data_to_send():
            connection.sendall(data)
        data = connection.recv(_PIECE)
        at = time.monotonic()
        if not data:
            raise Unavailable("the bridge has closed the connection")
        protocol.receive_data(data)
        numbers = []
        for event in protocol.events_received():
            if isinstance(event, Response):
                continue
            number = _number(protocol, event, auth)
            if number is not None:
                numbers.append(number)
        if protocol.handshake_exc is not None:
            raise StreamFlowError(f"the bridge refuses: {protocol.handshake_exc}")
        if numbers:
            yield at, numbers


def _number(protocol: ClientProtocol, frame: object, auth: dict[str, str]) -> int | None:
    if not isinstance(frame, Frame) or not frame.fin:
        raise StreamFlowError("the bridge sends what this client does not know")
    data = bytes(frame.data)
    if data.startswith(_EVENT):
        name, body = orjson.loads(data[len(_EVENT) :])
        return int(body["payload"]["id"]) if name == "kafka-event" else -int(body["missed"])
    if data.startswith(_ACCEPTED):
        return CONNECTED
    if data.startswith(_REFUSED):
        raise StreamFlowError(f"the bridge refuses: {data.decode()}")
    if data.startswith(_OPEN):
        protocol.send_text(_ACCEPTED + orjson.dumps(auth))
    elif data == _PING:
        protocol.send_text(b"3")
    return None


def main() -> None:
    """The program."""
    try:
        with Path(sys.argv[1]).open("ab", buffering=0) as file:
            listen(load_settings(), file.fileno())
    except StreamFlowError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
