"""Counts of windows without aggregates, from `window_counts`."""

from datetime import datetime, timedelta
from typing import Final, NamedTuple

from streamflow.settings import Settings
from streamflow.stream import Stream
from streamlit_app.measure.ring_buffers import MAX_POINTS
from streamlit_app.records.reader import reader

MOST_AHEAD: Final = 1_000


class WindowCell(NamedTuple):
    """Events of a type in one or more adjacent windows, and how many of them are corrections: late
    events."""

    start: datetime
    kind: str
    number: int
    late: int


class WindowCounts(NamedTuple):
    """Windows of a span of time.

    Attributes:
        cells: by time, then type.
        step: seconds that a cell covers.
        end: of the span; None where there is no window at all.
        ahead: windows that have not begun yet, of events with future times; at most `MOST_AHEAD`.
    """

    cells: tuple[WindowCell, ...]
    step: float
    end: datetime | None
    ahead: int = 0


_NEWEST_WINDOW: Final = """
SELECT coalesce(
         (SELECT window_start FROM window_counts
           WHERE window_start <= now() AND origin_topic = %(topic)s
           ORDER BY window_start DESC LIMIT 1),
         CASE WHEN ahead > 0
              THEN date_bin(%(size)s * interval '1 s', now(), '1970-01-01 00:00:00+00') END),
       ahead
  FROM (SELECT count(*) AS ahead
          FROM (SELECT DISTINCT window_start FROM window_counts
                 WHERE window_start > now() AND origin_topic = %(topic)s LIMIT %(most)s) AS later) AS counted
"""
_WINDOWS: Final = """
SELECT date_bin(%(step)s * interval '1 s', window_start, '1970-01-01 00:00:00+00'), event_type,
       sum(count)::bigint, coalesce(sum(count) FILTER (WHERE late), 0)::bigint
  FROM window_counts
 WHERE window_start >= %(start)s AND window_start < %(end)s AND origin_topic = %(topic)s
 GROUP BY 1, 2 ORDER BY 1, 2
"""


def window_counts(
    settings: Settings, stream: Stream, span: float, end: datetime | None
) -> WindowCounts:
    """Window counts of the last `span` seconds before `end`, or before the end of the newest window that
    has begun; at most 300 steps."""
    if stream.event_counts is None:
        return WindowCounts((), span, None)
    size = stream.event_counts.size.total_seconds()
    step = max(size, -(-span / MAX_POINTS // size) * size)
    with reader(settings) as connection:
        [(newest, ahead)] = connection.execute(
            _NEWEST_WINDOW, {"topic": stream.topic, "size": size, "most": MOST_AHEAD}
        )
        if newest is None:
            return WindowCounts((), step, None)
        end = end or newest + timedelta(seconds=size)
        start = end - timedelta(seconds=span)
        rows = connection.execute(
            _WINDOWS, {"step": step, "start": start, "end": end, "topic": stream.topic}
        )
        return WindowCounts(tuple(WindowCell(*row) for row in rows), step, end, ahead)
