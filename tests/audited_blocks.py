"""Rows summed up by blocks of offsets, as PostgreSQL does it for the audit."""

from collections import defaultdict
from collections.abc import Sequence

from streamflow.audit.blocks import SIZE, OutcomeBlock

Row = tuple[int, str, int | None]


def summed_up(rows: Sequence[Row], weights: Sequence[int]) -> list[OutcomeBlock]:
    """As PostgreSQL does it."""
    groups: dict[tuple[int, str], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row[0] // SIZE, row[1]].append(row)
    blocks = []
    for (number, outcome), members in sorted(groups.items()):
        bits = 0
        for offset, _, _ in members:
            bits ^= 1 << offset % SIZE
        times = [(offset % SIZE, time) for offset, _, time in members if time is not None]
        blocks.append(
            OutcomeBlock(
                number,
                outcome,
                len(members),
                bits - 2**SIZE if bits >> SIZE - 1 else bits,
                len(times),
                sum(weights[place] * time for place, time in times),
            )
        )
    return blocks
