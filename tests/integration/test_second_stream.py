"""A stream of one's own, as the README shows it: one file, one variable, and nothing else."""

import re
import sys
from pathlib import Path

import orjson
import psycopg
import pytest

from faults import wait_until
from pipeline import WorkerProcess, count, produce, streamflow
from streamflow.settings import Settings

pytestmark = pytest.mark.integration

README = Path(__file__).parents[2] / "README.md"
STREAMS = "streamflow.streams.user_events:USER_EVENTS,my_streams:ORDERS"


def test_the_readme_s_stream_is_loaded_counted_and_audited(
    stack_settings: Settings, tmp_path: Path
) -> None:
    found = re.search(r"```python\n(# my_streams\.py\n.*?)```", README.read_text(), re.DOTALL)
    assert found is not None
    (tmp_path / "my_streams.py").write_text(found[1])
    own = {"STREAMFLOW_STREAMS": STREAMS, "PYTHONPATH": ":".join([str(tmp_path), *sys.path])}
    done = streamflow(stack_settings, "init", **own)
    assert done.returncode == 0, done.stderr

    orders = [
        orjson.dumps(
            {
                "type": "ORDER_PLACED" if number % 3 else "ORDER_CANCELLED",
                "customer": f"customer-{number % 7}",
                "amount_cents": number,
                "timestamp": f"2026-03-01T12:00:{number % 60:02d}.000Z",
            }
        )
        for number in range(90)
    ]
    produce(stack_settings, "orders", [*orders, b'{"type": "ORDER_LOST"}'])
    workers = [
        WorkerProcess(stack_settings, name, tmp_path / f"{name}.log", **own)
        for name in ("validator", "analytics", "loader")
    ]
    try:
        wait_until(lambda: count(stack_settings, "SELECT count(*) FROM orders") == 90, 60)
        audit = streamflow(stack_settings, "audit", "--json", **own)
        assert audit.returncode == 0, audit.stdout + audit.stderr
        topics = {each["topic"] for each in orjson.loads(audit.stdout)["partitions"]}
        assert f"{stack_settings.prefix}orders" in topics

        def counted() -> dict[str, int]:
            with psycopg.connect(stack_settings.database) as connection:
                rows = connection.execute(
                    "SELECT event_type, sum(count)::int FROM window_counts GROUP BY 1"
                ).fetchall()
            return dict(rows)

        wait_until(lambda: counted() == {"ORDER_PLACED": 60, "ORDER_CANCELLED": 30}, 60)
        assert count(stack_settings, "SELECT count(*) FROM dead_letters") == 1
    finally:
        for worker in workers:
            worker.kill()
    # The table is of the stream's contract.
    with psycopg.connect(stack_settings.database) as connection:
        row = connection.execute(
            "SELECT sum(amount_cents)::int, count(DISTINCT customer) FROM orders"
        ).fetchone()
    assert row == (sum(range(90)), 7)
