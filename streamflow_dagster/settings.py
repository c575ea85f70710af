"""Settings of the orchestration: those of everybody, and the thresholds of checks and sensors."""

from datetime import datetime
from typing import Final
from urllib.parse import urlsplit

from pydantic import AliasChoices, Field, SecretStr

from streamflow.origins import Hosts
from streamflow.settings import HostNames, Settings, load_settings_of

HOUR_FORMAT: Final = "%Y-%m-%d-%H:%M"


class OrchestrationSettings(Settings):
    """Everything that can be configured, with what only Dagster needs."""

    # Names, some with a port, under which the webserver is reached besides its own address.
    dagster_hosts: HostNames = Field(
        (), validation_alias=AliasChoices("STREAMFLOW_DAGSTER_HOSTS", "dagster_hosts")
    )
    sensor_seconds: int = Field(30, ge=1, alias="STREAMFLOW_SENSOR_SECONDS")
    drain_lag: int = Field(10_000, ge=1, alias="STREAMFLOW_DRAIN_LAG")
    drain_seconds: float = Field(600.0, gt=0, alias="STREAMFLOW_DRAIN_SECONDS")
    request_attempts: int = Field(3, ge=1, alias="STREAMFLOW_REQUEST_ATTEMPTS")
    # Addresses of webhooks hold their secret.
    webhook_url: SecretStr | None = Field(None, alias="STREAMFLOW_WEBHOOK_URL")

    quality_cron: str = Field("*/5 * * * *", alias="STREAMFLOW_QUALITY_CRON")
    audit_patience: float = Field(15.0, ge=0, alias="STREAMFLOW_AUDIT_PATIENCE")
    # Above so many records the scheduled audit looks only at what is new since the last one.
    audit_records: int = Field(2_000_000, ge=0, alias="STREAMFLOW_AUDIT_RECORDS")
    fresh_load_seconds: int = Field(300, ge=1, alias="STREAMFLOW_FRESH_LOAD_SECONDS")
    fresh_event_seconds: int = Field(900, ge=1, alias="STREAMFLOW_FRESH_EVENT_SECONDS")
    dead_letter_ratio: float = Field(0.05, ge=0, le=1, alias="STREAMFLOW_DEAD_LETTER_RATIO")
    dead_letter_minutes: int = Field(15, ge=1, alias="STREAMFLOW_DEAD_LETTER_MINUTES")
    # Of fewer records, a ratio says nothing.
    dead_letter_records: int = Field(100, ge=1, alias="STREAMFLOW_DEAD_LETTER_RECORDS")
    volume_factor: float = Field(4.0, gt=1, alias="STREAMFLOW_VOLUME_FACTOR")
    volume_hours: int = Field(6, ge=1, alias="STREAMFLOW_VOLUME_HOURS")
    contract_rows: int = Field(5_000, ge=1, alias="STREAMFLOW_CONTRACT_ROWS")
    # A topic of more offsets is not counted record by record when it is materialized.
    count_offsets: int = Field(2_000_000, ge=0, alias="STREAMFLOW_COUNT_OFFSETS")

    burst_failures: int = Field(5, ge=2, alias="STREAMFLOW_BURST_FAILURES")
    burst_failures_overall: int = Field(20, ge=2, alias="STREAMFLOW_BURST_FAILURES_OVERALL")
    burst_minutes: int = Field(5, ge=1, alias="STREAMFLOW_BURST_MINUTES")
    rollup_start: datetime = Field(
        datetime.fromisoformat("2026-01-01T00:00:00+00:00"), alias="STREAMFLOW_ROLLUP_START"
    )
    events_retention_days: int | None = Field(None, ge=1, alias="STREAMFLOW_EVENTS_RETENTION_DAYS")

    @property
    def webserver_hosts(self) -> Hosts:
        """Under which names the webserver is reached; workers report to ``STREAMFLOW_DAGSTER_URL``."""
        return Hosts.of(
            "Dagster",
            "STREAMFLOW_DAGSTER_HOSTS",
            own=(self.host, urlsplit(self.dagster_url or "").hostname or ""),
            listed=self.dagster_hosts,
        )


def load_orchestration_settings() -> OrchestrationSettings:
    """Reads the settings.

    Raises:
        ConfigurationError: a variable has a value that cannot be used.
    """
    return load_settings_of(OrchestrationSettings)
