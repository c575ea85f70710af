"""Named in ``dagster.yaml``, so that every process that builds our instance imports it."""

import sys
from importlib import import_module
from typing import Any

import dagster as dg


class GuardingDefsStateStorage(dg.UPathDefsStateStorage):
    """Dagster's default; installs `OriginGuard` as a side effect.

    The webservers of ``dagster dev`` and ``dg dev`` are started by Dagster. This class is the first code
    of ours that runs in them, and it runs before the application is created.
    """

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Any) -> Any:
        if "dagster_webserver.app" in sys.modules:
            import_module("streamflow_dagster.webserver").install_guard()
        return super().from_config_value(inst_data, config_value)
