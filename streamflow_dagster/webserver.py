"""Dagster's webserver behind `OriginGuard`: ``python -m streamflow_dagster.webserver``.

Dagster's own has no sign-in, and executes any mutation, even one sent by GET.

Takes the options of ``dagster-webserver``. The webserver that ``dagster dev`` starts gets the guard from
`streamflow_dagster.instance`, which is named in our ``dagster.yaml``.
"""

import sys
from typing import Any, Final
from urllib.parse import parse_qs

from dagster_webserver import app, cli
from dagster_webserver.webserver import DagsterWebserver

from streamflow.errors import StreamFlowError
from streamflow.origins import HttpRequest, OriginGuard
from streamflow.settings.orchestration import load_orchestration_settings
from streamflow.web_limits import limit_uvicorn

_READS: Final = frozenset({"GET", "HEAD"})
# What another page cannot send without a preflight request (https://fetch.spec.whatwg.org/,
# "CORS-safelisted request-header").
_DOCUMENTS: Final = frozenset({"application/json", "application/graphql"})


def mutation_refusal(asked: HttpRequest) -> str | None:
    """Why a request is refused, as one sentence; None if it is not. Any page can send a GET or a form
    without a preflight request, so neither may run a mutation."""
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


class GuardedWebserver(DagsterWebserver[Any, Any]):
    def create_asgi_app(self, **options: Any) -> Any:
        hosts = load_orchestration_settings().webserver_hosts
        return OriginGuard(super().create_asgi_app(**options), hosts, mutation_refusal)


def install_guard() -> None:
    """Makes Dagster's command serve `GuardedWebserver`, within our limits. The command has no option for
    it, but looks the class up here."""
    limit_uvicorn()
    app.DagsterWebserver = GuardedWebserver  # type: ignore[attr-defined]


def main() -> None:
    try:
        load_orchestration_settings()
    except StreamFlowError as error:
        sys.exit(f"error: {error}")
    install_guard()
    cli.main()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
