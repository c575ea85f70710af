"""How many rows there are: kept in the transactions that change it, so that nothing counts a table. And what
was loaded lately is found by an index."""

from collections.abc import Mapping
from typing import Final

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

# A loader adds to the counts of a partition whose position it has locked, so that no other waits for it.
_ROW_COUNTS: Final = """
CREATE TABLE row_counts (
    table_name text NOT NULL,
    topic text NOT NULL,
    partition integer NOT NULL,
    rows bigint NOT NULL,
    counted_table oid,
    PRIMARY KEY (table_name, topic, partition)
) WITH (fillfactor = 50);
COMMENT ON TABLE row_counts IS
    'How many rows a table has, which is the sum: those stored in transactions that moved the position of '
    'a partition, and, without a topic, those that were there when counted_table was counted, less those '
    'that retention has dropped since.';
"""
_TABLES: Final = """
CREATE TABLE dead_letter_counts (
    day date NOT NULL,
    source_topic text NOT NULL,
    origin_topic text NOT NULL,
    error_code text NOT NULL,
    stage text NOT NULL,
    status text NOT NULL,
    is_foreign boolean NOT NULL,
    number bigint NOT NULL,
    first_at timestamptz,
    last_at timestamptz
) WITH (fillfactor = 50);
CREATE INDEX dead_letter_counts_kind ON dead_letter_counts (day, error_code, source_topic);
COMMENT ON TABLE dead_letter_counts IS
    'How many dead letters there are of each kind, by the day on which the broker took them. Rows of the '
    'same kind add up. first_at and last_at bound those that are or were of that kind. Triggers keep it.';
CREATE TABLE duplicate_counts (
    topic text NOT NULL,
    number bigint NOT NULL,
    first_at timestamptz,
    last_at timestamptz
) WITH (fillfactor = 50);
COMMENT ON TABLE duplicate_counts IS
    'How many rows of duplicates there are of each topic. Rows of the same topic add up. Triggers keep it.';
"""
# As tables of events have it: checks look at what was loaded since they last did.
_LOADED: Final = """
DO $do$
DECLARE
    loaded text;
BEGIN
    FOR loaded IN
        SELECT unnest(ARRAY['notifications', 'window_counts', 'dead_letters'])
         UNION ALL
        SELECT table_name FROM window_tables
         WHERE to_regclass(quote_ident(table_name)) IS NOT NULL
           AND declaration->>'windows' <> 'SessionWindow'
    LOOP
        EXECUTE format('CREATE INDEX %I ON %I USING brin (loaded_at)'
                       ' WITH (pages_per_range = 32, autosummarize = on)', loaded || '_loaded', loaded);
    END LOOP;
END $do$;
"""
# The kinds that are counted: the columns of the counts, and their values.
_DEAD_LETTERS: Final = {
    "day": "(coalesce(appended_at, loaded_at) AT TIME ZONE 'UTC')::date",
    "source_topic": "source_topic",
    "origin_topic": "origin_topic",
    "error_code": "error_code",
    "stage": "stage",
    "status": "status",
    "is_foreign": "(record_topic, record_partition, record_offset)"
    " IS NOT DISTINCT FROM (source_topic, source_partition, source_offset)",
}
_DUPLICATES: Final = {"topic": "topic"}
# What each event leaves and takes, as triggers call it; together with its sign.
_EVENTS: Final = {
    "INSERT": {"NEW TABLE AS added": 1},
    "UPDATE": {"NEW TABLE AS added": 1, "OLD TABLE AS removed": -1},
    "DELETE": {"OLD TABLE AS removed": -1},
}
# A function that runs with its owner's rights finds nothing but what is in our schema.
_AS_OWNER: Final = """
REVOKE ALL ON FUNCTION {function} FROM PUBLIC;
DO $do$ BEGIN
    EXECUTE format('ALTER FUNCTION {function} SET search_path = %I, pg_temp', current_schema());
END $do$;
"""
# Adds to a row of the kind that nobody else has locked, else makes another one: nobody waits, so nothing
# deadlocks, and there are as many rows of a kind as there ever were transactions at a time.
_COUNT: Final = """
CREATE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $body$
DECLARE
    change record;
    kept record;
BEGIN
    FOR change IN
        SELECT {kind}, sum(sign) AS number, min(at) AS first_at, max(at) AS last_at
          FROM ({changes}) AS changes GROUP BY {kind} HAVING sum(sign) <> 0
    LOOP
        SELECT counts.ctid, counts.number INTO kept FROM {counts} AS counts
         WHERE ({kind_of_counts}) = ({kind_of_change}) LIMIT 1 FOR UPDATE SKIP LOCKED;
        IF NOT FOUND THEN
            INSERT INTO {counts} ({kind}, number, first_at, last_at)
            VALUES ({kind_of_change}, change.number, change.first_at, change.last_at);
        ELSIF kept.number = -change.number THEN
            DELETE FROM {counts} WHERE ctid = kept.ctid;
        ELSE
            UPDATE {counts} AS counts
               SET number = counts.number + change.number,
                   first_at = least(counts.first_at, change.first_at),
                   last_at = greatest(counts.last_at, change.last_at)
             WHERE counts.ctid = kept.ctid;
        END IF;
    END LOOP;
    RETURN NULL;
END
$body$;
{as_owner}
CREATE TRIGGER {function} AFTER {event} ON {table} REFERENCING {references}
    FOR EACH STATEMENT EXECUTE FUNCTION {function}();
"""
# No writer is there meanwhile: truncating locks the table.
_NO_ROWS: Final = """
CREATE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $body$
BEGIN
    DELETE FROM {counts};
    RETURN NULL;
END
$body$;
{as_owner}
CREATE TRIGGER {function} AFTER TRUNCATE ON {table} FOR EACH STATEMENT EXECUTE FUNCTION {function}();
"""
_CHANGES: Final = "SELECT {values}, appended_at AS at, {sign} AS sign FROM {rows}"
# The triggers' locks keep writers away until this is committed.
_COUNT_ALL: Final = """
INSERT INTO {counts} ({kind}, number, first_at, last_at)
SELECT {values}, count(*), min(appended_at), max(appended_at) FROM {table} GROUP BY {places}
"""


