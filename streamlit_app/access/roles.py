"""Roles: a viewer looks, an operator may also replay. Every action calls `require_operator` itself,
whatever the page shows."""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr

from streamflow.errors import StreamFlowError
from streamflow.settings.dashboard import DashboardSettings, Role


class Forbidden(StreamFlowError):
    """The user's role does not allow this action."""


@dataclass(frozen=True, slots=True)
class Identity:
    """The user of a session; `role` is None for one who must sign in first."""

    name: str
    role: Role | None

    @property
    def is_operator(self) -> bool:
        return self.role == "operator"


def identify(
    settings: DashboardSettings,
    *,
    token: str | None = None,
    user: Mapping[str, Any] | None = None,
) -> Identity:
    """The user, by the token entered or by the claims of the identity provider, whichever the settings
    ask for."""
    if settings.dashboard_sign_in == "none":
        return Identity("anonymous", settings.default_role)
    if settings.dashboard_sign_in == "token":
        if _is(token, settings.dashboard_operator_token):
            return Identity("operator (token)", "operator")
        if _is(token, settings.dashboard_viewer_token):
            return Identity("viewer (token)", "viewer")
        return Identity("anonymous", None)
    if user is None or not user.get("email"):
        return Identity("anonymous", None)
    email = str(user["email"])
    # An address that the provider has not verified may belong to another user.
    verified = user.get("email_verified", True) in (True, "true")
    named = email.casefold() in map(str.casefold, settings.dashboard_operators)
    # The name goes into tables, which must hold no address (G7).
    name = str(user.get("name") or email).partition("@")[0]
    return Identity(name, "operator" if named and verified else "viewer")


def require_operator(identity: Identity) -> None:
    """Raises Forbidden for a user who is no operator."""
    if not identity.is_operator:
        raise Forbidden(
            "this needs the role operator: sign in as one, or set STREAMFLOW_DASHBOARD_ROLE=operator"
        )


def _is(token: str | None, secret: SecretStr | None) -> bool:
    if not token or secret is None:
        return False
    return hmac.compare_digest(token.encode(), secret.get_secret_value().encode())
