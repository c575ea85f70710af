"""The dashboard's own settings."""

from functools import partial
from typing import Annotated, Any, Final, Literal, Self

from pydantic import SecretStr, field_validator, model_validator
from pydantic_settings import NoDecode

from streamflow.origins import Hosts
from streamflow.settings.alerting import AlertSettings
from streamflow.settings.environment import is_loopback
from streamflow.settings.fields import HostNames, Texts, group
from streamflow.settings.platform import load_settings_of

Role = Literal["viewer", "operator"]

# Names of the ports that serve the workers' metrics.
_METRICS_PORTS = ("validator", "analytics", "loader", "bridge-health", "producer")

_dashboard = group("Dashboard")


class DashboardSettings(AlertSettings):
    dashboard_role: Role | None = _dashboard(
        None,
        "`viewer` or `operator`: role of users who have not signed in",
        shown="operator on loopback, else viewer",
    )
    dashboard_sign_in: Literal["none", "token", "oidc"] = _dashboard(
        "none", "`none`, `token`, or `oidc` (Streamlit's `st.login`)"
    )
    dashboard_operator_token: SecretStr | None = _dashboard(
        None, "token of operators, for sign-in by token"
    )
    dashboard_viewer_token: SecretStr | None = _dashboard(
        None, "token of viewers, for sign-in by token"
    )
    dashboard_operators: Texts = _dashboard(
        (), "e-mail addresses of operators, for sign-in by OIDC, comma-separated"
    )
    dashboard_trust_addresses: bool = _dashboard(
        False,
        "whether to believe the address of a provider that sends no `email_verified`: only if its users "
        "cannot choose theirs, as in a single-tenant Entra app",
    )
    dashboard_hosts: HostNames = _dashboard(
        (), "names under which a proxy or ingress serves it, some with a port, comma-separated"
    )
    dashboard_probe: bool | None = _dashboard(
        None, "whether the end-to-end probe writes to its own topic", shown="on for operators"
    )
    dashboard_interval: float = _dashboard(1.0, "seconds between two measurements", ge=0.2, le=60)
    worker_urls: Annotated[dict[str, str], NoDecode] = _dashboard(
        {},
        "where each worker serves its metrics, as `loader=http://host:port,…`",
        shown="this machine's ports",
    )
    dagster_public_url: str | None = _dashboard(
        None,
        "where links to Dagster lead, if a browser reaches it elsewhere",
        shown="as `STREAMFLOW_DAGSTER_URL`",
        pattern=r"^https?://",
    )

    @field_validator("worker_urls", mode="before")
    @classmethod
    def _parse_urls(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        pairs = [part.partition("=") for part in value.replace(",", " ").split()]
        wrong = [name for name, _, url in pairs if not url.startswith(("http://", "https://"))]
        if wrong:
            raise ValueError("write NAME=http://HOST:PORT for each worker")
        return {name: url.rstrip("/") for name, _, url in pairs}

    @model_validator(mode="after")
    def _token_is_there(self) -> Self:
        if self.dashboard_sign_in == "token" and not (
            self.dashboard_operator_token or self.dashboard_viewer_token
        ):
            raise ValueError(
                "STREAMFLOW_DASHBOARD_SIGN_IN=token needs STREAMFLOW_DASHBOARD_OPERATOR_TOKEN or "
                "STREAMFLOW_DASHBOARD_VIEWER_TOKEN"
            )
        return self

    @property
    def default_role(self) -> Role:
        """Of users who have not signed in: unless configured, they may do everything from this machine,
        and only look from elsewhere."""
        if self.dashboard_role is not None:
            return self.dashboard_role
        return "operator" if is_loopback(self.host) else "viewer"

    @property
    def hosts(self) -> Hosts:
        return Hosts.of(
            "the dashboard",
            "STREAMFLOW_DASHBOARD_HOSTS",
            own=(self.host,),
            listed=self.dashboard_hosts,
        )

    @property
    def probes(self) -> bool:
        """Whether the end-to-end probe writes: unless configured, only where users may do more than look."""
        if self.dashboard_probe is None:
            return self.default_role == "operator"
        return self.dashboard_probe

    @property
    def workers(self) -> dict[str, str]:
        """Where each worker serves its metrics."""
        ports = (*_METRICS_PORTS, "ingest-health") if self.ingest_enabled else _METRICS_PORTS
        return self.worker_urls or {
            name.removesuffix("-health"): f"http://{self.host}:{self.port(name)}" for name in ports
        }

    @property
    def dagster(self) -> str:
        """Where this server reaches Dagster's webserver."""
        return self.dagster_url or f"http://127.0.0.1:{self.port('dagster')}"

    @property
    def dagster_for_people(self) -> str:
        """Where a browser reaches it."""
        return self.dagster_public_url or self.dagster


load_dashboard_settings: Final = partial(load_settings_of, DashboardSettings)
