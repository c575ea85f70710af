"""What is measured as work grows, how it is judged, and what is written of it."""

import sys
from pathlib import Path

import orjson
import pytest
from typer.testing import CliRunner

from streamflow.errors import UsageError
from streamflow.pii_keys import PiiKeys
from streamflow.privacy import Hasher
from streamflow.registry import load_streams
from streamflow.settings import Settings
from streamflow_bench.benchmark import Findings
from streamflow_bench.figures import PathName
from streamflow_bench.growth import documents
from streamflow_bench.growth.dimensions import EVENTS, Dimension, Growth, Point
from streamflow_bench.growth.streams import stream_of
from streamflow_bench.peers import documents as shared
from streamflow_bench.sources import Sources
from streamflow_cli.app import app


def point(cost: float, *, peak_mb: float = 100.0, status_ms: float | None = None) -> Point:
    detail = {} if status_ms is None else {"status_p50_ms": status_ms, "status_p99_ms": status_ms}
    return Point(
        cost=cost, rate=50_000.0, peak_mb=peak_mb, seconds=4.0, load_before=1.5, detail=detail
    )


def growth(dimension: Dimension, **runs: list[Point]) -> Growth:
    """Of the loader; `runs` by step, as in ``at_3=[…]``."""
    steps = {int(step.removeprefix("at_")): points for step, points in runs.items()}
    return Growth(dimension, PathName.LOADER, steps)


def test_the_largest_step_is_judged_by_the_smallest() -> None:
    found = growth(Dimension.PARTITIONS, at_3=[point(8)], at_12=[point(80)], at_48=[point(12)])
    assert (found.growth, found.met, found.missed) == (1.5, True, [])
    found = growth(Dimension.PARTITIONS, at_3=[point(8)], at_12=[point(8)], at_48=[point(12.1)])
    assert found.met is False
    assert found.missed == [
        "partitions, loader: CPU for an event at 48 partitions is 1.51 x that at 3, bar ≤ 1.5"
    ]


def test_medians_are_judged() -> None:
    found = growth(Dimension.USERS, at_10=[point(8), point(9), point(10)], at_1000=[point(9)] * 3)
    assert found.growth == 1.0


def test_larger_events_are_judged_by_the_byte() -> None:
    found = growth(Dimension.SIZE, at_200=[point(10)], at_10000=[point(750)])
    assert (found.growth, found.met) == (1.5, True)
    found = growth(Dimension.SIZE, at_200=[point(10)], at_10000=[point(800)])
    assert found.missed == [
        "size, loader: CPU for a byte at 10,000 bytes an event is 1.60 x that at 200, bar ≤ 1.5"
    ]


def test_memory_is_judged_where_much_is_caught_up_with() -> None:
    runs = {"at_100000": [point(10)], "at_5000000": [point(10, peak_mb=160)]}
    found = growth(Dimension.CATCH_UP, **runs)
    assert (found.growth, found.memory_growth, found.met) == (1.0, 1.6, False)
    [missed] = found.missed
    assert missed.startswith("catch-up, loader: peak memory at 5,000,000 events behind is 1.60 x")
    assert growth(Dimension.USERS, **runs).met is True


def test_what_is_not_known_is_not_judged() -> None:
    alone = growth(Dimension.CATCH_UP, at_10=[point(8)])
    assert (alone.growth, alone.memory_growth, alone.met, alone.missed) == (None, None, None, [])


def test_steps_are_bounded() -> None:
    assert Dimension.ROWS.steps(EVENTS) == (0, 1_000_000, 10_000_000)
    assert Dimension.ROWS.steps(10 * EVENTS) == (0, 1_000_000, 10_000_000)
    assert Dimension.ROWS.steps(100) == (0, 1_000, 10_000)
    assert Dimension.CATCH_UP.steps(EVENTS) == (500_000, 5_000_000)
    assert Dimension.CATCH_UP.events(5_000_000, EVENTS) == 5_000_000
    assert Dimension.SIZE.events(10_000, EVENTS) == 30_000
    assert Dimension.SIZE.events(10_000, 100) == 100
    assert Dimension.PARTITIONS.events(48, EVENTS) == EVENTS
    for dimension in Dimension:
        assert list(dimension.steps(EVENTS)) == sorted(dimension.steps(EVENTS))


