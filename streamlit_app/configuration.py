"""The dashboard's own settings: environment variables, or the same names in ``streamflow.toml``."""

import ipaddress
from typing import Annotated, Any, Literal, Self

from pydantic import AliasChoices, Field, SecretStr, field_validator, model_validator
from pydantic_settings import NoDecode

from streamflow.origins import Hosts
from streamflow.settings import HostNames, Settings, load_settings_of

Role = Literal["viewer", "operator"]

# The workers that a stack runs, and under which name their port is known.
_PARTS = {
    "validator": "validator",
    "analytics": "analytics",
    "loader": "loader",
    "bridge": "bridge-health",
    "producer": "producer",
}


class DashboardSettings(Settings):
    """Everything that can be configured, with what only the dashboard needs."""

    role: Role | None = Field(None, alias="STREAMFLOW_DASHBOARD_ROLE")
    sign_in: Literal["none", "token", "oidc"] = Field("none", alias="STREAMFLOW_DASHBOARD_SIGN_IN")
    operator_token: SecretStr | None = Field(None, alias="STREAMFLOW_DASHBOARD_OPERATOR_TOKEN")
    viewer_token: SecretStr | None = Field(None, alias="STREAMFLOW_DASHBOARD_VIEWER_TOKEN")
    # Names, some with a port, under which a proxy or ingress serves it.
    dashboard_hosts: HostNames = Field(
        (), validation_alias=AliasChoices("STREAMFLOW_DASHBOARD_HOSTS", "dashboard_hosts")
    )
    operators: Annotated[tuple[str, ...], NoDecode] = Field(
        (), alias="STREAMFLOW_DASHBOARD_OPERATORS"
    )
    probe: bool | None = Field(None, alias="STREAMFLOW_DASHBOARD_PROBE")
    worker_urls: Annotated[dict[str, str], NoDecode] = Field(
        default_factory=dict, alias="STREAMFLOW_WORKER_URLS"
    )
    dagster_public_url: str | None = Field(
        None, pattern=r"^https?://", alias="STREAMFLOW_DAGSTER_PUBLIC_URL"
    )
    interval: float = Field(1.0, ge=0.2, le=60, alias="STREAMFLOW_DASHBOARD_INTERVAL")

    webhook_url: SecretStr | None = Field(None, alias="STREAMFLOW_WEBHOOK_URL")
    alert_for: float = Field(15.0, ge=0, alias="STREAMFLOW_ALERT_FOR")
    alert_lag_records: float = Field(100_000, gt=0, alias="STREAMFLOW_ALERT_LAG_RECORDS")
    alert_lag_seconds: float = Field(60.0, gt=0, alias="STREAMFLOW_ALERT_LAG_SECONDS")
    alert_rate_min: float = Field(0.0, ge=0, alias="STREAMFLOW_ALERT_RATE_MIN")
    alert_dead_letter_ratio: float = Field(
        0.05, gt=0, le=1, alias="STREAMFLOW_ALERT_DEAD_LETTER_RATIO"
    )
    alert_freshness: float = Field(300.0, gt=0, alias="STREAMFLOW_ALERT_FRESHNESS_SECONDS")

    @field_validator("operators", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(value.replace(",", " ").split()) if isinstance(value, str) else value

    @field_validator("worker_urls", mode="before")
    @classmethod
    def _parse_urls(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        pairs = [part.partition("=") for part in value.replace(",", " ").split()]
        wrong = [name for name, _, url in pairs if not url.startswith(("http://", "https://"))]
        if wrong:
            raise ValueError(f"write NAME=http://HOST:PORT for each worker; {wrong[0]} is not so")
        return {name: url.rstrip("/") for name, _, url in pairs}

    @model_validator(mode="after")
    def _token_is_there(self) -> Self:
        if self.sign_in == "token" and self.operator_token is None and self.viewer_token is None:
            raise ValueError(
                "STREAMFLOW_DASHBOARD_SIGN_IN=token needs STREAMFLOW_DASHBOARD_OPERATOR_TOKEN or "
                "STREAMFLOW_DASHBOARD_VIEWER_TOKEN"
            )
        return self

    @property
    def default_role(self) -> Role:
        """What somebody may do who has not signed in: everything on the own machine, unless it is
        configured otherwise; look only, beyond it."""
        if self.role is not None:
            return self.role
        return "operator" if is_loopback(self.host) else "viewer"

    @property
    def hosts(self) -> Hosts:
        """Under which names browsers reach it."""
        return Hosts.of(
            "the dashboard",
            "STREAMFLOW_DASHBOARD_HOSTS",
            own=(self.host,),
            listed=self.dashboard_hosts,
        )

    @property
    def probes(self) -> bool:
        """Whether the end-to-end probe writes: unless configured, where looking is not all that one
        may do."""
        return self.default_role == "operator" if self.probe is None else self.probe

    @property
    def workers(self) -> dict[str, str]:
        """Where each worker is asked for its metrics."""
        local = {name: f"http://{self.host}:{self.port(port)}" for name, port in _PARTS.items()}
        return self.worker_urls or local

    @property
    def dagster(self) -> str:
        """Where Dagster's webserver answers this server."""
        return self.dagster_url or f"http://127.0.0.1:{self.port('dagster')}"

    @property
    def dagster_for_people(self) -> str:
        """Where it answers a browser."""
        return self.dagster_public_url or self.dagster


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def load_dashboard_settings(**overrides: Any) -> DashboardSettings:
    """Reads the settings.

    Raises:
        ConfigurationError: a variable has a value that cannot be used; names it, not its value.
    """
    return load_settings_of(DashboardSettings, **overrides)
