"""The URL of a PostgreSQL database, checked before any client library sees it.

libpq, SQLAlchemy and urllib quote what they do not understand in their errors, and what they do not
understand is often half a password. So a URL is read here first, as libpq reads it
(https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING-URIS), and what is wrong
with it is said without any of it. Pure.
"""

import re
from typing import Final
from urllib.parse import quote, unquote_to_bytes

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
_MAX_PORT: Final = 65_535


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def normalized(given: str) -> str:
    """The same URL, as every client reads it; a connection string of libpq's other form
    (``host=… dbname=…``) as it is.

    Raises:
        ValueError: it is none. The text says why, and holds no piece of it.
    """
    text = given.strip()
    match = _URL.fullmatch(text)
    if match is None:
        if not text or ("=" in text and "://" not in text):
            return text
        raise ValueError(f"is no URL: write {EXAMPLE}")
    if not _SCHEME.fullmatch(match["scheme"].lower()):
        raise ValueError(f"does not begin with postgresql:// as in {EXAMPLE}")
    if _BLANK.search(text):
        raise ValueError("holds a blank or a control character: write a blank as %20")
    if _ODD_ESCAPE.search(text) or not _is_utf8(unquote_to_bytes(text)):
        raise ValueError("holds a % that begins no escape: write it as %25")
    parts = _REST.fullmatch(match["rest"])
    if parts is None or "@" in parts["hosts"] + (parts["path"] or ""):
        raise ValueError("holds a / or @ in the password or user: write them as %2F and %40")
    for host in parts["hosts"].split(","):
        found = _HOST.fullmatch(host)
        if found is None or int(found["port"] or 0) > _MAX_PORT:
            raise ValueError(
                "has a port that is no number up to 65535; a / in the password is written as %2F"
            )
    if any("=" not in each for each in (parts["query"] or "").split("&") if each):
        raise ValueError("has a parameter without = behind the ?")
    user, hosts = parts["user"], parts["hosts"]
    start = "" if user is None else _MISREAD.sub(lambda odd: quote(odd[0]), user) + "@"
    query = "" if parts["query"] is None else f"?{parts['query']}"
    return f"postgresql://{start}{hosts}{parts['path'] or ''}{query}"
