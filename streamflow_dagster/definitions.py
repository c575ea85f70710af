"""The code location: everything that Dagster knows of. Only assembled here."""

import dagster as dg

from streamflow_dagster.catalog import catalog_of
from streamflow_dagster.defs.content_checks import content_checks
from streamflow_dagster.defs.exports import export_assets
from streamflow_dagster.defs.jobs import jobs
from streamflow_dagster.defs.ledger_checks import ledger_checks
from streamflow_dagster.defs.pruning import prune_dagster
from streamflow_dagster.defs.rehash import rehash_rows
from streamflow_dagster.defs.replay import replay_dead_letters
from streamflow_dagster.defs.retention import retention_asset
from streamflow_dagster.defs.rollups import rollup_assets
from streamflow_dagster.defs.schedules import schedules
from streamflow_dagster.defs.sensors import sensors
from streamflow_dagster.defs.sessions import session_assets, session_checks
from streamflow_dagster.defs.tables import table_assets, view_specs
from streamflow_dagster.defs.topics import (
    producer_specs,
    topic_assets,
    topic_checks,
    unmanaged_topic_specs,
)
from streamflow_dagster.defs.traffic_checks import traffic_checks
from streamflow_dagster.resources import Platform


def build(platform: Platform) -> dg.Definitions:
    settings = platform.settings()
    streams = platform.streams(settings)
    for failed in streams.failed:
        dg.get_dagster_logger().error(str(failed))
    catalog = catalog_of(settings, streams)
    return dg.Definitions(
        assets=[
            *producer_specs(catalog),
            *topic_assets(catalog),
            *unmanaged_topic_specs(catalog),
            *table_assets(catalog),
            *view_specs(catalog),
            *rollup_assets(catalog, settings),
            *session_assets(catalog),
            retention_asset(catalog),
            *export_assets(catalog, settings),
        ],
        asset_checks=[
            topic_checks(catalog),
            ledger_checks(catalog),
            *content_checks(catalog),
            *session_checks(catalog),
            traffic_checks(catalog),
        ],
        jobs=[*jobs(catalog), replay_dead_letters, prune_dagster, rehash_rows],
        schedules=schedules(settings, catalog),
        sensors=sensors(catalog, settings),
        resources={"platform": platform},
        # A process for each step would cost more than most steps take.
        executor=dg.in_process_executor,
    )


defs = build(Platform())
