"""Which requests reach Dagster's webserver: those of its own pages, and of programs, not of others' pages.

The webserver has no sign-in, and runs a mutation for whoever asks, by GET as well. Any page that a
browser on this machine opens could ask, on 127.0.0.1 too: by its own requests (CSRF), or under a name
of its own that it has made to mean 127.0.0.1 (DNS rebinding). What a browser says about a request
tells them apart: ``Host``, ``Origin`` and ``Sec-Fetch-Site`` (https://www.w3.org/TR/fetch-metadata/)
cannot be forged by a page, and programs send only the first.
"""

import ipaddress
import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from streamflow_dagster.settings import OrchestrationSettings

SETTING: Final = "STREAMFLOW_DAGSTER_HOSTS"

_READS: Final = frozenset({"GET", "HEAD"})
# What a form of another page cannot send without asking first (https://fetch.spec.whatwg.org/,
# "CORS-safelisted request-header").
_DOCUMENTS: Final = frozenset({"application/json", "application/graphql"})
_NETLOC: Final = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::(?P<port>\d{1,5}))?")
_DEFAULT_PORTS: Final = {"http": "80", "https": "443"}

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


@dataclass(frozen=True)
class Asked:
    """What is looked at of a request, or of a WebSocket's upgrade.

    Attributes:
        headers: by lower-case name, all values of each.
    """

    method: str
    path: str
    query: str
    headers: Mapping[str, tuple[str, ...]]

    @classmethod
    def of(cls, scope: Scope) -> "Asked":
        """From an ASGI scope."""
        headers: dict[str, tuple[str, ...]] = {}
        for name, value in scope["headers"]:
            key = name.decode("latin-1").lower()
            headers[key] = (*headers.get(key, ()), value.decode("latin-1").strip())
        # An upgrade is a GET.
        method = scope.get("method", "GET")
        return cls(method, scope["path"], scope["query_string"].decode("latin-1"), headers)

    def header(self, name: str) -> str:
        """The only value of a header; empty where there is none."""
        return ", ".join(self.headers.get(name, ()))


@dataclass(frozen=True)
class Hosts:
    """Under which names the webserver is reached, besides those of loopback.

    Attributes:
        own: known from other settings.
        listed: as ``STREAMFLOW_DAGSTER_HOSTS`` has them, some with a port. Pages of these may ask
            even where a proxy has put another name into ``Host``.
    """

    own: frozenset[str] = frozenset()
    listed: frozenset[str] = frozenset()

    @classmethod
    def of(cls, settings: OrchestrationSettings) -> "Hosts":
        """From settings."""
        own = {settings.host, urlsplit(settings.dagster_url or "").hostname or ""}
        return cls(
            # Addresses to bind, and no names.
            frozenset(each.lower() for each in own - {"", "0.0.0.0", "::"}),  # noqa: S104
            frozenset(each.lower() for each in settings.dagster_hosts),
        )

    def serve(self, host: str) -> bool:
        """Whether a request with this ``Host`` is one to us."""
        found = _NETLOC.fullmatch(host)
        if found is None:
            return False
        name = found["name"].strip("[]").removesuffix(".")
        return _is_loopback(name) or name in self.own | self.listed or host in self.listed

    def own_page(self, origin: str, host: str) -> bool:
        """Whether an ``Origin`` is that of the request itself, or listed."""
        scheme, _, place = origin.partition("://")
        if scheme not in _DEFAULT_PORTS or _NETLOC.fullmatch(place) is None:
            return False
        default = f":{_DEFAULT_PORTS[scheme]}"
        place = place.removesuffix(default)
        return place == host.removesuffix(default) or place in self.listed


def refusal(asked: Asked, hosts: Hosts) -> str | None:
    """Why a request is refused, as one sentence; None where it is not.

    1. Under a name that is not ours somebody has made it mean this machine.
    2. A page may ask only where it came from: other ports of this machine are other pages.
    3. Without an ``Origin`` the browser still says where a request is from; following a link is fine.
    4. A mutation must not be run by what any page can send without being asked: a GET, or a form.
    """
    host = asked.header("host").lower()
    if not hosts.serve(host):
        return (
            f"Dagster is not served under the name {_shown(host)}: use its own address, or add the "
            f"name to {SETTING}"
        )
    origin = asked.header("origin").lower()
    if origin and not hosts.own_page(origin, host):
        return (
            f"a page of {_shown(origin)} may not use this Dagster: if the page is Dagster's own, "
            f"add its host to {SETTING}"
        )
    if asked.header("sec-fetch-site") not in ("", "same-origin", "none") and not (
        _follows_link(asked) or origin
    ):
        return f"another site's page may not use this Dagster, only link to it (see {SETTING})"
    if asked.method in _READS:
        if asked.path.rstrip("/").endswith("/graphql") and "query" in parse_qs(
            asked.query, keep_blank_values=True
        ):
            return "GraphQL is answered to a POST of application/json only, not to a GET"
        return None
    kind = asked.header("content-type").partition(";")[0].strip().lower()
    if kind not in _DOCUMENTS:
        return "a POST needs the content type application/json"
    return None


def _follows_link(asked: Asked) -> bool:
    """Whether the browser opens a page in a tab, as by a link."""
    return (
        asked.method == "GET"
        and asked.header("sec-fetch-mode") == "navigate"
        and asked.header("sec-fetch-dest") == "document"
    )


def _is_loopback(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


def _shown(text: str) -> str:
    """What a request says, as far as it may be repeated in an answer."""
    return text[:100] if re.fullmatch(r"[\w.:/\[\]-]+", text[:100]) else "that it gives"


class OriginGuard:
    """Answers what is refused with 403 and the reason; passes on the rest.

    Args:
        app: what stands behind it.
        hosts: under which it is reached.
    """

    def __init__(self, app: App, hosts: Hosts) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI calls it."""
        why = (
            refusal(Asked.of(scope), self._hosts)
            if scope["type"] in ("http", "websocket")
            else None
        )
        if why is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await _answer(send, "http.response", why)
        elif "websocket.http.response" in (scope.get("extensions") or {}):
            await _answer(send, "websocket.http.response", why)
        else:
            # The server answers 403 then, without the reason.
            await send({"type": "websocket.close", "code": 1008})


async def _answer(send: Send, kind: str, why: str) -> None:
    body = f"{why}\n".encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        (b"x-content-type-options", b"nosniff"),
    ]
    await send({"type": f"{kind}.start", "status": 403, "headers": headers})
    await send({"type": f"{kind}.body", "body": body, "more_body": False})
