"""Saved replay plans: the dead letters of each plan, and which of them would pass."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, NamedTuple

from psycopg.types.json import Jsonb

from streamflow.dead_letters.select import BEFORE_ALL, PAGE, arrays, within_page
from streamflow.errors import UsageError
from streamflow.postgres.connections import Connection
from streamflow.records import Origin

KEPT: Final = timedelta(days=7)  # a plan can be applied for so long
_REMOVED: Final = timedelta(days=8)  # later, so that no plan is removed while it is looked up


class ReplayPlan(NamedTuple):
    """Without its dead letters."""

    id: int
    selection: dict[str, Any]
    options: dict[str, Any]


class PlannedDeadLetter(NamedTuple):
    id: Origin
    passes: bool


def create(
    connection: Connection,
    *,
    requested_by: str,
    selection: Mapping[str, Any],
    options: Mapping[str, Any],
) -> int:
    """Saves a new plan and returns its id. Add its dead letters in the same transaction, so that no
    one sees part of a plan."""
    [(plan_id,)] = connection.execute(
        "INSERT INTO replay_plans (requested_by, selection, options) VALUES (%s, %s, %s)"
        " RETURNING id",
        [requested_by, Jsonb(dict(selection)), Jsonb(dict(options))],
    )
    return int(plan_id)


def add(connection: Connection, plan_id: int, letters: Sequence[PlannedDeadLetter]) -> None:
    connection.execute(
        "INSERT INTO replay_plan_letters (plan_id, source_topic, source_partition, source_offset,"
        " passes) SELECT %(plan_id)s, * FROM unnest(%(topics)s::text[], %(partitions)s::int[],"
        " %(offsets)s::bigint[], %(passes)s::boolean[])",
        arrays([letter.id for letter in letters])
        | {"plan_id": plan_id, "passes": [letter.passes for letter in letters]},
    )


def find(connection: Connection, plan_id: int) -> ReplayPlan:
    """The plan; UsageError if it does not exist or has expired."""
    row = connection.execute(
        "SELECT id, selection, options FROM replay_plans WHERE id = %s AND created_at > now() - %s",
        [plan_id, KEPT],
    ).fetchone()
    if row is None:
        raise UsageError(
            f"there is no plan {plan_id}, or it is older than {KEPT.days} days: make a new one with "
            "`streamflow dlq replay`"
        )
    return ReplayPlan(*row)


def size(connection: Connection, plan_id: int) -> int:
    query = "SELECT count(*) FROM replay_plan_letters WHERE plan_id = %s"
    [(number,)] = connection.execute(query, [plan_id])
    return int(number)


_PAGE: Final = """
SELECT planned.source_topic, planned.source_partition, planned.source_offset, passes,
       coalesce(octet_length(value), 0)
  FROM replay_plan_letters AS planned
  LEFT JOIN dead_letters USING (source_partition, source_offset, source_topic)
 WHERE plan_id = %(plan_id)s
   AND (source_partition, source_offset, source_topic)
       > (%(partition)s::int, %(offset)s::bigint, %(topic)s::text)
 ORDER BY source_partition, source_offset, source_topic
 LIMIT %(most)s
"""


def pages(connection: Connection, plan_id: int) -> Iterator[list[PlannedDeadLetter]]:
    """The dead letters of a plan in the order of their primary key, page by page, including those that
    are gone by now."""
    after = BEFORE_ALL
    while True:
        rows = connection.execute(_PAGE, after._asdict() | {"plan_id": plan_id, "most": PAGE})
        page = within_page((PlannedDeadLetter(Origin(*row[:3]), row[3]), row[4]) for row in rows)
        if not page:
            return
        yield page
        after = page[-1].id


def remove_old(connection: Connection) -> None:
    """Removes expired plans that no running replay is applying."""
    connection.execute(
        "DELETE FROM replay_plans WHERE id IN (SELECT id FROM replay_plans AS old"
        " WHERE created_at < now() - %s AND NOT EXISTS (SELECT FROM replays"
        " WHERE plan_id = old.id AND state = 'running') FOR UPDATE SKIP LOCKED)",
        [_REMOVED],
    )
