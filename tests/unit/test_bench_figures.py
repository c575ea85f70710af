"""How figures are judged and told."""

import pytest

from streamflow_bench.figures import PATHS, Bar, MemorySamples, PathName, Result, Run, spread


@pytest.mark.parametrize(
    ("figure", "ratio", "met"),
    [
        (150_000.0, 0.5, True),
        (149_999.0, 0.9, False),
        (200_000.0, 0.4, False),
        (200_000.0, None, None),
        (None, 0.6, None),
        (None, 0.4, False),
    ],
)
def test_a_bar_is_met_missed_or_unknown(
    figure: float | None, ratio: float | None, met: bool | None
) -> None:
    assert Bar(at_least=150_000, least_ratio=0.5).is_met(figure, ratio) is met


def test_a_bar_can_be_a_most() -> None:
    assert Bar(at_most=500).is_met(500.0, None) is True
    assert Bar(at_most=500).is_met(501.0, None) is False
    assert Bar(at_most=500).text("ms") == "≤ 500 ms"


def test_a_ratio_is_of_one_run() -> None:
    runs = [
        Run(figure=100.0, raw=200.0, load_before=0.0),
        Run(figure=30.0, raw=100.0, load_before=9.0),
        Run(figure=None, raw=100.0, load_before=9.0),
    ]
    result = Result(PATHS[PathName.ANALYTICS], runs)
    assert result.figure == (65.0, 30.0, 100.0)
    assert result.ratio == (0.4, 0.3, 0.5)
    assert [run["figure"] for run in result.as_dict()["runs"]] == [100.0, 30.0, None]


def test_what_was_not_measured_is_unknown() -> None:
    result = Result(PATHS[PathName.LOADER], [Run(figure=None, raw=None, load_before=0.0)])
    assert (result.figure, result.met, result.peak_mb, result.memory_met) == (None,) * 4
    assert spread([]) is None
    assert MemorySamples([]).as_dict()["peak_mb"] is None


def test_memory_is_told_from_first_to_last() -> None:
    memory = MemorySamples([(0.0, 100_000_000), (0.1, 350_000_000), (0.2, 120_000_000)])
    found = memory.as_dict()
    assert (found["first_mb"], found["peak_mb"], found["last_mb"]) == (100.0, 350.0, 120.0)
    run = Run(figure=1.0, raw=1.0, load_before=0.0, memory=memory)
    assert Result(PATHS[PathName.LOADER], [run]).memory_met is False
