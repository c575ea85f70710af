"""Settings of the orchestration: the thresholds of checks and sensors."""

from datetime import datetime
from functools import partial
from typing import Final, Literal
from urllib.parse import urlsplit

from streamflow.origins import Hosts
from streamflow.settings.alerting import AlertSettings
from streamflow.settings.fields import HostNames, WholeUtcHour, group
from streamflow.settings.platform import load_settings_of

HOUR_FORMAT: Final = "%Y-%m-%d-%H:%M"

_web = group("Dagster")
_sensors = group("Dagster: sensors and drains")
_checks = group("Dagster: checks")
_tables = group("Dagster: rollups, retention and exports")


class OrchestrationSettings(AlertSettings):
    sensor_seconds: int = _sensors(30, "seconds between two evaluations of a sensor", ge=1)
    drain_lag: int = _sensors(10_000, "offsets of lag that start a drain", ge=1)
    drain_seconds: float = _sensors(600.0, "seconds that one drain may take", gt=0)
    request_attempts: int = _sensors(
        3, "failed runs in a row after which a sensor requests only one per hour", ge=1
    )
    dagster_hosts: HostNames = _web(
        (),
        "names under which the webserver is reached besides its own, some with a port, "
        "comma-separated",
    )

    quality_cron: str = _checks("*/5 * * * *", "when the checks run, as a cron expression")
    audit_patience: float = _checks(15.0, "seconds to wait for the workers to catch up", ge=0)
    audit_records: int = _checks(
        2_000_000, "records above which only those are audited that came since the last proof", ge=0
    )
    fresh_event_seconds: int = _checks(
        900, "age in seconds of the latest event that is still fresh", ge=1
    )
    volume_factor: float = _checks(
        4.0, "times above or below the median of the hours before that is unusual", gt=1
    )
    volume_hours: int = _checks(6, "hours of the day before that must have events to say so", ge=1)
    contract_rows: int = _checks(5_000, "rows that one check looks at", ge=1)
    count_offsets: int = _checks(
        2_000_000, "offsets up to which a topic's records are counted one by one", ge=0
    )

    burst_failures: int = _tables(
        5, "example stream: failed logins of one user that are a burst", ge=2
    )
    burst_failures_overall: int = _tables(
        20, "example stream: failed logins of all users together that are a burst", ge=2
    )
    burst_minutes: int = _tables(
        5, "example stream: minutes within which these logins are a burst", ge=1
    )
    rollup_start: WholeUtcHour = _tables(
        datetime.fromisoformat("2026-01-01T00:00:00+00:00"),
        "first hour of the hourly rollup, in UTC unless it has an offset; rounded down to whole hours of UTC",
    )
    events_retention_days: int | None = _tables(
        None, "age in days at which days of events are dropped", shown="never", ge=1
    )
    windows_retention_days: int | None = _tables(
        None,
        "age in days at which days of windows with aggregates are dropped",
        shown="never",
        ge=1,
    )
    export_url: str | None = _tables(
        None,
        "folder or URL of an object store that days of events are exported to, as assets",
        shown="no exports",
    )
    export_format: Literal["parquet", "csv", "ndjson"] = _tables(
        "parquet", "format of these files: `parquet`, `csv` or `ndjson`"
    )

    @property
    def webserver_hosts(self) -> Hosts:
        """Under which names the webserver is reached; workers report to ``STREAMFLOW_DAGSTER_URL``."""
        return Hosts.of(
            "Dagster",
            "STREAMFLOW_DAGSTER_HOSTS",
            own=(self.host, urlsplit(self.dagster_url or "").hostname or ""),
            listed=self.dagster_hosts,
        )


load_orchestration_settings: Final = partial(load_settings_of, OrchestrationSettings)
