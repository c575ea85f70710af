"""Settings of alerts, shared by the dashboard, Dagster's sensors and its checks."""

from pydantic import SecretStr

from streamflow.settings.fields import group
from streamflow.settings.platform import Settings

_alerts = group("Alerts")


class AlertSettings(Settings):
    webhook_url: SecretStr | None = _alerts(
        None, "webhook that alerts and failed runs are posted to, as JSON with a `text`"
    )
    alert_for: float = _alerts(15.0, "seconds that a rule must hold before it fires", ge=0)
    alert_lag_records: float = _alerts(100_000, "offsets that a group may be behind", gt=0)
    alert_lag_seconds: float = _alerts(60.0, "seconds that a group may be behind", gt=0)
    alert_rate_min: float = _alerts(0.0, "events a second that a stream must have; 0 is off", ge=0)
    alert_dead_letter_ratio: float = _alerts(
        0.05, "share of dead letters that is too large", gt=0, le=1
    )
    alert_dead_letter_minutes: int = _alerts(5, "minutes that the share is taken over", ge=1)
    alert_dead_letter_records: int = _alerts(
        100, "records below which the share says nothing", ge=1
    )
    alert_freshness_seconds: float = _alerts(
        300.0, "seconds that a record may wait for the loader", gt=0
    )
