"""Plans of replays: the dead letters that were looked at, and which of them would pass."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from psycopg.types.json import Jsonb

from streamflow.dead_letters.select import PAGE, arrays, within_page
from streamflow.postgres.connections import Connection
from streamflow.records import Origin

KEPT: Final = timedelta(days=7)  # how long a plan can be applied
_REMOVED: Final = timedelta(days=8)  # later, so that none is removed while it is being looked up


class Plan(NamedTuple):
    """A plan, without its dead letters."""

    id: int
    selection: dict[str, Any]
    options: dict[str, Any]
    created_at: datetime


class PlannedLetter(NamedTuple):
    """A dead letter of a plan, and whether it would pass."""

    id: Origin
    passes: bool


def create(
    connection: Connection,
    *,
    requested_by: str,
    selection: Mapping[str, Any],
    options: Mapping[str, Any],
) -> int:
    """Writes a new plan down and returns its id. Its dead letters belong into the same transaction,
    so that nobody sees a part of a plan."""
    row = connection.execute(
        "INSERT INTO replay_plans (requested_by, selection, options) VALUES (%s, %s, %s)"
        " RETURNING id",
        [requested_by, Jsonb(dict(selection)), Jsonb(dict(options))],
    ).fetchone()
    assert row is not None  # noqa: S101 (RETURNING of one row)
    return int(row[0])


def add(connection: Connection, plan_id: int, letters: Sequence[PlannedLetter]) -> None:
    """Writes down dead letters of a plan."""
    connection.execute(
        "INSERT INTO replay_plan_letters (plan_id, source_topic, source_partition, source_offset,"
        " passes) SELECT %(plan_id)s, * FROM unnest(%(topics)s::text[], %(partitions)s::int[],"
        " %(offsets)s::bigint[], %(passes)s::boolean[])",
        arrays([each.id for each in letters])
        | {"plan_id": plan_id, "passes": [each.passes for each in letters]},
    )


def find(connection: Connection, plan_id: int) -> Plan | None:
    """A plan that can be applied; None where there is none, or it is too old."""
    row = connection.execute(
        "SELECT id, selection, options, created_at FROM replay_plans"
        " WHERE id = %s AND created_at > now() - %s",
        [plan_id, KEPT],
    ).fetchone()
    return None if row is None else Plan(*row)


def size(connection: Connection, plan_id: int) -> int:
    """How many dead letters a plan has."""
    row = connection.execute(
        "SELECT count(*) FROM replay_plan_letters WHERE plan_id = %s", [plan_id]
    ).fetchone()
    return int(row[0]) if row else 0


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


def pages(connection: Connection, plan_id: int) -> Iterator[list[PlannedLetter]]:
    """The dead letters of a plan in the order of their primary key, a page at a time; also those
    that are gone meanwhile."""
    after = Origin("", -1, -1)
    while True:
        rows = connection.execute(
            _PAGE, after._asdict() | {"plan_id": plan_id, "most": PAGE}
        ).fetchall()
        page = within_page((PlannedLetter(Origin(*row[:3]), row[3]), row[4]) for row in rows)
        if not page:
            return
        yield page
        after = page[-1].id


def remove_old(connection: Connection) -> None:
    """Removes plans that are too old to be applied, and that no running replay applies."""
    connection.execute(
        "DELETE FROM replay_plans WHERE id IN (SELECT id FROM replay_plans AS old"
        " WHERE created_at < now() - %s AND NOT EXISTS (SELECT FROM replays"
        " WHERE plan_id = old.id AND state = 'running') FOR UPDATE SKIP LOCKED)",
        [_REMOVED],
    )
