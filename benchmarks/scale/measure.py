"""What every screen, check and sensor asks the database of a filled stage (`fill`), and how long that takes.

    python measure.py [--over 100]

Prints each thing with its time, and below it the statements that took longer than so many milliseconds.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import dagster as dg
import psycopg

from streamflow.dead_letters.select import Selection, SourceStream, Status, count
from streamflow.postgres.connections import session
from streamflow.postgres.schema import plans
from streamflow.postgres.sessions.tables import SessionTable
from streamflow.records import Origin
from streamflow.registry import Streams, load_streams
from streamflow.settings import Settings, load_process_settings
from streamflow.settings.orchestration import load_orchestration_settings
from streamflow_dagster.definitions import build
from streamflow_dagster.resources import Platform
from streamflow_stack.doctor import examine
from streamflow_stack.stream_status import read_stream_status
from streamlit_app.measure.postgres import PostgresSource
from streamlit_app.records import queries, traces
from streamlit_app.records.session_totals import session_totals
from streamlit_app.records.window_choice import aggregates_of, choices_of
from streamlit_app.records.window_counts import window_counts
from streamlit_app.records.window_totals import window_totals

_UP: Final = {"kafka": "up", "postgres": "up"}
_SPANS: Final = {"the last hour": 3_600.0, "the last day": 86_400.0}

Action = Callable[[], object]


class Statements:
    """The slow statements of this process, with their times."""

    def __init__(self, over: float) -> None:
        self._over = over
        self.slow: list[tuple[float, str]] = []

    @contextmanager
    def timed(self, statement: object) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            took = 1_000 * (time.perf_counter() - began)
            if took >= self._over:
                text = statement if isinstance(statement, str) else _text(statement)
                self.slow.append((took, " ".join(text.split())[:150]))

    def watch(self) -> None:
        """From now on, of every connection."""
        for kind, name in (
            (psycopg.Cursor, "execute"),
            (psycopg.ServerCursor, "execute"),
            (psycopg.ServerCursor, "fetchmany"),
        ):
            setattr(kind, name, self._watched(getattr(kind, name)))

    def _watched(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(cursor: Any, *arguments: Any, **more: Any) -> Any:
            with self.timed(arguments[0] if arguments else "fetch"):
                return original(cursor, *arguments, **more)

        return call


def _text(statement: object) -> str:
    if isinstance(statement, bytes):
        return statement.decode()
    return (
        statement.as_string(None)
        if isinstance(statement, psycopg.sql.Composable)
        else str(statement)
    )


def screens(settings: Settings, streams: Streams) -> Iterator[tuple[str, Action]]:
    """The queries of the dashboard's pages, and the commands."""
    logins, measurements = streams
    yield "status", lambda: read_stream_status(settings, _UP)
    yield "doctor", lambda: list(examine(settings))
    yield "plans of tables (check, readiness)", lambda: plans(settings, streams)
    source = PostgresSource(settings, streams)
    yield "every page: a sample", source
    selections = {
        "open": Selection(),
        "any status": Selection(statuses=()),
        "a code": Selection(codes=("INVALID_JSON",)),
        "a stream": Selection(stream=_source(logins.topic, logins.dead_letter_topic)),
        "text": Selection(texts=("no such text",)),
        "quarantined": Selection(statuses=(Status.QUARANTINED,)),
    }
    for name, selection in selections.items():
        yield f"dead letters: {name}", partial(queries.dead_letters, settings, selection)
    for name, span in _SPANS.items():
        yield (
            f"dead letters: chart of {name}",
            partial(queries.dead_letters_over_time, settings, span, logins),
        )
    yield "dead letters: replays", lambda: queries.recent_replays(settings)
    origin = Origin(logins.topic, 1, 700_000)
    yield "trace of an event", lambda: traces.trace(settings, streams, origin)
    letter = Origin(logins.topic, 1, 1_850_000)
    yield "a dead letter", lambda: queries.dead_letter(settings, letter)
    for name, seconds in _SPANS.items():
        yield f"windows: {name}", partial(window_counts, settings, logins, seconds, None)
        for title, table in choices_of(measurements).items():
            if table is None:
                continue
            of_table = session_totals if isinstance(table, SessionTable) else window_totals
            for aggregate, chosen in aggregates_of(table).items():
                yield (
                    f"windows: {title}.{aggregate}, {name}",
                    partial(of_table, settings, table, chosen, timedelta(seconds=seconds), None),
                )
    yield "dlq list: count", lambda: _counted(settings)


