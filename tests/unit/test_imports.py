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


def imported_with(*modules: str) -> set[str]:
    code = f"import {', '.join(modules)}; {_SHOW}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stdout.split()}


@pytest.mark.parametrize(
    "modules",
    [
        ("streaming_workers.launch", "streamflow.streams.user_events"),
        ("streaming_workers.bridge.server",),
        ("streaming_workers.producer.file", "streaming_workers.producer.source"),
        ("streamflow_stack.lifecycle", "streamflow_cli.stack"),
    ],
    ids=["worker", "bridge", "producer", "supervisor"],
)
def test_a_process_imports_nothing_heavy_that_it_does_not_need(modules: tuple[str, ...]) -> None:
    assert imported_with(*modules).isdisjoint(_HEAVY)


def test_a_dashboard_without_a_session_has_not_imported_its_pages() -> None:
    assert imported_with("streamlit_app.app").isdisjoint(
        {"altair", "numpy", "openlineage", "opentelemetry", "pandas", "pyarrow"}
    )
