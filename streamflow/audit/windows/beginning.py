"""From which offset on windows are compared with events.

Windows may have counted before the offset at which analytics says that they began: a release had given them
up, or the progress of the group was lost. What came in between, nobody counts any more. So whatever lies
behind the first part of their table is compared, and such a hole is named (G5).
"""

from typing import Any, Final

from psycopg import Connection, sql

from streamflow.flow import Partition
from streamflow.windows.progress import WindowProgress

_FIRST_PART: Final = "SELECT min(first_offset) FROM {} WHERE (origin_topic, partition) = (%s, %s)"


def first_part(connection: Connection[Any], table: str, partition: Partition) -> int | None:
    """The first offset of a source partition that a table has a part of."""
    query = sql.SQL(_FIRST_PART).format(sql.Identifier(table))
    [(first,)] = connection.execute(query, partition)
    return None if first is None else int(first)


def offsets_compared(
    progress: WindowProgress, position: int, resume: int, first: int | None
) -> dict[str, int]:
    """The parameters of a comparison that are offsets.

    Args:
        progress: of the windows.
        position: everything before it was counted.
        resume: what is before it will not be read again.
        first: of the first part; None if there is none.
    """
    return {
        "since": progress.since if first is None else min(progress.since, first),
        "position": position,
        # Nor do these windows count what was before they began.
        "resume": max(resume, progress.since),
        # Of what they had not counted yet, a proof is about other windows.
        "proved_from": max(progress.since, position if first is None else first),
    }
