"""Named by ``dagster.yaml``, so that every process that builds our instance imports it."""

import sys
from importlib import import_module
from typing import Any

import dagster as dg


class GuardingDefsStateStorage(dg.UPathDefsStateStorage):
    """Dagster's own; puts `OriginGuard` before the webserver on the way.

    The webservers of ``dagster dev`` and ``dg dev`` are started by Dagster. What their instance
    loads is the first code of ours in them, and it runs before the application is created.
    """

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Any) -> Any:
        """Builds the storage as Dagster does."""
        if "dagster_webserver.app" in sys.modules:
            import_module("streamflow_dagster.webserver").install_guard()
        return super().from_config_value(inst_data, config_value)
