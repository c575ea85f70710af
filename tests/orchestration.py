"""Definitions against the tests' broker and database, and ways to run parts of them."""

import re
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg

from pipeline import topics_of
from services import BrokerService, DatabaseService
from streamflow.settings import Settings
from streamflow.settings.orchestration import OrchestrationSettings
from streamflow_dagster.definitions import build
from streamflow_dagster.resources import Platform

ASSET_JOB = "__ASSET_JOB"


def orchestrated(settings: Settings, **changes: Any) -> OrchestrationSettings:
    """The same settings with those of the orchestration; keyword arguments are environment names."""
    values: dict[str, Any] = {
        "KAFKA_BOOTSTRAP_SERVERS": settings.bootstrap,
        "DATABASE_URL": settings.database,
        "STREAMFLOW_PREFIX": settings.prefix,
        "STREAMFLOW_STATE_DIR": settings.state_dir,
        "STREAMFLOW_AUDIT_PATIENCE": 0,
    }
    return OrchestrationSettings(**(values | changes))


class Orchestration:
    """The definitions of some settings, with an instance that lives as long as the test."""

    def __init__(self, instance: dg.DagsterInstance, settings: OrchestrationSettings) -> None:
        self.instance = instance
        self.settings = settings
        self.platform = Platform(lambda: self.settings)
        self.definitions = build(self.platform)

    def change(self, **changes: Any) -> None:
        """Changes settings, by the names of their fields."""
        # Not a copy: that would keep what was derived from the values before.
        values: dict[str, Any] = self.settings.model_dump() | changes
        self.settings = OrchestrationSettings(**values)

    def materialize(
        self, *keys: str, partition: str | None = None, tags: dict[str, str] | None = None
    ) -> dg.ExecuteInProcessResult:
        """Materializes assets, and runs their checks with them."""
        job = self.definitions.resolve_implicit_global_asset_job_def()
        return job.execute_in_process(
            instance=self.instance,
            asset_selection=[dg.AssetKey.from_user_string(key) for key in keys],
            partition_key=partition,
            tags=tags,
            raise_on_error=False,
        )

    def run(self, job: str, **more: Any) -> dg.ExecuteInProcessResult:
        return self.definitions.resolve_job_def(job).execute_in_process(
            instance=self.instance, raise_on_error=False, **more
        )

    def check(self, key: str, name: str) -> dg.AssetCheckEvaluation:
        """Runs one check."""
        wanted = dg.AssetCheckKey(dg.AssetKey.from_user_string(key), name)
        job = dg.define_asset_job("one_check", dg.AssetSelection.checks(wanted))
        found = dg.Definitions(
            assets=self.definitions.assets,
            asset_checks=self.definitions.asset_checks,
            resources=self.definitions.resources,
            executor=dg.in_process_executor,
            jobs=[job],
        )
        result = found.resolve_job_def("one_check").execute_in_process(
            instance=self.instance,
            # A blocking check that fails, fails its run.
            raise_on_error=False,
        )
        [evaluation] = result.get_asset_check_evaluations()
        return evaluation

    def sensor(self, name: str) -> dg.SensorDefinition:
        return next(each for each in self.definitions.sensors or () if each.name == name)

    def schedule(self, name: str) -> Any:
        return next(
            each
            for each in self.definitions.schedules or ()
            if isinstance(each, dg.ScheduleDefinition) and each.name == name
        )


def metadata_of(result: dg.ExecuteInProcessResult, key: str) -> dict[str, Any]:
    """Numbers and texts of the last materialization of an asset in a run."""
    wanted = dg.AssetKey.from_user_string(key)
    events = [
        event.step_materialization_data.materialization
        for event in result.get_asset_materialization_events()
        if event.asset_key == wanted
    ]
    assert events, f"{key} was not materialized"
    return {name: value.value for name, value in events[-1].metadata.items()}


@contextmanager
def stack_of_a_module(
    broker: BrokerService, database: DatabaseService, template: str, state: Path, **changes: str
) -> Iterator[Settings]:
    """Topics and a database that the tests of a module share; keyword arguments are environment names."""
    prefix = f"orchestration-{uuid.uuid4().hex[:6]}."
    name = re.sub(r"[^a-z0-9]+", "_", prefix).strip("_")
    made = Settings(
        KAFKA_BOOTSTRAP_SERVERS=broker.bootstrap,
        DATABASE_URL=database.create_database(name, template),
        STREAMFLOW_PREFIX=prefix,
        STREAMFLOW_STATE_DIR=state,
        **changes,
    )
    with topics_of(made):
        yield made
    database.drop_database(name)


@contextmanager
def broken(settings: Settings, *statements: str, mend: Sequence[str]) -> Iterator[None]:
    """Inside, the data is broken."""
    with psycopg.connect(settings.database, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())
        try:
            yield
        finally:
            for statement in mend:
                connection.execute(statement.encode())
