"""The code location: everything that Dagster is to know, assembled. Nothing is computed here."""

import dagster as dg

from streamflow_dagster.catalog import catalog_of
from streamflow_dagster.content_checks import content_checks
from streamflow_dagster.jobs import jobs
from streamflow_dagster.ledger_checks import ledger_checks
from streamflow_dagster.replay import replay_dead_letters
from streamflow_dagster.resources import Platform
from streamflow_dagster.retention import retention_asset
from streamflow_dagster.rollups import rollup_assets
from streamflow_dagster.schedules import schedules
from streamflow_dagster.sensors import sensors
from streamflow_dagster.tables import table_assets
from streamflow_dagster.topics import (
    producer_specs,
    topic_assets,
    topic_checks,
    unmanaged_topic_specs,
)
from streamflow_dagster.traffic_checks import traffic_checks


def build(platform: Platform) -> dg.Definitions:
    """The definitions of a platform."""
    settings = platform.settings()
    catalog = catalog_of(settings, platform.streams(settings))
    return dg.Definitions(
        assets=[
            *producer_specs(catalog),
            *topic_assets(catalog),
            *unmanaged_topic_specs(catalog),
            *table_assets(catalog),
            *rollup_assets(catalog, settings),
            retention_asset(catalog),
        ],
        asset_checks=[
            *topic_checks(catalog),
            *ledger_checks(catalog),
            *content_checks(catalog),
            *traffic_checks(catalog),
        ],
        jobs=[*jobs(catalog), replay_dead_letters],
        schedules=schedules(settings),
        sensors=sensors(catalog, settings),
        resources={"platform": platform},
        # A process for each step would cost more than most steps take.
        executor=dg.in_process_executor,
    )


defs = build(Platform())
