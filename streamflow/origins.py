"""Which requests a web server answers: those of its own pages and of programs, not of other pages.

Any page that a browser on this machine opens can send requests to 127.0.0.1: from its own origin (CSRF;
CORS does not even cover WebSockets), or under a name of its own that it has pointed at 127.0.0.1 (DNS
rebinding). The headers of the browser tell them apart: a page cannot forge ``Host``, ``Origin`` and
``Sec-Fetch-Site`` (https://www.w3.org/TR/fetch-metadata/), and programs send only the first.
"""

import ipaddress
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

_NETLOC: Final = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::(?P<port>\d{1,5}))?")
_DEFAULT_PORTS: Final = {"http": "80", "https": "443"}

# Of every response, unless the application has set its own: what browsers may do with it. A policy for
# scripts is left to the applications, which know theirs.
SECURITY_HEADERS: Final = (
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("permissions-policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
    (
        "content-security-policy",
        "base-uri 'self'; form-action 'self'; frame-ancestors 'none'; object-src 'none'",
    ),
)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


@dataclass(frozen=True)
class HttpRequest:
    """What is checked of a request, or of a WebSocket's upgrade."""

    method: str
    path: str
    query: str
    headers: Mapping[str, tuple[str, ...]]  # by lower-case name

    @classmethod
    def of(cls, scope: Scope) -> "HttpRequest":
        headers: dict[str, tuple[str, ...]] = {}
        for name, value in scope["headers"]:
            key = name.decode("latin-1").lower()
            headers[key] = (*headers.get(key, ()), value.decode("latin-1").strip())
        method = scope.get("method", "GET")  # an upgrade is a GET
        return cls(method, scope["path"], scope["query_string"].decode("latin-1"), headers)

    def header(self, name: str) -> str:
        """The value of a header, several joined by commas; empty where there is none."""
        return ", ".join(self.headers.get(name, ()))


Rule = Callable[[HttpRequest], str | None]


@dataclass(frozen=True, kw_only=True)
class Hosts:
    """Under which names a server is reached, besides addresses and ``localhost``."""

    service: str  # for messages
    setting: str  # the variable that holds `listed`, for messages
    own: frozenset[str] = frozenset()  # from other settings
    # Some with a port. Their pages may send requests even where a proxy has changed ``Host``.
    listed: frozenset[str] = frozenset()
    # Whether names without a dot are served, too. The public DNS has none: only who controls the local
    # one could rebind them.
    dotless: bool = False

    @classmethod
    def of(
        cls,
        service: str,
        setting: str,
        *,
        own: Iterable[str],
        listed: Iterable[str],
        dotless: bool = False,
    ) -> "Hosts":
        """From settings: an empty name is left out."""
        return cls(
            service=service,
            setting=setting,
            own=frozenset(name.lower() for name in own if name),
            listed=frozenset(name.lower() for name in listed),
            dotless=dotless,
        )

    def serve(self, host: str) -> bool:
        """Whether a request with this ``Host``, in lower case, is meant for this server. An IP address
        always is: a page can rebind only a name."""
        netloc = _NETLOC.fullmatch(host)
        if netloc is None:
            return False
        name = netloc["name"].strip("[]").removesuffix(".")
        return (
            _is_address(name)
            or name == "localhost"
            or name in self.own | self.listed
            or host in self.listed
            or (self.dotless and "." not in name)
        )

    def own_page(self, origin: str, host: str) -> bool:
        """Whether an ``Origin`` is that of the request itself, or listed."""
        scheme, _, place = origin.partition("://")
        if scheme not in _DEFAULT_PORTS or _NETLOC.fullmatch(place) is None:
            return False
        default = f":{_DEFAULT_PORTS[scheme]}"
        place = place.removesuffix(default)
        return place == host.removesuffix(default) or place in self.listed


def host_refusal(host: str, hosts: Hosts) -> str | None:
    """Why a request with this ``Host`` is refused, in one sentence; None where it is not. Enough for a
    server that only answers GET and changes nothing: a page of another origin cannot read the response."""
    if hosts.serve(host.lower()):
        return None
    return (
        f"{hosts.service} is not served under the name {_shown(host)}: use its address, or add the "
        f"name to {hosts.setting}"
    )


def refusal(request: HttpRequest, hosts: Hosts) -> str | None:
    """Why a request is refused, in one sentence; None where it is not.

    1. A name that is not ours may have been pointed at this machine.
    2. A page may only send requests to its own origin: another port is another origin.
    3. Without an ``Origin`` the browser still sends from which site a request comes; following a link is
       fine.
    """
    host = request.header("host").lower()
    why = host_refusal(host, hosts)
    if why is not None:
        return why
    origin = request.header("origin").lower()
    if origin and not hosts.own_page(origin, host):
        return (
            f"a page of {_shown(origin)} may not use {hosts.service}: if the page is its own, add "
            f"the page's host to {hosts.setting}"
        )
    if request.header("sec-fetch-site") not in ("", "same-origin", "none") and not (
        _follows_link(request) or origin
    ):
        return f"another site's page may not use {hosts.service}, only link to it (see {hosts.setting})"
    return None


def _follows_link(request: HttpRequest) -> bool:
    return (
        request.method == "GET"
        and request.header("sec-fetch-mode") == "navigate"
        and request.header("sec-fetch-dest") == "document"
    )


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _shown(text: str) -> str:
    """Text from a request, as far as a response may repeat it."""
    return text[:100] if re.fullmatch(r"[\w.:/\[\]-]+", text[:100]) else "(not shown)"


def known_host(hosts: Hosts) -> Rule:
    """The rule of `host_refusal`. Browsers always send ``Host``; some programs, of HTTP/1.0, do not."""

    def rule(request: HttpRequest) -> str | None:
        if "host" not in request.headers:
            return None
        return host_refusal(request.header("host"), hosts)

    return rule


class RequestGuard:
    """ASGI middleware: answers 403 and the reason to what a rule refuses. All responses get the security
    headers."""

    def __init__(self, app: App, rule: Rule) -> None:
        self._app = app
        self._rule = rule

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        why = None
        send = partial(_send_secured, send)
        if scope["type"] in ("http", "websocket"):
            why = self._rule(HttpRequest.of(scope))
        if why is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await _answer(send, "http.response", why)
        elif "websocket.http.response" in (scope.get("extensions") or {}):
            await _answer(send, "websocket.http.response", why)
        else:
            # The server answers 403 then, without the reason.
            await send({"type": "websocket.close", "code": 1008})


class OriginGuard(RequestGuard):
    """Refuses what `refusal`, or the rule `also`, refuses."""

    def __init__(self, app: App, hosts: Hosts, also: Rule = lambda _: None) -> None:
        super().__init__(app, lambda request: refusal(request, hosts) or also(request))


async def _send_secured(send: Send, message: Message) -> None:
    if message["type"] in ("http.response.start", "websocket.http.response.start"):
        headers = list(message.get("headers", ()))
        given = {name.lower() for name, _ in headers}
        for name, value in SECURITY_HEADERS:
            if name.encode() not in given:
                headers.append((name.encode(), value.encode()))
        message = {**message, "headers": headers}
    await send(message)


async def _answer(send: Send, kind: str, why: str) -> None:
    body = f"{why}\n".encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": f"{kind}.start", "status": 403, "headers": headers})
    await send({"type": f"{kind}.body", "body": body, "more_body": False})
