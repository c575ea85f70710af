"""What a client may send. The library trusts it: it logs a traceback of each packet that it cannot read,
and an event under the name of one of its own, such as ``connect``, calls the server's handler of that."""

from collections.abc import Awaitable, Callable
from typing import Any, Final

from engineio.packet import CLOSE, MESSAGE, PONG, UPGRADE
from engineio.packet import Packet as EnginePacket
from socketio import AsyncServer
from socketio.packet import EVENT, Packet

# Of the Engine.IO protocol (revision 4), what clients send. The probe of an upgrade comes before.
_TYPES: Final = (CLOSE, PONG, MESSAGE, UPGRADE)
# Of the Socket.IO protocol (revision 5): CONNECT, DISCONNECT, EVENT, ACK. The others are binary.
_TEXT_TYPES: Final = ("0", "1", "2", "3")
# Bytes of a namespace, which is part of the answer. The bridge has the default one only.
_LONGEST_NAMESPACE: Final = 1_000
# A subscription has three levels. The library reads the packet again, with another stack.
_MOST_LEVELS: Final = 10
# Events whose handlers are the server's own.
_RESERVED: Final = frozenset((*AsyncServer.reserved_events, "*"))

_UNREADABLE: Final = "a packet is not readable: the bridge speaks Engine.IO 4 and Socket.IO 5"
UNREADABLE_PACKET: Final = EnginePacket(MESSAGE, "")

_Receive = Callable[[], Awaitable[dict[str, Any]]]


def flaw(packet: EnginePacket) -> str | None:
    """Why a packet is not passed to the library, in one sentence; None where it is."""
    if packet.packet_type not in _TYPES or (packet.packet_type == MESSAGE and not packet.data):
        return _UNREADABLE
    return _flaw_of_message(packet.data) if packet.packet_type == MESSAGE else None


def _flaw_of_message(data: object) -> str | None:
    if not (isinstance(data, str) and data.startswith(_TEXT_TYPES)):
        return "only text is taken: CONNECT, DISCONNECT, EVENT and ACK of Socket.IO"
    if len(data) > _LONGEST_NAMESPACE and data.startswith("0") and not data.startswith("0{"):
        return "there is no such namespace"
    try:
        packet = Packet(encoded_packet=data)
    except (ValueError, RecursionError):
        return _UNREADABLE
    if _has_more_levels(packet.data, _MOST_LEVELS):
        return f"a packet has more than {_MOST_LEVELS} levels"
    return _flaw_of_event(packet.data) if packet.packet_type == EVENT else None


def _flaw_of_event(data: object) -> str | None:
    if not (isinstance(data, list) and data and isinstance(data[0], str)):
        return "an event is a list that begins with its name"
    if data[0] in _RESERVED:
        return f"the event {data[0]!r} is the bridge's own"
    return None


def _has_more_levels(value: object, most: int) -> bool:
    if not isinstance(value, (dict, list)):
        return False
    items = value.values() if isinstance(value, dict) else value
    return most == 0 or any(_has_more_levels(item, most - 1) for item in items)


def readable(receive: _Receive) -> _Receive:
    """The same messages of a WebSocket, but `UNREADABLE_PACKET` for a text that is no packet: the library
    leaves the session open then."""

    async def receive_readable() -> dict[str, Any]:
        message = await receive()
        text = message.get("text")
        if text is not None:
            try:
                EnginePacket(encoded_packet=text)
            except (ValueError, RecursionError):
                return {**message, "text": UNREADABLE_PACKET.encode()}
        return message

    return receive_readable
