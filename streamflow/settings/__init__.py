"""Settings: read once from the environment and ``streamflow.toml``, then passed on, frozen.

Order of precedence: environment, ``streamflow.toml`` in the working directory, the coordinates that a
running ``streamflow up`` left in the state directory, defaults. ``docs/settings.md`` is made from the
fields (`reference`).
"""

from streamflow.settings.dashboard import DashboardSettings, load_dashboard_settings
from streamflow.settings.ingest import IngestSettings, load_ingest_settings
from streamflow.settings.orchestration import OrchestrationSettings, load_orchestration_settings
from streamflow.settings.platform import (
    BROKERS,
    COORDINATES_FILE,
    DEFAULT_PORTS,
    GROUPS,
    Settings,
    load_process_settings,
    load_settings,
    load_settings_of,
)
from streamflow.settings.schema_registry import RegistrySettings, load_registry_settings

__all__ = [
    "BROKERS",
    "COORDINATES_FILE",
    "DEFAULT_PORTS",
    "GROUPS",
    "DashboardSettings",
    "IngestSettings",
    "OrchestrationSettings",
    "RegistrySettings",
    "Settings",
    "load_dashboard_settings",
    "load_ingest_settings",
    "load_orchestration_settings",
    "load_process_settings",
    "load_registry_settings",
    "load_settings",
    "load_settings_of",
]
