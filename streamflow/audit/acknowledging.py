"""What a person says that they know of: it stays in the report, and is no problem any more (G5)."""

from collections.abc import Sequence
from typing import NamedTuple

from streamflow.audit.gap_ledger import KnownGap, acknowledge_gaps
from streamflow.audit.window_ledger import Acknowledged, acknowledge_differences
from streamflow.postgres.connections import session
from streamflow.settings import Settings
from streamflow.stream import Stream, reads


class Acknowledgement(NamedTuple):
    """What a person has acknowledged just now."""

    gaps: list[KnownGap]
    differences: list[Acknowledged]


def acknowledge(settings: Settings, streams: Sequence[Stream], who: str) -> Acknowledgement:
    """Acknowledges all gaps in the streams' topics, and windows that differ for good: the report still counts
    them, but not as problems. Returns those that were not acknowledged before.

    Raises:
        Unavailable: the database does not answer.
    """
    with session(settings, "audit") as connection:
        topics = reads("loader", streams)
        return Acknowledgement(
            acknowledge_gaps(connection, topics, who),
            acknowledge_differences(connection, topics, who),
        )
