"""Roles: a viewer looks, an operator may also replay. Every action calls `require_operator` itself,
whatever the page shows."""

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr

from streamflow.errors import StreamFlowError
from streamflow.privacy import Hasher
from streamflow.settings.dashboard import DashboardSettings, Role


class Forbidden(StreamFlowError):
    """The user's role does not allow this action."""


@dataclass(frozen=True, slots=True)
class Identity:
    """The user of a session.

    Attributes:
        name: as it may be stored: without an address in clear (G7).
        role: None for one who must sign in first.
        advice: what would make this user an operator.
    """

    name: str
    role: Role | None
    advice: str = ""

    @property
    def is_operator(self) -> bool:
        return self.role == "operator"

    @property
    def label(self) -> str:
        """Name and role. The name of one who signed in by token begins with the role."""
        return self.name if self.name == _by_token(self.role) else f"{self.name}, {self.role}"


def identify(
    settings: DashboardSettings,
    hasher: Hasher,
    *,
    token: str | None = None,
    user: Mapping[str, Any] | None = None,
) -> Identity:
    """The user, by the token entered or by the claims of the identity provider, whichever the settings
    ask for."""
    if settings.dashboard_sign_in == "none":
        return Identity(
            "anonymous", settings.default_role, "Set STREAMFLOW_DASHBOARD_ROLE=operator."
        )
    if settings.dashboard_sign_in == "token":
        if _is(token, settings.dashboard_operator_token):
            return Identity(_by_token("operator"), "operator")
        if _is(token, settings.dashboard_viewer_token):
            return Identity(_by_token("viewer"), "viewer", "Sign in with the operators' token.")
        return Identity("anonymous", None)
    if user is None or not user.get("email"):
        return Identity("anonymous", None)
    email = str(user["email"])
    operators = settings.dashboard_operators
    listed = next((address for address in operators if _same_address(email, address)), None)
    # Not the claim `name`: at most providers users choose it.
    name = _name(listed or email, operators, hasher)
    # An address that the provider has not verified may belong to another user.
    is_operator = listed is not None and _is_verified(user, settings)
    return Identity(name, "operator" if is_operator else "viewer", _advice(listed))


def _by_token(role: Role | None) -> str:
    return f"{role} (token)"


def _advice(listed: str | None) -> str:
    if listed is None:
        return "Operators are those whose address is in STREAMFLOW_DASHBOARD_OPERATORS."
    return (
        "You have an operator's address, but your identity provider does not say that it is verified: "
        "see docs/dashboard.md."
    )


def _same_address(given: str, listed: str) -> bool:
    # Only ASCII is folded: ß and ss, or K and the Kelvin sign, are two mailboxes.
    both_ascii = given.isascii() and listed.isascii()
    return given == listed or (both_ascii and given.lower() == listed.lower())


def _is_verified(user: Mapping[str, Any], settings: DashboardSettings) -> bool:
    claim = user.get("email_verified")
    if claim is None:
        return settings.dashboard_trust_addresses
    return claim is True or claim == "true"


def _name(address: str, operators: Sequence[str], hasher: Hasher) -> str:
    """The part before the at sign; behind it the hash of the address, if operators share that part."""
    local = address.partition("@")[0] or address
    sharing = [one for one in operators if _same_address(one.partition("@")[0], local)]
    text = f"{local} ({address})" if len(sharing) > 1 else local
    return hasher.redact(text.encode("utf-8", "replace")).decode()


def require_operator(identity: Identity) -> None:
    """Raises Forbidden for a user who is no operator."""
    if not identity.is_operator:
        raise Forbidden(f"this needs the role operator. {identity.advice}".rstrip())


def _is(token: str | None, secret: SecretStr | None) -> bool:
    if not token or secret is None:
        return False
    return hmac.compare_digest(token.encode(), secret.get_secret_value().encode())
