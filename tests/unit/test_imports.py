"""What a process imports stays in its memory: nobody pays for what others need."""

import subprocess
import sys

import pytest

_HEAVY = (
    "alembic",
    "altair",
    "dagster",
    "numpy",
    "openlineage",
    "opentelemetry",
    "pandas",
    "pyarrow",
    "sqlalchemy",
    "streamlit",
)
_SHOW = "import sys; print(*sys.modules)"


def modules_after(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; {_SHOW}"], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def imported_with(*modules: str) -> set[str]:
    return {name.partition(".")[0] for name in modules_after(f"import {', '.join(modules)}")}


@pytest.mark.parametrize(
    "modules",
    [
        ("streaming_workers.launch", "streamflow.streams.user_events"),
        ("streaming_workers.bridge.server",),
        ("streaming_workers.producer.file", "streaming_workers.producer.source"),
        ("streamflow_stack.lifecycle", "streamflow_cli.stack"),
        ("streaming_workers.ingest.server",),
        ("streamflow.producer.asynchronous",),
    ],
    ids=["worker", "bridge", "producer", "supervisor", "ingest", "Producer"],
)
def test_a_process_imports_nothing_heavy_that_it_does_not_need(modules: tuple[str, ...]) -> None:
    assert imported_with(*modules).isdisjoint(_HEAVY)


@pytest.mark.parametrize("module", ["streaming_workers.launch", "streamflow_dagster.webserver"])
def test_processes_of_ours_log_without_rich(module: str) -> None:
    # As the command does; Dagster's webserver has a command of its own.
    begin = "import streamflow.without_rich as lean; lean.import_structlog()"
    code = f"import {module}" if "dagster" in module else f"{begin}; import {module}"
    modules = modules_after(code)
    assert "structlog" in modules
    assert "rich" not in modules
    assert "rich.table" in modules_after(f"{code}; import rich.table")


def test_status_imports_nothing_of_what_starts_parts() -> None:
    modules = modules_after("import streamflow_stack.status, streamflow_stack.stream_status")
    assert modules.isdisjoint({"requests", "yaml", "psutil", "streamflow_stack.parts"})


def test_a_dashboard_without_a_session_has_not_imported_its_pages() -> None:
    assert imported_with("streamlit_app.app").isdisjoint(
        {"altair", "numpy", "openlineage", "opentelemetry", "pandas", "pyarrow"}
    )
