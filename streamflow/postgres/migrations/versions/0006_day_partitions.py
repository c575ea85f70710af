"""Day partitions are created by a function, so that a loader needs no right to alter tables."""

from typing import Final

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

# Runs with the rights of its owner, so names are looked up in our schema only, and in pg_catalog before it.
_FUNCTION: Final = """
CREATE FUNCTION create_day_partition(of_table text, day date) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET timezone = 'UTC' SET datestyle = 'ISO, MDY' AS $body$
DECLARE
    name text := of_table || '_' || to_char(day, 'YYYYMMDD');
    has_rows boolean;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_partitioned_table JOIN pg_class ON oid = partrelid
                    WHERE oid = to_regclass(quote_ident(of_table))
                      AND pg_get_partkeydef(oid) = 'RANGE ("timestamp")') THEN
        RAISE 'no event table: %', of_table USING ERRCODE = 'undefined_table';
    END IF;
    -- Another loader that needs the same day waits here, and then sees the partition.
    PERFORM pg_advisory_xact_lock({key}, hashtext(of_table));
    IF to_regclass(quote_ident(name)) IS NOT NULL THEN
        RETURN true;
    END IF;
    EXECUTE format('SELECT EXISTS (SELECT FROM %I WHERE "timestamp" >= %L AND "timestamp" < %L)',
                   of_table || '_default', day::timestamptz, (day + 1)::timestamptz) INTO has_rows;
    IF has_rows THEN
        RETURN false;
    END IF;
    -- Attached, not created in place: that would lock the whole table against reads.
    EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', name, of_table);
    EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                   of_table, name, day::timestamptz, (day + 1)::timestamptz);
    RETURN true;
END
$body$;
REVOKE ALL ON FUNCTION create_day_partition FROM PUBLIC;
DO $do$ BEGIN
    EXECUTE format('ALTER FUNCTION create_day_partition SET search_path = %I, pg_temp',
                   current_schema());
END $do$;
COMMENT ON FUNCTION create_day_partition IS
    'Gives a day of an event table a partition of its own; false where it has rows already.';
"""
_ADVISORY_KEY: Final = 0x5F10_DA75


def upgrade() -> None:
    """Creates the function."""
    op.execute(_FUNCTION.format(key=_ADVISORY_KEY))


def downgrade() -> None:
    """Refused, as of every migration."""
    raise NotImplementedError("going back is not supported; restore a backup instead")
