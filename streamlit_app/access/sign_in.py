"""The user of this session, and the sign-in form."""

import time
from pathlib import Path

import streamlit as st
import structlog

from streamflow.settings.dashboard import DashboardSettings
from streamlit_app.access.roles import Identity, identify
from streamlit_app.ui.components import card, show
from streamlit_app.ui.markup import empty

log = structlog.get_logger()

_TOKEN = "signed_in_with"  # noqa: S105 (the name of a session's variable)
_PAUSE = 1.0  # seconds after a wrong token: guessing must take long


def check_secrets(settings: DashboardSettings) -> None:
    """Warns where others can read the secrets of sign-in."""
    files = st.get_option("secrets.files") if settings.dashboard_sign_in == "oidc" else ()
    for file in map(Path, files):
        if file.exists() and file.stat().st_mode & 0o077:
            log.warning("secrets can be read by others", file=str(file), advice=f"chmod 600 {file}")


def current_identity(settings: DashboardSettings) -> Identity:
    """The user of this session, as of now."""
    if settings.dashboard_sign_in == "oidc":
        user = st.user.to_dict() if getattr(st.user, "is_logged_in", False) else None
        return identify(settings, user=user)
    return identify(settings, token=st.session_state.get(_TOKEN))


def require_sign_in(settings: DashboardSettings) -> Identity:
    """The user of this session; shows only the sign-in form where there must be one first."""
    identity = current_identity(settings)
    if identity.role is None:
        _ask(settings)
        st.stop()
    return identity


def _ask(settings: DashboardSettings) -> None:
    _, middle, _ = st.columns([1, 2, 1])
    with middle, card("sign-in"):
        if settings.dashboard_sign_in == "oidc":
            show(empty("Sign in to see the pipeline", "Your identity provider asks who you are."))
            if not hasattr(st.user, "is_logged_in"):
                st.error(
                    "OIDC is not configured: put an [auth] section into .streamlit/secrets.toml and "
                    "install StreamFlow with its extra oidc"
                )
            elif st.button("Sign in", type="primary", width="stretch"):
                st.login()
            return
        show(empty("Sign in to see the pipeline", "Enter the token you were given."))
        with st.form("sign-in", border=False):
            token = st.text_input("Token", type="password", autocomplete="current-password")
            if st.form_submit_button("Sign in", type="primary", width="stretch"):
                _try(settings, token or "")


def _try(settings: DashboardSettings, token: str) -> None:
    if identify(settings, token=token).role is None:
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
