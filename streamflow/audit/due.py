"""Whether windows of an idle partition are due before a deadline, so that waiting for them makes sense.

What analytics has committed does not say when its open windows end: the events do, which it will read again.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import psycopg
from psycopg import sql

from streamflow.flow import Partition
from streamflow.postgres.connections import Connection, faulty_statement
from streamflow.stream import Stream
from streamflow.windows.partition import progress_of
from streamflow.windows.plans import Plan
from streamflow.windows.progress import Progress

_FIRST_END: Final = """
SELECT floor(1000 * date_part('epoch', min(date_bin(%(pane)s * interval '1 ms', {time}, 'epoch'))))::bigint
       + %(pane)s
  FROM {table}
 WHERE origin_topic = %(topic)s AND origin_partition = %(partition)s
   AND origin_offset >= %(resume)s AND origin_offset < %(position)s
   AND {time} >= to_timestamp(%(closed)s / 1000.0)
"""


class DueWindows:
    """Looks up each partition's first end once, as long as analytics has committed nothing new."""

    def __init__(
        self,
        connection: Connection,
        streams: Mapping[str, Stream],
        plans: Mapping[str, Sequence[Plan]],
        deadline_ms: float,
    ) -> None:
        """`streams` and `plans`: by topic."""
        self._connection, self._streams, self._plans = connection, streams, plans
        self._deadline = deadline_ms
        self._ends: dict[Partition, tuple[Progress, float]] = {}

    def ends_in_time(self, partition: Partition, progress: Progress) -> bool:
        """Whether an open window ends before the deadline; also if the events of none are stored yet."""
        known = self._ends.get(partition)
        if known is None or known[0] != progress:
            try:
                end = self._first_end(partition, progress)
            except psycopg.Error as error:
                # The comparison says which table is not as it is declared.
                if faulty_statement(error) is None:
                    raise
                end = 0
            known = self._ends[partition] = (progress, end)
        return known[1] <= self._deadline

    def _first_end(self, partition: Partition, progress: Progress) -> float:
        stream = self._streams[partition[0]]
        query = sql.SQL(_FIRST_END).format(
            table=sql.Identifier(stream.event_table), time=sql.Identifier(stream.event_time)
        )
        ends = []
        for plan in self._plans[partition[0]]:
            windows = progress_of(progress, plan)
            if windows is None:
                continue
            parameters = {
                "pane": plan.pane,
                "topic": partition[0],
                "partition": partition[1],
                "resume": max(progress.resume, windows.since),
                "position": progress.position,
                "closed": windows.closed_before,
            }
            [(end,)] = self._connection.execute(query, parameters)
            ends += [] if end is None else [end]
        return min(ends, default=0)
