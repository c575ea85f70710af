"""Queries of the pages about dead letters. All raise as `reader` does."""

from dataclasses import replace
from datetime import datetime
from typing import Any, Final, NamedTuple

from psycopg import sql

from streamflow.dead_letters.select import (
    MOST_COUNTED,
    DeadLetter,
    DeadLetterSummary,
    Selection,
    Status,
    conditions,
    counts,
    read,
    summaries,
)
from streamflow.dead_letters.selection_parser import source_of
from streamflow.records import Origin
from streamflow.settings import Settings
from streamflow.stream import Stream
from streamlit_app.records.reader import reader

MOST_LETTERS: Final = 500
MOST_SHOWN: Final = 65_536  # bytes of a value


class DeadLetters(NamedTuple):
    """The dead letters that match a filter, at one moment.

    Attributes:
        rows: the newest, at most 500.
        counts: how many match, by status; counting stops just past 100,000.
        as_of: the moment, by the database's clock.
    """

    rows: tuple[DeadLetterSummary, ...]
    counts: dict[Status, int]
    as_of: datetime


def dead_letters(settings: Settings, selection: Selection) -> DeadLetters:
    """The dead letters that match, from one snapshot."""
    with reader(settings) as connection, connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        [(now,)] = connection.execute("SELECT now()")
        return DeadLetters(
            tuple(summaries(connection, replace(selection, limit=MOST_LETTERS))),
            counts(connection, selection, MOST_COUNTED + 1),
            now,
        )


def dead_letter(settings: Settings, id_: Origin) -> DeadLetter | None:
    """A dead letter with the first `MOST_SHOWN` bytes of its value; None if there is none."""
    with reader(settings) as connection:
        group = settings.group("loader")
        letters = read(connection, [id_], group=group, most_bytes=MOST_SHOWN)
    return letters[0] if letters else None


# They were loaded later than they were appended, up to what the clocks differ by: that has an index.
_DEAD_LETTERS_OVER_TIME: Final = """
SELECT date_bin(%(step)s * interval '1 s', appended_at, '1970-01-01 00:00:00+00'), error_code,
       count(*)
  FROM dead_letters WHERE appended_at >= now() - %(span)s * interval '1 s'
   AND loaded_at >= now() - %(span)s * interval '1 s' - interval '1 day' AND {}
 GROUP BY 1, 2 ORDER BY 1, 2
"""


class DeadLetterCount(NamedTuple):
    """How many dead letters with an error code were appended in one step of time."""

    start: datetime
    code: str
    number: int


def dead_letters_over_time(
    settings: Settings, span: float, stream: Stream | None
) -> tuple[DeadLetterCount, ...]:
    """Dead letters of a stream, or of all, by code over the last `span` seconds, in 60 steps."""
    where, values = conditions(Selection(stream=source_of(stream), statuses=()))
    with reader(settings) as connection:
        rows = connection.execute(
            sql.SQL(_DEAD_LETTERS_OVER_TIME).format(where),
            {**values, "step": max(1.0, span / 60), "span": span},
        )
        return tuple(DeadLetterCount(*row) for row in rows)


_REPLAYS: Final = """
SELECT to_jsonb(replay)
  FROM (SELECT replays.*,
               (SELECT jsonb_object_agg(outcome, number)
                  FROM (SELECT outcome, count(*) AS number FROM replay_records
                         WHERE replay_id = replays.id GROUP BY outcome) AS counted) AS outcomes
          FROM replays ORDER BY id DESC LIMIT 20) AS replay
"""


def recent_replays(settings: Settings) -> tuple[dict[str, Any], ...] | None:
    """The newest replays: who, when, which dead letters, and the outcome. None if the schema is too old
    to record them."""
    with reader(settings) as connection:
        [(table,)] = connection.execute("SELECT to_regclass('replays')")
        if table is None:
            return None
        return tuple(row[0] for row in connection.execute(_REPLAYS))
