"""Lag: offsets behind, seconds, verdicts, and what outlives a sensor's tick."""

import pytest

from lags import sample
from streamflow.lag.history import LagHistory, WorkerHealth
from streamflow.lag.measure import ConsumerGroup, LagSample, offsets_behind
from streamflow.lag.verdicts import (
    EndHistory,
    LagTime,
    LagVerdict,
    PartitionSample,
    judge_group,
    judge_partition,
    trend,
)

A, B = ("t", 0), ("t", 1)


@pytest.mark.parametrize(
    ("position", "bounds", "behind"),
    [
        (5, (0, 9), 4),
        (9, (0, 9), 0),
        # Without a position, the group starts at the first offset.
        (None, (4, 9), 5),
        # What retention removed unread is behind, until the group has recorded the gap.
        (2, (9, 9), 7),
        # The topic was recreated.
        (50, (0, 9), 0),
    ],
)
def test_lag_is_counted_one_way(position: int | None, bounds: tuple[int, int], behind: int) -> None:
    assert offsets_behind(position, bounds) == behind


def test_a_group_that_never_committed_has_no_lag_and_one_that_reads_nothing_has_none_left() -> None:
    nothing = LagSample({}, {"g": ConsumerGroup(name="g", worker="analytics")}, 1, ())
    assert nothing.lag("g") == 0
    assert sample().lag("g") is None
    assert sample(90, 100).lag("g") == 10


def test_one_stuck_partition_is_not_hidden_by_others_that_move() -> None:
    history = LagHistory()
    for second in range(12):
        lag = history.add(sample(7, 10 + second), float(second))["g"]
    assert lag.verdict is LagVerdict.STALL
    assert lag.health is WorkerHealth.STALLED
    assert [lag.partitions[place].verdict for place in (A, B)] == [LagVerdict.STALL, LagVerdict.OK]


def test_a_group_without_members_is_gone_whatever_its_lag() -> None:
    history = LagHistory()
    for second in range(12):
        lag = history.add(sample(100, members=0), float(second))["g"]
    assert (lag.verdict, lag.health) == (LagVerdict.OK, WorkerHealth.GONE)


def test_a_history_that_was_kept_goes_on_where_it_was() -> None:
    history = LagHistory()
    for second in range(8):
        history.add(sample(7, 10 + second, end=50 + second), float(second))
    again = LagHistory.load(history.dump())
    for kept in (history, again):
        lag = kept.add(sample(7, 19, end=60), 11.0)["g"]
        assert lag.verdict is LagVerdict.STALL
        assert lag.time == LagTime(11.0, exact=False)
        assert lag.trend is not None


def test_a_history_forgets_what_is_no_longer_measured() -> None:
    history = LagHistory(window=30)
    history.add(sample(1, 2), 0.0)
    history.add(sample(1), 31.0)
    assert history.dump() == LagHistory.load(history.dump()).dump()
    assert '"t", 1' not in history.dump()


def test_a_history_stays_small_however_often_it_is_asked() -> None:
    history = LagHistory(window=30)
    for tick in range(10_000):
        history.add(sample(tick, end=20_000), tick / 100)
    assert len(history.dump()) < 5_000
    assert history.add(sample(10_000, end=20_000), 100.0)["g"].verdict is LagVerdict.OK


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


def test_lag_survives_a_recreated_topic() -> None:
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


def window(*pairs: tuple[int, int], owned: bool = True) -> list[PartitionSample]:
    return [
        PartitionSample(float(index * 5), position, end, owned)
        for index, (position, end) in enumerate(pairs)
    ]


@pytest.mark.parametrize(
    ("observed", "verdict"),
    [
        ([], LagVerdict.UNKNOWN),
        (window((10, 10), (10, 20), (10, 30)), LagVerdict.OK),
        (window((10, 20), (10, 20), (10, 20)), LagVerdict.STALL),
        (window((10, 20), (10, 25), (10, 30)), LagVerdict.STALL),
        (window((10, 20), (10, 25), (10, 30), owned=False), LagVerdict.STOP),
        (window((10, 20), (15, 30), (20, 40)), LagVerdict.WARN),
        (window((10, 40), (20, 45), (30, 50)), LagVerdict.OK),
        (window((10, 30), (20, 50), (40, 55)), LagVerdict.OK),
        (window((30, 40), (20, 40), (40, 40)), LagVerdict.REWIND),
        (window((10, 20), (20, 30), (30, 40)), LagVerdict.OK),
    ],
)
def test_verdicts_on_a_partition(observed: list[PartitionSample], verdict: LagVerdict) -> None:
    assert judge_partition(observed, shortest=10.0) is verdict


def test_a_short_window_finds_no_fault() -> None:
    assert judge_partition(window((10, 20), (10, 30)), shortest=10.0) is LagVerdict.OK


@pytest.mark.parametrize(
    ("partitions", "verdict"),
    [
        ([], LagVerdict.UNKNOWN),
        ([LagVerdict.UNKNOWN, LagVerdict.OK], LagVerdict.OK),
        ([LagVerdict.OK, LagVerdict.WARN], LagVerdict.WARN),
        ([LagVerdict.WARN, LagVerdict.STALL, LagVerdict.OK], LagVerdict.STALL),
        ([LagVerdict.STOP, LagVerdict.STOP], LagVerdict.STOP),
        ([LagVerdict.REWIND, LagVerdict.OK], LagVerdict.REWIND),
        ([LagVerdict.STALL, LagVerdict.STOP], LagVerdict.ERR),
    ],
)
def test_verdicts_on_a_group(partitions: list[LagVerdict], verdict: LagVerdict) -> None:
    assert judge_group(partitions) is verdict
