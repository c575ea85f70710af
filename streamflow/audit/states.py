"""Whether the state of upsert streams is what their changes make (G5)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from psycopg import sql

from streamflow.audit.problems import Problem, ProblemKind
from streamflow.flow import Partition
from streamflow.postgres.connections import Connection
from streamflow.postgres.state import OF_RANGE, columns_of, fold, key_of_state
from streamflow.records import MAX_OFFSET
from streamflow.stream import Stream

_MOST_LISTED: Final = 100  # keys of a partition that are listed; all are counted

# The changes from an offset on, against the rows that were made of them. A row whose change is of a day
# that retention has dropped was compared before that.
_DIFFERING: Final = """
WITH folded AS ({fold}), present AS (
    SELECT * FROM {state}
     WHERE origin_topic = %(topic)s AND origin_partition = %(partition)s AND origin_offset >= %(first)s
)
SELECT coalesce(folded.origin_offset, present.origin_offset) AS "offset",
       CASE WHEN present.origin_offset IS NULL THEN 'missing'
            WHEN folded.origin_offset IS NULL THEN 'added'
            WHEN present.origin_offset <> folded.origin_offset THEN 'other'
            ELSE 'changed' END,
       count(*) OVER ()
  FROM folded FULL JOIN present ON ({folded_key}) = ({present_key})
 WHERE ({folded_columns}) IS DISTINCT FROM ({present_columns})
   AND NOT (present.origin_offset IS NOT NULL
            AND present.origin_offset > coalesce(folded.origin_offset, -1)
            AND EXISTS (SELECT FROM dropped_days AS gone
                         WHERE gone.table_name = %(table)s
                           AND gone.day = (present.{time} AT TIME ZONE 'UTC')::date))
 ORDER BY 1 LIMIT %(most)s
"""
_COUNTED: Final = """
SELECT count(*) FILTER (WHERE NOT deleted), count(*) FILTER (WHERE deleted) FROM {state}
 WHERE origin_topic = %(topic)s AND origin_partition = %(partition)s AND origin_offset >= %(first)s
"""
_WORDS: Final = {
    "missing": "{state} has no row of this change, the latest of its key in {changes}",
    "added": "{state} has a row of this change, and {changes} has no change of its key",
    "other": "{state} holds another change of the key than this one, the latest in {changes}",
    "changed": "its row in {state} is not what it is in {changes}",
}
_ADVICE: Final = (
    "find out what else writes to these tables; {state} is made again once it was dropped: see "
    "docs/state-tables.md"
)


@dataclass(kw_only=True)
class StateAudit:
    """The state of one partition compared with its changes.

    Attributes:
        living: rows that were compared and not deleted.
        deleted: keys that were compared and are deleted.
        differing: keys whose row is not what the changes make.
        problems: at most a hundred of them.
    """

    living: int = 0
    deleted: int = 0
    differing: int = 0
    problems: list[Problem] = field(default_factory=list)

    def as_dict(self) -> Mapping[str, Any]:
        return {"living": self.living, "deleted": self.deleted, "differing": self.differing}


def compare(connection: Connection, stream: Stream, partition: Partition, first: int) -> StateAudit:
    """Compares the state with the changes from an offset on, in one snapshot, so that loaders may go on."""
    names = {"state": str(stream.state_table), "changes": stream.event_table}
    state = sql.Identifier(names["state"])
    key = key_of_state(stream)
    columns = columns_of(connection, stream)
    parameters = {
        "topic": partition[0],
        "partition": partition[1],
        "first": first,
        "end": MAX_OFFSET,
        "table": stream.event_table,
        "most": _MOST_LISTED,
    }
    query = sql.SQL(_DIFFERING).format(
        fold=fold(stream, columns, OF_RANGE),
        state=state,
        folded_key=_of("folded", key),
        present_key=_of("present", key),
        folded_columns=_of("folded", columns),
        present_columns=_of("present", columns),
        time=sql.Identifier(stream.event_time),
    )
    audit = StateAudit()
    [(audit.living, audit.deleted)] = connection.execute(
        sql.SQL(_COUNTED).format(state=state), parameters
    )
    for offset, what, audit.differing in connection.execute(query, parameters):
        audit.problems.append(
            Problem(
                kind=ProblemKind.STATE_DIFFERS,
                topic=partition[0],
                partition=partition[1],
                offset=offset,
                detail=f"{_WORDS[what]}; {_ADVICE}".format(**names),
            )
        )
    return audit


def _of(table: str, columns: Sequence[str]) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier(table, name) for name in columns)
