"""What the parts of a stack are called. Imports nothing, for commands that only show them."""

from typing import Final

WORKERS: Final = ("validator", "analytics", "loader")
DAGSTER: Final = "dagster"
DAGSTER_CODE, DAGSTER_WEBSERVER, DAGSTER_DAEMON = DAGSTER_PARTS = (
    "dagster-code",
    "dagster-webserver",
    "dagster-daemon",
)
DASHBOARD: Final = "dashboard"
INGEST: Final = "ingest"
_ALONE: Final = ("kafka", "postgres", "producer", *WORKERS, "bridge")
NAMES: Final = (*_ALONE, *DAGSTER_PARTS, DASHBOARD)
# What `--without` takes: each part by its name, Dagster's three by one.
CHOICES: Final = (*_ALONE, INGEST, DAGSTER, DASHBOARD)
