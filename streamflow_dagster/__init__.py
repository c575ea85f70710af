"""StreamFlow in Dagster: topics, tables and rollups as assets, with checks, sensors and schedules."""

from streamflow.without_rich import import_structlog

import_structlog()
