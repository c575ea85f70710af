"""Dagster's webserver with `OriginGuard` before it: ``python -m streamflow_dagster.webserver``.

Takes the options of ``dagster-webserver``. A process that somebody else starts, as ``dagster dev``
does, gets the guard when it builds the storage that our ``dagster.yaml`` names.
"""

import sys
from typing import Any

from dagster_webserver import app, cli
from dagster_webserver.webserver import DagsterWebserver

from streamflow.errors import StreamFlowError
from streamflow_dagster.origins import Hosts, OriginGuard
from streamflow_dagster.settings import load_orchestration_settings


class GuardedWebserver(DagsterWebserver[Any, Any]):
    """The webserver that refuses what pages of others ask."""

    def create_asgi_app(self, **options: Any) -> Any:
        """The application, the guard before it."""
        hosts = Hosts.of(load_orchestration_settings())
        return OriginGuard(super().create_asgi_app(**options), hosts)


def install_guard() -> None:
    """Has Dagster's command serve `GuardedWebserver`. The command has no option for it; it finds the
    class here."""
    app.DagsterWebserver = GuardedWebserver  # type: ignore[attr-defined]


def main() -> None:
    """Runs it until SIGINT or SIGTERM."""
    try:
        load_orchestration_settings()
    except StreamFlowError as error:
        sys.exit(f"error: {error}")
    install_guard()
    cli.main()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
