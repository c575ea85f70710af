"""Roles: a viewer looks, an operator may also replay. Every action calls `require_operator` itself,
whatever the page shows."""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from streamflow.errors import StreamFlowError
from streamflow.settings.dashboard import DashboardSettings, Role


class Forbidden(StreamFlowError):
    """The role does not allow this action."""


@dataclass(frozen=True, slots=True)
class Identity:
    """The user of a session.

    Attributes:
        name: for the audit trail.
        role: None for a user who must sign in first.
    """

    name: str
    role: Role | None

    @property
    def is_operator(self) -> bool:
        """Whether actions are allowed."""
        return self.role == "operator"


def identify(
    settings: DashboardSettings,
    *,
    token: str | None = None,
    user: Mapping[str, Any] | None = None,
) -> Identity:
    """The user, by token or by claims of the identity provider.

    Args:
        settings: how users sign in, and where the dashboard listens.
        token: as entered; only for sign-in by token.
        user: claims of the identity provider, once signed in; only for OIDC.
    """
    if settings.dashboard_sign_in == "none":
        return Identity("anonymous", settings.default_role)
    if settings.dashboard_sign_in == "token":
        for name, role, secret in (
            ("operator (token)", "operator", settings.dashboard_operator_token),
            ("viewer (token)", "viewer", settings.dashboard_viewer_token),
        ):
            if secret is not None and token and _same(token, secret.get_secret_value()):
                return Identity(name, "operator" if role == "operator" else "viewer")
        return Identity("anonymous", None)
    if user is None or not user.get("email"):
        return Identity("anonymous", None)
    email = str(user["email"])
    # An address that the provider has not verified may belong to another user.
    verified = user.get("email_verified", True) in (True, "true")
    named = email.casefold() in {each.casefold() for each in settings.dashboard_operators}
    # The name goes into tables, where no address may lie (G7).
    name = str(user.get("name") or email).partition("@")[0]
    return Identity(name, "operator" if named and verified else "viewer")


def require_operator(identity: Identity) -> None:
    """Rejects an action of a user who is no operator.

    Raises:
        Forbidden: the role is not operator.
    """
    if not identity.is_operator:
        raise Forbidden(
            "this needs the role operator: sign in as one, or set STREAMFLOW_DASHBOARD_ROLE=operator"
        )


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())
