"""How figures are judged and told."""

import pytest

from streamflow_bench.figures import CPU_OF_HAND, FIGURE, PATHS, RATE_OF_HAND, RATIO, Bar, PathName
from streamflow_bench.results import Course, MemorySamples, Result, Run, spread

LOADER = Bar(least_ratio=0.8, least_rate=1.5, most_cpu=0.6)


def course(*, records: int = 1_000_000, seconds: float = 10.0, cpu: float = 5.0) -> Course:
    memory = MemorySamples([(0.0, 100_000_000), (0.1, 350_000_000), (0.2, 120_000_000)])
    return Course(records, seconds, cpu - 1, 1.0, memory)


def run(*, worker: Course | None = None, hand: Course | None = None) -> Run:
    rate = worker and worker.rate
    return Run(figure=rate, raw=200_000.0, load_before=0.0, course=worker, hand=hand)


@pytest.mark.parametrize(
    ("ratio", "rate", "cpu", "met"),
    [
        (0.8, 1.5, 0.6, True),
        (0.79, 1.5, 0.6, False),
        (0.8, 1.49, 0.6, False),
        (0.8, 1.5, 0.61, False),
        (0.8, None, 0.6, None),
        (None, None, 0.61, False),
    ],
)
def test_a_bar_is_met_missed_or_unknown(
    ratio: float | None, rate: float | None, cpu: float | None, met: bool | None
) -> None:
    measured = {FIGURE: 1.0, RATIO: ratio, RATE_OF_HAND: rate, CPU_OF_HAND: cpu}
    assert LOADER.is_met(measured) is met


def test_a_bar_can_be_a_most() -> None:
    assert Bar(at_most=100).is_met({FIGURE: 100.0}) is True
    assert Bar(at_most=100).is_met({FIGURE: 101.0}) is False
    assert Bar(at_most=100).text("ms") == "≤ 100 ms"


def test_what_misses_a_bar_is_named() -> None:
    measured = {RATIO: 0.75, RATE_OF_HAND: 2.0, CPU_OF_HAND: 0.9}
    assert LOADER.missed(measured, "events/s") == [
        "0.75 x raw limit, bar ≥ 0.8",
        "CPU 0.90 x hand loop, bar ≤ 0.6",
    ]
    assert LOADER.text("events/s") == (
        "≥ 0.8 x raw limit, rate ≥ 1.5 x hand loop, CPU ≤ 0.6 x hand loop"
    )


def test_a_ratio_is_of_one_run() -> None:
    runs = [
        Run(figure=100.0, raw=200.0, load_before=0.0),
        Run(figure=30.0, raw=100.0, load_before=9.0),
        Run(figure=None, raw=100.0, load_before=9.0),
    ]
    result = Result(PATHS[PathName.ANALYTICS], runs)
    assert result.figure == (65.0, 30.0, 100.0)
    assert result.ratio == (0.4, 0.3, 0.5)
    assert [each["figure"] for each in result.as_dict()["runs"]] == [100.0, 30.0, None]


def test_a_worker_is_compared_with_the_hand_loop_of_its_own_run() -> None:
    runs = [
        run(worker=course(seconds=5, cpu=4), hand=course(seconds=10, cpu=8)),
        run(worker=course(seconds=20, cpu=12), hand=course(seconds=20, cpu=8)),
        run(worker=course(seconds=20, cpu=12)),
    ]
    result = Result(PATHS[PathName.ANALYTICS], runs)
    assert result.cpu == (12.0, 4.0, 12.0)
    assert result.cpu_of_hand == (1.0, 0.5, 1.5)
    assert result.rate_of_hand == (1.5, 1.0, 2.0)
    assert result.missed == [
        "analytics: CPU 1.00 x hand loop, bar ≤ 0.6",
        "memory of analytics: 350 MB, bar ≤ 250",
    ]
    told = result.as_dict()
    assert told["cpu_s_per_million"] == {"median": 12.0, "min": 4.0, "max": 12.0}
    assert told["runs"][0]["hand_loop"]["cpu_s_per_million"] == 8.0
    assert told["runs"][2]["cpu_of_hand_loop"] is None


def test_one_step_has_no_cost() -> None:
    once = course(records=0, seconds=0.0)
    assert (once.rate, once.cpu) == (None, None)
    assert run(worker=once, hand=course()).cpu_of_hand is None


def test_what_was_not_measured_is_unknown() -> None:
    result = Result(PATHS[PathName.LOADER], [Run(figure=None, raw=None, load_before=0.0)])
    assert (result.figure, result.met, result.peak_mb, result.memory_met) == (None,) * 4
    assert result.missed == []
    assert spread([]) is None
    assert MemorySamples([]).as_dict()["peak_mb"] is None


def test_memory_is_told_from_first_to_last() -> None:
    found = course().memory.as_dict()
    assert (found["first_mb"], found["peak_mb"], found["last_mb"]) == (100.0, 350.0, 120.0)
    assert Result(PATHS[PathName.LOADER], [run(worker=course())]).memory_met is False
