"""Figures, series, lag and verdicts: what is shown, and when it is not."""

import math

import pytest

from streamflow import units
from streamlit_app.measure.dagster import Check, Execution
from streamlit_app.measure.readings import Reading
from streamlit_app.measure.ring_buffers import MAX_POINTS, Store


def test_a_figure_is_current_for_three_intervals() -> None:
    figure = Reading[float]("Kafka", 1.0).succeeded(5.0, 100.0, 0.01)
    assert figure.is_current(103.0)
    assert not figure.is_current(103.1)
    assert figure.age(110.0) == 10.0


def test_a_figure_whose_source_failed_is_not_current() -> None:
    reading = Reading[int]("Kafka", 1.0).succeeded(7, 100.0, 0.01)
    assert reading.figure(float).is_current(100.5)
    failed = reading.failed("no answer", 2.0)
    figure = failed.figure(float)
    assert (figure.sample, figure.measured_at, figure.error) == (7.0, 100.0, "no answer")
    assert not figure.is_current(100.5)
    assert failed.succeeded(8, 101.0, 0.01).figure(float).is_current(101.0)


def test_what_was_never_measured_says_so() -> None:
    reading = Reading[int]("Kafka", 1.0)
    assert reading.figure(float).sample is None
    assert reading.trouble(100.0) == "not measured yet"
    assert reading.current(100.0) is None


def test_a_source_that_hangs_says_for_how_long() -> None:
    reading = Reading[int]("Kafka", 1.0).succeeded(7, 100.0, 0.01)
    assert reading.trouble(102.0) is None
    assert reading.trouble(109.0) == "no answer for 9 s"


@pytest.mark.parametrize("span", [300.0, 900.0, 3600.0, 14_400.0, 86_400.0])
def test_a_chart_gets_at_most_300_points_of_any_span(span: float) -> None:
    store = Store()
    for second in range(90_000):
        store.add("rate", float(second), 10.0)
    points = store.recent("rate", 90_000.0, span)
    assert 200 <= len(points.times) <= MAX_POINTS
    assert set(points.means) == {10.0}
    assert points.times[0] >= 90_000.0 - span


def test_a_gap_stays_a_gap() -> None:
    store = Store()
    for second in (*range(10), *range(15, 20)):
        store.add("rate", 1000.0 + second, 1.0)
    means = store.recent("rate", 1020.0, 60.0, 60).means
    assert [math.isnan(mean) for mean in means] == [False] * 10 + [True] * 5 + [False] * 5


def test_a_measurement_that_came_late_is_no_gap() -> None:
    store = Store()
    for second in (0, 1, 3, 4, 7, 8):
        store.add("rate", 1000.0 + second, float(second))
    assert store.recent("rate", 1009.0, 60.0, 60).means == [0.0, 1.0, 3.0, 4.0, 7.0, 8.0]


def test_points_are_means_of_their_step() -> None:
    store = Store()
    for second in range(60):
        store.add("rate", 600.0 + second, float(second % 2))
    assert set(store.recent("rate", 660.0, 60.0, 30).means) == {0.5}


def test_a_series_forgets_what_its_ring_overwrote() -> None:
    store = Store()
    store.add("rate", 0.0, 1.0)
    store.add("rate", 200_000.0, 1.0)
    assert store.recent("rate", 200_001.0, 86_400.0).means.count(1.0) <= 1


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (units.count(None), "—"),
        (units.count(1234567), "1,234,567"),
        (units.short_count(123_456), "123 k"),
        (units.short_count(12_345_678), "12.3 M"),
        (units.rate(0.5), "0.5/s"),
        (units.rate(1234, "events"), "1,234 events/s"),
        (units.duration(0.0123), "12 ms"),
        (units.duration(3.21), "3.2 s"),
        (units.duration(300), "5 min"),
        (units.duration(86_400 * 3), "3 days"),
        (units.size(123), "123 B"),
        (units.size(12_345_678), "12 MB"),
        (units.percent(0.0123), "1.2 %"),
        (units.ago(None), "never"),
    ],
)
def test_numbers_have_units(shown: str, text: str) -> None:
    assert shown == text


def _check(*statuses: str) -> Check:
    """A check with executions from the newest."""
    executions = tuple(
        Execution(f"run-{at}", status, "ERROR", float(at), "", ())
        for at, status in zip(range(len(statuses), 0, -1), statuses, strict=True)
    )
    return Check("events", "no_gaps", "", True, executions)


@pytest.mark.parametrize("known", ["FAILED", "SUCCEEDED", "EXECUTION_FAILED", "SKIPPED"])
def test_a_check_that_runs_again_shows_its_newest_finished_result(known: str) -> None:
    again = _check("IN_PROGRESS", "IN_PROGRESS", known, "SUCCEEDED")
    assert again.latest is not None
    assert again.latest.status == known
    assert again.running_since == 4.0
    # One that was overtaken is not running any more.
    overtaken = _check(known, "IN_PROGRESS")
    assert overtaken.latest == overtaken.executions[0]
    assert overtaken.running_since is None


def test_a_check_that_first_runs_has_no_result() -> None:
    first = _check("IN_PROGRESS")
    assert first.latest is None
    assert first.running_since == 1.0
    assert _check().latest is None
    assert _check().running_since is None