def _source(topic: str, derived: str) -> SourceStream:
    return SourceStream(topic, (derived,))


def _counted(settings: Settings) -> int:
    with session(settings, "measure") as connection:
        return count(connection, Selection())


def orchestration(folder: Path) -> Iterator[tuple[str, Action]]:
    """Everything that Dagster runs but the audit: assets, checks, sensors, schedules."""
    platform = Platform(load_orchestration_settings)
    definitions = build(platform)
    instance = dg.DagsterInstance.local_temp(str(folder))
    job = definitions.resolve_implicit_global_asset_job_def()
    for key in sorted(job.asset_layer.executable_asset_keys, key=str):
        name = key.to_user_string()
        if name.startswith(("rollups/", "operations/")) and "hourly" not in name:
            yield name, partial(_materialized, definitions, instance, key)
    hour = (datetime.now(UTC) - timedelta(hours=2)).strftime("%Y-%m-%d-%H:00")
    hourly = dg.AssetKey(["rollups", "hourly_events"])
    yield "rollups/hourly_events", partial(_materialized, definitions, instance, hourly, hour)
    for checks in definitions.asset_checks or ():
        names = sorted({key.name for key in checks.check_keys})
        if "ledger_closes" not in names:
            for _ in ("first", "again"):
                yield f"checks {', '.join(names)}", partial(_checked, definitions, instance, checks)
    for sensor in definitions.sensors or ():
        if not isinstance(sensor, dg.RunStatusSensorDefinition):
            context = dg.build_sensor_context(
                instance=instance, definitions=definitions, resources={"platform": platform}
            )
            yield f"sensor {sensor.name}", partial(sensor.evaluate_tick, context)
    for schedule in definitions.schedules or ():
        if isinstance(schedule, dg.ScheduleDefinition):
            at = dg.build_schedule_context(
                instance=instance,
                resources={"platform": platform},
                scheduled_execution_time=datetime.now(UTC),
            )
            yield f"schedule {schedule.name}", partial(schedule.evaluate_tick, at)


def _materialized(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    key: dg.AssetKey,
    partition: str | None = None,
) -> None:
    job = definitions.resolve_implicit_global_asset_job_def()
    job.execute_in_process(
        instance=instance, asset_selection=[key], partition_key=partition, raise_on_error=False
    )


def _checked(
    definitions: dg.Definitions, instance: dg.DagsterInstance, checks: dg.AssetChecksDefinition
) -> None:
    job = dg.define_asset_job("checks", dg.AssetSelection.checks(*checks.check_keys))
    alone = dg.Definitions(
        assets=definitions.assets,
        asset_checks=definitions.asset_checks,
        resources=definitions.resources,
        executor=dg.in_process_executor,
        jobs=[job],
    )
    alone.resolve_job_def("checks").execute_in_process(instance=instance, raise_on_error=False)


def measured(statements: Statements, actions: Iterator[tuple[str, Action]]) -> None:
    for name, action in actions:
        statements.slow.clear()
        began = time.perf_counter()
        try:
            action()
        except Exception as error:  # noqa: BLE001 (that it fails is what is found)
            print(f"           {type(error).__name__}: {error}"[:200])
        took = 1_000 * (time.perf_counter() - began)
        print(f"{took:8.0f} ms  {name}", flush=True)
        for slow, text in statements.slow:
            print(f"           {slow:8.0f} ms  {text}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--over", type=float, default=100.0, help="milliseconds")
    parser.add_argument("--without-dagster", action="store_true")
    arguments = parser.parse_args()
    settings = load_process_settings()
    streams = load_streams(settings)
    statements = Statements(arguments.over)
    statements.watch()
    measured(statements, screens(settings, streams))
    if not arguments.without_dagster:
        with TemporaryDirectory() as folder:
            measured(statements, orchestration(Path(folder)))


if __name__ == "__main__":
    main()