@pytest.mark.parametrize("size", Dimension.SIZE.steps(EVENTS))
def test_events_of_a_size_are_of_that_size_and_satisfy_their_contract(
    tmp_path: Path, size: int
) -> None:
    settings = Settings(STREAMFLOW_STREAMS=stream_of(Dimension.SIZE, size))
    [stream] = load_streams(settings)
    hasher = Hasher(PiiKeys.parse(None), {"user_email"})
    sources = Sources(tmp_path, 20, hasher, users=3, size=size)
    records = list(sources.records())
    assert len({record.key for record in records}) == 3
    for record, number in zip(records, range(1, 21), strict=True):
        assert size <= len(record.value) <= max(size, 230)
        if b"USER_TELEPORTED" not in record.value:
            assert stream.decoder.decode(record.value).id == number  # type: ignore[attr-defined]
            assert set(orjson.loads(record.value)) >= {"note"}


@pytest.mark.parametrize("partitions", Dimension.PARTITIONS.steps(EVENTS))
def test_all_topics_have_the_partitions(partitions: int) -> None:
    settings = Settings(STREAMFLOW_STREAMS=stream_of(Dimension.PARTITIONS, partitions))
    [stream] = load_streams(settings)
    assert {spec.partitions for spec in stream.topic_specs(1)} == {partitions}


def a_report(*growths: Growth) -> dict[str, object]:
    return {
        "date": "2026-11-27T12:00:00Z",
        "events": 100_000,
        "runs": 1,
        "machine": {"cores": 2, "cpu": "a processor", "memory_mb": 8_000},
        "growth": [each.as_dict() for each in growths],
        "missed": [missed for each in growths for missed in each.missed],
    }


ROWS = growth(
    Dimension.ROWS, at_0=[point(8, status_ms=20.0)], at_10000000=[point(16, status_ms=21.0)]
)
USERS = growth(Dimension.USERS, at_10=[point(8)], at_1000=[point(8)])
ALONE = growth(Dimension.CATCH_UP, at_10=[point(8)])


def test_the_page_and_the_chart_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # This environment has matplotlib as well.
    monkeypatch.setattr(shared, "PEERS_PYTHON", Path(sys.executable))
    page, chart = tmp_path / "performance.md", tmp_path / "growth.png"
    page.write_text(f"before\n{documents.BEGIN}\nold\n{documents.END}\nafter\n")
    documents.write_growth(a_report(ROWS, USERS, ALONE), page, chart)
    text = page.read_text()
    assert "old" not in text
    assert "| 10 events behind | loader | 8.0 | 50,000 | 4.0 | 100 |  |  |  |" in text
    assert "| 0 rows in the table | loader | 8.0 | 50,000 | 4.0 | 100 | 20.0 | 20.0 |  |" in text
    assert (
        "| 10,000,000 rows in the table | loader | 16.0 | 50,000 | 4.0 | 100 | 21.0 | 21.0 | 2.00 |"
        in text
    )
    assert "| 1,000 users | loader | 8.0 | 50,000 | 4.0 | 100 |  |  | 1.00 |" in text
    assert "load average before a run 1.5 to 1.5" in text
    assert chart.read_bytes().startswith(b"\x89PNG")


def test_the_page_has_its_marks() -> None:
    text = documents.PAGE.read_text()
    assert text.index(documents.BEGIN) < text.index(documents.END)


@pytest.mark.parametrize(("arguments", "code"), [((), 1), (("--no-judge",), 0)])
def test_what_grows_too_much_is_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], code: int
) -> None:
    plans = []

    def run(_settings: object, plan: object, _say: object) -> Findings:
        plans.append(plan)
        return Findings([], [], [], a_report(ROWS, ALONE), growths=[ROWS, ALONE])

    monkeypatch.setattr("streamflow_bench.benchmark.run_benchmark", run)
    done = CliRunner().invoke(
        app,
        ["bench", "--growth", "--only", "users", "--only", "rows", *arguments],
        env={"COLUMNS": "200"},
    )
    assert done.exit_code == code
    [plan] = plans
    assert (list(plan.growth), list(plan.paths)) == ([Dimension.ROWS, Dimension.USERS], [])
    assert plan.events == EVENTS
    assert plan.uses_database
    assert "bar missed: rows, loader: CPU for an event at 10,000,000 rows" in done.stderr
    assert "2.00" in done.stdout
    assert "unknown" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--growth", "--only", "loader"), "loader is a path: with --growth, --only takes part"),
        (("--only", "rows"), "only --growth measures rows: without it, --only takes produce"),
        (("--only", "loade"), "nothing is called loade, --only takes produce, loader"),
        (("--growth", "--peers"), "leave out --workers and --peers"),
    ],
)
def test_what_does_not_grow_is_said_before(arguments: tuple[str, ...], message: str) -> None:
    done = CliRunner().invoke(app, ["bench", *arguments])
    assert isinstance(done.exception, UsageError)
    assert message in str(done.exception)
