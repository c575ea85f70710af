"""The URL of a PostgreSQL database, checked before any client library sees it. Pure.

libpq, SQLAlchemy and urllib quote in their errors what they do not understand, which is often half a
password. So a URL is parsed here first, as libpq parses it
(https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING-URIS), and the error quotes
none of it.
"""

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote, unquote, unquote_to_bytes

EXAMPLE: Final = "postgresql://user:password@host:5432/database"

_URL = re.compile(r"(?P<scheme>[A-Za-z0-9+]+)://(?P<rest>.*)", re.DOTALL)
# As in SQLAlchemy, a driver may be named: which one speaks is for the program to know.
_SCHEME = re.compile(r"postgres(?:ql)?(?:\+[a-z0-9]+)?")
_REST = re.compile(
    r"(?:(?P<user>[^@/]*)@)?(?P<hosts>[^/?]*)(?P<path>/[^?]*)?(?:\?(?P<query>.*))?", re.DOTALL
)
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.%a-z]+\]|[^:\[\]]*)(?::(?P<port>[0-9]*))?")
_ODD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})|%00")
_BLANK = re.compile(r"[\x00-\x20\x7f]")
# Fine for libpq, but an end of the host for others.
_MISREAD = re.compile(r"[#?\[\]\\]")
# In a query, or in a connection string of the other form, outside quotes.
_PORT_PARAMETER = re.compile(r"(?:^|[&\s])port\s*=\s*([^&\s]*)")
_QUOTED = re.compile(r"'(?:[^'\\]|\\.)*'")
_MAX_PORT: Final = 65_535


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def normalized(given: str) -> str:
    """The same URL, as every client reads it; a connection string of libpq's other form (``host=…
    dbname=…``) unchanged. Raises ValueError if it is invalid: the message says why, and quotes none of
    it."""
    text = given.strip()
    match = _URL.fullmatch(text)
    if match is None:
        if not text or ("=" in text and "://" not in text):
            _require_ports(_PORT_PARAMETER.findall(_QUOTED.sub("", text)))
            return text
        raise ValueError(f"is not a URL: write {EXAMPLE}")
    if not _SCHEME.fullmatch(match["scheme"].lower()):
        raise ValueError(f"does not begin with postgresql:// as in {EXAMPLE}")
    if _BLANK.search(text):
        raise ValueError("contains a space or a control character: write a space as %20")
    if _ODD_ESCAPE.search(text) or not _is_utf8(unquote_to_bytes(text)):
        raise ValueError("contains a % that is not an escape: write it as %25")
    parts = _REST.fullmatch(match["rest"])
    if parts is None or "@" in parts["hosts"] + (parts["path"] or ""):
        raise ValueError("contains a / or @ in the password or user: write them as %2F and %40")
    hosts = [_HOST.fullmatch(host) for host in parts["hosts"].split(",")]
    _require_ports("none" if host is None else host["port"] or "" for host in hosts)
    query = parts["query"] or ""
    if any("=" not in parameter for parameter in query.split("&") if parameter):
        raise ValueError("has a parameter without = after the ?")
    _require_ports(map(unquote, _PORT_PARAMETER.findall(query)))
    user = parts["user"]
    start = "" if user is None else _MISREAD.sub(lambda odd: quote(odd[0]), user) + "@"
    end = "" if parts["query"] is None else f"?{query}"
    return f"postgresql://{start}{parts['hosts']}{parts['path'] or ''}{end}"


def _require_ports(given: Iterable[str]) -> None:
    """Each text is a port, several separated by commas, or empty for the default."""
    ports = [port for text in given for port in text.split(",") if port]
    if not all(re.fullmatch("[0-9]{1,9}", port) and 0 < int(port) <= _MAX_PORT for port in ports):
        raise ValueError(
            "has a port that is not a number up to 65535; a / in the password is written as %2F"
        )
