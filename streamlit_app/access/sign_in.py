"""The user of this session, and the sign-in form."""

import stat
import time
from contextlib import suppress
from pathlib import Path

import streamlit as st
import structlog

from streamflow import extras
from streamflow.settings.dashboard import DashboardSettings
from streamlit_app.access.roles import Identity, identify
from streamlit_app.serving import Serving
from streamlit_app.ui.components import card, show
from streamlit_app.ui.markup import empty

log = structlog.get_logger()

_TOKEN = "signed_in_with"  # noqa: S105 (the name of a session's variable)
_PAUSE = 1.0  # seconds after a wrong token: guessing must take long


def check_secrets(settings: DashboardSettings) -> None:
    """Warns where others can read the secrets of sign-in."""
    files = st.get_option("secrets.files") if settings.dashboard_sign_in == "oidc" else ()
    for file in map(Path, files):
        # Others are not ours to judge: one in a folder that is closed to us, or a folder of secrets, which
        # must stay open to be entered.
        with suppress(OSError):
            mode = file.stat().st_mode
            if stat.S_ISREG(mode) and mode & 0o077:
                log.warning(
                    "secrets can be read by others", file=str(file), advice=f"chmod 600 {file}"
                )


def current_identity(server: Serving) -> Identity:
    """The user of this session, as of now."""
    if server.settings.dashboard_sign_in == "oidc":
        user = st.user.to_dict() if _is_logged_in() else None
        return identify(server.settings, server.hasher, user=user)
    return identify(server.settings, server.hasher, token=st.session_state.get(_TOKEN))


def require_sign_in(server: Serving) -> Identity:
    """The user of this session; shows only the sign-in form where there must be one first."""
    identity = current_identity(server)
    if identity.role is None:
        _ask(server)
        st.stop()
    return identity


def _ask(server: Serving) -> None:
    _, middle, _ = st.columns([1, 2, 1])
    with middle, card("sign-in"):
        if server.settings.dashboard_sign_in == "oidc":
            _ask_provider(server.settings)
            return
        show(empty("Sign in to see the pipeline", "Enter the token you were given."))
        with st.form("sign-in", border=False):
            token = st.text_input("Token", type="password", autocomplete="current-password")
            if st.form_submit_button("Sign in", type="primary", width="stretch"):
                _try(server, token or "")


def _ask_provider(settings: DashboardSettings) -> None:
    if _is_logged_in():
        # Signing in again would end here again.
        show(
            empty(
                "Your identity provider sent no e-mail address",
                "It must release the claim email to this client (scope openid email). Then sign out, and "
                "sign in again.",
            )
        )
        sign_out_control(settings)
        return
    show(empty("Sign in to see the pipeline", "Your identity provider asks who you are."))
    if not hasattr(st.user, "is_logged_in"):
        st.error(
            "OIDC is not configured: put an `[auth]` section into `.streamlit/secrets.toml`, and install "
            f"the extra with `{extras.command('oidc')}`."
        )
    elif st.button("Sign in", type="primary", width="stretch"):
        st.login()


def _is_logged_in() -> bool:
    # Without an [auth] section there is no such attribute.
    return bool(getattr(st.user, "is_logged_in", False))


def _try(server: Serving, token: str) -> None:
    if identify(server.settings, server.hasher, token=token).role is None:
        time.sleep(_PAUSE)
        st.error("This token is not valid.")
        return
    st.session_state[_TOKEN] = token
    st.rerun()


def sign_out_control(settings: DashboardSettings) -> None:
    """The sign-out button, where users sign in."""
    if settings.dashboard_sign_in != "none":
        sign_out = st.logout if settings.dashboard_sign_in == "oidc" else _forget
        st.button("Sign out", on_click=sign_out, type="tertiary", icon=":material/logout:")


def _forget() -> None:
    st.session_state.pop(_TOKEN, None)
