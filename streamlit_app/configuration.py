"""The dashboard's own settings: environment variables, or the same names in ``streamflow.toml``."""

import ipaddress
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from streamflow.errors import ConfigurationError
from streamflow.settings import Settings

Role = Literal["viewer", "operator"]

_PARTS = ("validator", "analytics", "loader", "producer")


class DashboardSettings(BaseSettings):
    """Everything that only the dashboard needs. Names of environment variables are the aliases."""

    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", toml_file="streamflow.toml", populate_by_name=True
    )

    role: Role | None = Field(None, alias="STREAMFLOW_DASHBOARD_ROLE")
    sign_in: Literal["none", "token", "oidc"] = Field("none", alias="STREAMFLOW_DASHBOARD_SIGN_IN")
    operator_token: SecretStr | None = Field(None, alias="STREAMFLOW_DASHBOARD_OPERATOR_TOKEN")
    viewer_token: SecretStr | None = Field(None, alias="STREAMFLOW_DASHBOARD_VIEWER_TOKEN")
    operators: Annotated[tuple[str, ...], NoDecode] = Field(
        (), alias="STREAMFLOW_DASHBOARD_OPERATORS"
    )
    probe: bool | None = Field(None, alias="STREAMFLOW_DASHBOARD_PROBE")
    worker_urls: Annotated[dict[str, str], NoDecode] = Field(
        default_factory=dict, alias="STREAMFLOW_WORKER_URLS"
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

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The order of precedence: as the other settings have it."""
        del dotenv_settings, file_secret_settings
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)

    def default_role(self, settings: Settings) -> Role:
        """What somebody may do who has not signed in: everything on the own machine, unless it is
        configured otherwise; look only, beyond it."""
        if self.role is not None:
            return self.role
        return "operator" if is_loopback(settings.host) else "viewer"

    def probes(self, settings: Settings) -> bool:
        """Whether the end-to-end probe writes: unless configured, where looking is not all that one
        may do."""
        return self.default_role(settings) == "operator" if self.probe is None else self.probe

    def workers(self, settings: Settings) -> dict[str, str]:
        """Where each worker is asked for its metrics."""
        local = {name: f"http://{settings.host}:{settings.port(name)}" for name in _PARTS}
        return self.worker_urls or local


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
    try:
        return DashboardSettings(**overrides)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc'])) or 'settings'}: {fault['msg']}"
            for fault in error.errors(include_input=False, include_url=False)
        )
        raise ConfigurationError(f"settings of the dashboard are wrong: {faults}") from None
