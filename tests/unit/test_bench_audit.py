"""What the measurement of an audit says."""

import pytest

from streamflow_bench.audit import AuditCost, AuditRun, words


def run(
    process: float, database: float | None, records: int = 1_000_000, verdict: str = "closed"
) -> AuditRun:
    return AuditRun(records=records, process=process, database=database, wall=3.0, verdict=verdict)


@pytest.mark.parametrize(
    ("runs", "cost", "met"),
    [
        ([run(1.0, 0.5), run(1.5, 0.4), run(5.0, 5.0)], 1.9, True),
        ([run(1.0, 0.5), run(1.5, 0.6), run(5.0, 5.0)], 2.1, False),
        ([run(1.0, None)], None, None),
        # Fast and wrong is not good enough.
        ([run(1.0, 0.5), run(1.0, 0.5, verdict="open")], 1.5, False),
    ],
)
def test_the_median_is_held_to_the_bar(
    runs: list[AuditRun], cost: float | None, met: bool | None
) -> None:
    found = AuditCost(events=500_000, runs=runs)
    assert found.cost == (None if cost is None else pytest.approx(cost))
    assert found.met is met
    assert found.as_dict()["met"] is met


def test_what_is_not_known_is_said_to_be_unknown() -> None:
    assert words(run(1.0, None)) == (
        "closed, 1,000,000 records: the audit takes 1.0 s, PostgreSQL unknown, unknown a record, in 3.0 s"
    )
