"""The ledger's arithmetic."""

from hypothesis import given
from hypothesis import strategies as st

from streamflow.audit import PartitionAudit, merge


def ledger(records: list[int], outcomes: list[tuple[int, str]]) -> PartitionAudit:
    made = PartitionAudit(topic="t", partition=1, first=0, end=100)
    merge(made, iter(records), iter(outcomes))
    return made


def test_each_record_with_one_outcome_closes() -> None:
    found = ledger(
        [0, 1, 5, 7], [(0, "stored"), (1, "dead_lettered"), (5, "duplicate"), (7, "stored")]
    )
    assert (found.records, found.stored, found.dead_lettered, found.duplicate) == (4, 2, 1, 1)
    assert found.problems == []


def test_what_is_missing_is_named_in_order() -> None:
    assert ledger([3, 4, 9], [(4, "stored")]).problems == [
        "t[1] offset 3: not accounted for",
        "t[1] offset 9: not accounted for",
    ]


def test_a_row_without_its_record_is_named() -> None:
    assert ledger([4], [(2, "stored"), (4, "stored"), (6, "duplicate")]).problems == [
        "t[1] offset 2: accounted for, not in Kafka",
        "t[1] offset 6: accounted for, not in Kafka",
    ]


def test_two_outcomes_are_one_too_many() -> None:
    assert ledger([4], [(4, "stored"), (4, "dead_lettered")]).problems == [
        "t[1] offset 4: accounted for twice, as dead_lettered and stored"
    ]


@given(st.sets(st.integers(0, 40)), st.sets(st.integers(0, 40)))
def test_every_difference_is_one_problem(records: set[int], rows: set[int]) -> None:
    found = ledger(sorted(records), [(each, "stored") for each in sorted(rows)])
    assert len(found.problems) == len(records ^ rows)
    assert (found.records, found.stored) == (len(records), len(records & rows))
