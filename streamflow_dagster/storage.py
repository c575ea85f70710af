"""Where Dagster keeps runs, events and schedules: PostgreSQL where it is told of one, else files.

``dagster.yaml`` cannot say "else": an unset variable in it is a crash. So it names this class.
"""

import json
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from dagster._config.config_schema import UserConfigSchema
from dagster._core.storage.base_storage import DagsterStorage
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
from dagster._serdes import ConfigurableClass, ConfigurableClassData
from dagster_postgres.storage import DagsterPostgresStorage

from streamflow.database_url import normalized
from streamflow.errors import ConfigurationError
from streamflow.settings import load_settings

URL_VARIABLE: Final = "STREAMFLOW_DAGSTER_DATABASE_URL"
HOME_VARIABLE: Final = "DAGSTER_HOME"


class InstanceStorage(DagsterStorage, ConfigurableClass):
    """Named by ``dagster.yaml``; becomes one of Dagster's own two."""

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        """Nothing to be configured in the file: a URL holds a password."""
        return {}

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: object
    ) -> Any:
        """PostgreSQL by dagster-postgres if ``STREAMFLOW_DAGSTER_DATABASE_URL`` is set, else SQLite
        below ``DAGSTER_HOME``, else below the state directory."""
        del inst_data, config_value
        # In a webserver this is the first code of ours, and it runs before the application is made.
        if "dagster_webserver.app" in sys.modules:
            import_module("streamflow_dagster.webserver").install_guard()
        url = os.environ.get(URL_VARIABLE)
        if url:
            try:
                url = normalized(url)
            except ValueError as error:
                raise ConfigurationError(f"{URL_VARIABLE} {error}") from None
            # Dagster connects by itself: its text is UTF-8, too, whatever the user's locale says.
            os.environ["PGCLIENTENCODING"] = "UTF8"
            return DagsterPostgresStorage.from_config_value(None, {"postgres_url": url})
        home = os.environ.get(HOME_VARIABLE)
        folder = Path(home) if home else load_settings().state_dir / "dagster"
        directory = str((folder / "storage").absolute())
        data = ConfigurableClassData(
            DagsterSqliteStorage.__module__,
            DagsterSqliteStorage.__name__,
            json.dumps({"base_dir": directory}),  # YAML, too
        )
        return DagsterSqliteStorage.from_config_value(data, {"base_dir": directory})
