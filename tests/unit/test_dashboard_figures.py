"""Figures, series, lag and verdicts: what is shown, and when it is not."""

import math

import pytest

from streamflow.lag.verdicts import (
    EndHistory,
    LagTime,
    Observation,
    Verdict,
    judge_group,
    judge_partition,
    trend,
)
from streamlit_app.measure.readings import Figure, Reading
from streamlit_app.measure.series import MAX_POINTS, Store
from streamlit_app.ui import units


def test_a_figure_is_current_for_three_intervals() -> None:
    figure = Figure(5.0, 100.0, "Kafka", interval=1.0)
    assert figure.is_current(103.0)
    assert not figure.is_current(103.1)
    assert figure.age(110.0) == 10.0


def test_a_figure_whose_source_failed_is_not_current() -> None:
    reading = Reading[int]("Kafka", 1.0).succeeded(7, 100.0, 0.01)
    assert reading.figure(float).is_current(100.5)
    failed = reading.failed("no answer", 2.0)
    figure = failed.figure(float)
    assert (figure.value, figure.measured_at, figure.error) == (7.0, 100.0, "no answer")
    assert not figure.is_current(100.5)
    assert failed.succeeded(8, 101.0, 0.01).figure(float).is_current(101.0)


def test_what_was_never_measured_says_so() -> None:
    reading = Reading[int]("Kafka", 1.0)
    assert reading.figure(float).value is None
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


def test_lag_in_seconds_is_the_age_of_the_record_at_the_position() -> None:
    history = EndHistory()
    for second in range(11):
        history.add(float(second), second * 100)
    found = history.lag(position=499, now=10.0)
    assert found == LagTime(pytest.approx(5.0), exact=True)
    assert history.lag(position=1000, now=10.0) == LagTime(0.0, exact=True)


def test_lag_of_a_position_older_than_what_was_seen_is_a_lower_bound() -> None:
    history = EndHistory()
    history.add(100.0, 5000)
    history.add(101.0, 5100)
    assert history.lag(position=10, now=110.0) == LagTime(10.0, exact=False)
    assert EndHistory().lag(position=10, now=110.0) is None


def test_lag_survives_a_topic_that_was_made_anew() -> None:
    history = EndHistory()
    history.add(1.0, 5000)
    history.add(2.0, 10)
    assert history.lag(position=10, now=3.0) == LagTime(0.0, exact=True)


def test_the_trend_of_a_lag_is_its_slope_and_zero_where_it_only_goes_up_and_down() -> None:
    growing = [(float(second), 35.0 * second + second % 3) for second in range(30)]
    assert trend(growing, shortest=10) == pytest.approx(35, abs=0.5)
    shrinking = [(time, 2_000 - lag) for time, lag in growing]
    assert trend(shrinking, shortest=10) == pytest.approx(-35, abs=0.5)
    restless = [(float(second), 100.0 * (second % 2)) for second in range(30)]
    assert trend(restless, shortest=10) == 0
    assert trend([(float(second), 7.0) for second in range(30)], shortest=10) == 0
    assert trend(growing[:5], shortest=10) is None
    assert trend([], shortest=10) is None


def test_an_end_history_stays_small_and_right() -> None:
    history = EndHistory()
    for second in range(50_000):
        history.add(float(second), second * 10)
    assert len(history._ends) <= 4_000
    found = history.lag(position=25_000 * 10, now=49_999.0)
    assert found is not None
    assert found.seconds == pytest.approx(24_999, abs=60)


def window(*pairs: tuple[int, int], owned: bool = True) -> list[Observation]:
    return [
        Observation(float(index * 5), position, end, owned)
        for index, (position, end) in enumerate(pairs)
    ]


@pytest.mark.parametrize(
    ("observed", "verdict"),
    [
        ([], Verdict.UNKNOWN),
        (window((10, 10), (10, 20), (10, 30)), Verdict.OK),
        (window((10, 20), (10, 20), (10, 20)), Verdict.STALL),
        (window((10, 20), (10, 25), (10, 30)), Verdict.STALL),
        (window((10, 20), (10, 25), (10, 30), owned=False), Verdict.STOP),
        (window((10, 20), (15, 30), (20, 40)), Verdict.WARN),
        (window((10, 40), (20, 45), (30, 50)), Verdict.OK),
        (window((10, 30), (20, 50), (40, 55)), Verdict.OK),
        (window((30, 40), (20, 40), (40, 40)), Verdict.REWIND),
        (window((10, 20), (20, 30), (30, 40)), Verdict.OK),
    ],
)
def test_verdicts_on_a_partition(observed: list[Observation], verdict: Verdict) -> None:
    assert judge_partition(observed, shortest=10.0) is verdict


def test_a_short_window_condemns_nobody() -> None:
    assert judge_partition(window((10, 20), (10, 30)), shortest=10.0) is Verdict.OK


@pytest.mark.parametrize(
    ("partitions", "verdict"),
    [
        ([], Verdict.UNKNOWN),
        ([Verdict.UNKNOWN, Verdict.OK], Verdict.OK),
        ([Verdict.OK, Verdict.WARN], Verdict.WARN),
        ([Verdict.WARN, Verdict.STALL, Verdict.OK], Verdict.STALL),
        ([Verdict.STOP, Verdict.STOP], Verdict.STOP),
        ([Verdict.REWIND, Verdict.OK], Verdict.REWIND),
        ([Verdict.STALL, Verdict.STOP], Verdict.ERR),
    ],
)
def test_verdicts_on_a_group(partitions: list[Verdict], verdict: Verdict) -> None:
    assert judge_group(partitions) is verdict


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
