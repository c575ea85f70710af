"""The command that serves the dashboard."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Adds the command of this module to the root application."""
    app.command("dashboard", rich_help_panel="Stack")(dashboard)


def dashboard(
    port: Annotated[
        int | None, typer.Option(help="Port to listen on; 8501 and the port offset by default.")
    ] = None,
) -> None:
    """Serve the live dashboard in the foreground until SIGTERM or Ctrl-C.

    Who may replay dead letters is set by STREAMFLOW_DASHBOARD_ROLE; see docs/dashboard.md.

    Example: streamflow dashboard --port 8501
    """
    from streamflow.errors import ConfigurationError
    from streamlit_app.configuration import load_dashboard_settings

    settings = load_dashboard_settings()
    spec = find_spec("streamlit_app")
    if spec is None or spec.origin is None:
        raise ConfigurationError("the dashboard is not installed: run `make setup`")
    program = Path(spec.origin).with_name("app.py")
    address = (
        "--server.address",
        settings.host,
        "--server.port",
        str(port or settings.port("dashboard")),
    )
    # Signals then reach Streamlit itself, and nothing is left of this process.
    os.execv(  # noqa: S606 (no shell is the point)
        sys.executable,
        [sys.executable, "-m", "streamlit", "run", str(program), *address],
    )
