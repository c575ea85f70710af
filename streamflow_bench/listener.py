"""A Socket.IO client as a process of its own: notes when each event arrived.

It reads as fast as Python can, so that the bridge is what is measured: the WebSocket protocol of the
``websockets`` library without its I/O, a blocking socket, and only those parts of Engine.IO and Socket.IO
that a listening client needs. It parses every frame and every body, in about 3 µs an event on this
project's 2-core machine, where a python-socketio client that calls a handler for each event uses so much
of the two cores that it delays what it measures. Tests show that browsers' and Node's own clients get
the same events.

Run by the benchmark: ``python -m streamflow_bench.listener FILE``, with the bridge's settings.
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
from streamflow.settings import Settings, load_process_settings

CONNECTED: Final = 0  # instead of a number: every later event is received

_PIECE: Final = 1 << 18  # bytes
_TIMEOUT: Final = 60.0  # seconds; heartbeats come more often
_NOTE: Final = struct.Struct("<qd")
NOTE_BYTES: Final = _NOTE.size

# How the server's messages begin: in Engine.IO (4), then in Socket.IO (5).
_OPEN, _PING, _ACCEPTED, _REFUSED, _EVENT = b"0", b"2", b"40", b"44", b"42"


class Note(NamedTuple):
    """What arrived when."""

    number: int  # ``id`` of an event; `CONNECTED`; or, negative, how many records were missed
    at: float  # on the monotonic clock, which all processes of a machine share


def read_notes(data: bytes) -> list[Note]:
    """The notes that a listener has written; one that is incomplete is left out."""
    whole = len(data) - len(data) % NOTE_BYTES
    return [Note(*values) for values in _NOTE.iter_unpack(data[:whole])]


def listen(settings: Settings, target: int) -> None:
    """Writes notes to a file descriptor until the process is stopped. Raises Unavailable if the bridge
    cannot be reached or has closed the connection, StreamFlowError if it refuses."""
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
    """When each read of the socket returned, and what, as `Note.number`."""
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
        frames = [event for event in protocol.events_received() if not isinstance(event, Response)]
        read = [_number(protocol, frame, auth) for frame in frames]
        numbers = [number for number in read if number is not None]
        if protocol.handshake_exc is not None:
            raise StreamFlowError(f"the bridge refuses: {protocol.handshake_exc}")
        if numbers:
            yield at, numbers


def _number(protocol: ClientProtocol, frame: object, auth: dict[str, str]) -> int | None:
    if not isinstance(frame, Frame) or not frame.fin:
        raise StreamFlowError("the bridge sent a frame that this client does not know")
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
    try:
        with Path(sys.argv[1]).open("ab", buffering=0) as file:
            listen(load_process_settings(), file.fileno())
    except StreamFlowError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
