"""The server: pages by Streamlit, around them the poller's life and ``/readyz``.

Start it with ``streamflow dashboard``.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import anyio.to_thread
import streamlit as st
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from streamflow.monitoring import configure_logging
from streamflow.origins import OriginGuard
from streamflow.settings import load_process_settings
from streamflow.settings.dashboard import load_dashboard_settings
from streamlit_app.access.sign_in import check_secrets
from streamlit_app.serving import serving

# In a folder of its own: beside a folder named "pages", Streamlit would serve each file of that as a
# page by itself, past `shell` and its sign-in.
_SCRIPT: Final = str(Path(__file__).parent / "session" / "main.py")


@asynccontextmanager
async def lifespan(_app: st.App) -> AsyncIterator[None]:
    """Runs the poller from before the first session until after the last."""
    configure_logging(load_process_settings())
    check_secrets(load_dashboard_settings())
    await anyio.to_thread.run_sync(serving.open)
    try:
        yield
    finally:
        await anyio.to_thread.run_sync(serving.close)


async def readyz(_request: Request) -> JSONResponse:
    """200 while the poller works, with the state of each source; a broker that is down is shown, and
    no reason to restart the dashboard."""
    ready, content = serving().state()
    return JSONResponse(content, status_code=200 if ready else 503)


# On loopback every user is operator, so no foreign page may open a session there.
app = st.App(
    _SCRIPT,
    lifespan=lifespan,
    routes=[Route("/readyz", readyz)],
    middleware=[Middleware(OriginGuard, hosts=load_dashboard_settings().hosts)],
)
