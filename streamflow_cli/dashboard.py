import os
import signal
import sys
from importlib.resources import files
from typing import Annotated

import typer

# Options that would change the dashboard's address.
_UNSET = ("server.baseUrlPath", "server.sslCertFile", "server.sslKeyFile")


def dashboard(
    port: Annotated[
        int | None, typer.Option(help="Port to listen on; 8501 and the port offset by default.")
    ] = None,
) -> None:
    """Serve the live dashboard in the foreground until SIGTERM or Ctrl-C.

    Who may replay dead letters is set by STREAMFLOW_DASHBOARD_ROLE; see docs/dashboard.md.

    Example: streamflow dashboard --port 8501
    """
    from streamflow import extras

    extras.require("dashboard", "the dashboard")
    # Streamlit reads an option from the environment where the command line has none. What names the files
    # with the secrets of sign-in stays.
    for name in [name for name in os.environ if name.startswith("STREAMLIT_")]:
        if name != "STREAMLIT_SECRETS_FILES":
            del os.environ[name]
    from streamlit.web.cli import main as streamlit

    from streamflow.settings.dashboard import load_dashboard_settings
    from streamflow.web_limits import limit_uvicorn
    from streaming_workers.runtime.process import bound_arenas

    bound_arenas()
    settings = load_dashboard_settings()
    program = files("streamlit_app").joinpath("app.py")
    listen_on = str(port or settings.port("dashboard"))
    address = ("--server.address", settings.host, "--server.port", listen_on)
    # Before what a config.toml of the user or of his folder says.
    pinned = [f"--{option}=" for option in _UNSET]
    # If a proxy has changed Host, Streamlit compares a WebSocket's origin with these.
    origins = [
        argument
        for name in settings.dashboard_hosts
        for scheme in ("https", "http")
        for argument in ("--server.corsAllowedOrigins", f"{scheme}://{name}")
    ]
    # Once Streamlit has shut down it raises the signal again, for the previous handler.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    # Here: uvicorn is configured before it imports the application.
    limit_uvicorn()
    streamlit(["run", str(program), *address, *pinned, *origins], standalone_mode=False)