def upgrade() -> None:
    """Creates tables, triggers and indexes, and counts dead letters and duplicates once."""
    op.execute(_ROW_COUNTS)
    op.execute(_TABLES)
    op.execute(_LOADED)
    for table, counts, kind in (
        ("dead_letters", "dead_letter_counts", _DEAD_LETTERS),
        ("duplicates", "duplicate_counts", _DUPLICATES),
    ):
        for event in _EVENTS:
            op.execute(_trigger(table, counts, kind, event))
        function = f"count_{table}_truncate"
        as_owner = _AS_OWNER.format(function=function)
        op.execute(
            _NO_ROWS.format(function=function, table=table, counts=counts, as_owner=as_owner)
        )
        op.execute(
            _COUNT_ALL.format(
                counts=counts,
                table=table,
                kind=", ".join(kind),
                values=", ".join(kind.values()),
                places=", ".join(map(str, range(1, len(kind) + 1))),
            )
        )


def _trigger(table: str, counts: str, kind: Mapping[str, str], event: str) -> str:
    values = ", ".join(f"{value} AS {name}" for name, value in kind.items())
    changes = [
        _CHANGES.format(values=values, sign=sign, rows=rows.split()[-1])
        for rows, sign in _EVENTS[event].items()
    ]
    function = f"count_{table}_{event.lower()}"
    return _COUNT.format(
        function=function,
        as_owner=_AS_OWNER.format(function=function),
        table=table,
        counts=counts,
        event=event,
        references=" ".join(_EVENTS[event]),
        changes=" UNION ALL ".join(changes),
        kind=", ".join(kind),
        kind_of_counts=", ".join(f"counts.{name}" for name in kind),
        kind_of_change=", ".join(f"change.{name}" for name in kind),
    )


def downgrade() -> None:
    """Refused, as of every migration."""
    raise NotImplementedError("going back is not supported; restore a backup instead")
