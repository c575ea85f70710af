"""Tables of windows with aggregates: whose they are, their rows in one view, and their partitions by day;
their emptied rows are noted, too."""

from typing import Final

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

# As in 0008, but also of tables with parts of windows, whose identity is their first event.
_FUNCTION: Final = """
CREATE OR REPLACE FUNCTION create_day_partition(of_table text, day date) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET timezone = 'UTC' SET datestyle = 'ISO, MDY' AS $body$
DECLARE
    name text := of_table || '_' || to_char(day, 'YYYYMMDD');
    event_time text;
    has_rows boolean;
BEGIN
    SELECT attname INTO event_time
      FROM pg_partitioned_table JOIN pg_attribute ON attrelid = partrelid AND attnum = partattrs[0]
     WHERE partrelid = to_regclass(quote_ident(of_table)) AND partstrat = 'r' AND partnatts = 1
       AND atttypid = 'timestamptz'::regtype
       AND EXISTS (SELECT FROM pg_attribute AS other
                    WHERE other.attrelid = partrelid
                      AND other.attname IN ('origin_offset', 'first_offset'));
    IF event_time IS NULL THEN
        RAISE 'no event table: %', of_table USING ERRCODE = 'undefined_table';
    END IF;
    PERFORM pg_advisory_xact_lock({key}, hashtext(of_table));
    IF to_regclass(quote_ident(name)) IS NOT NULL THEN
        RETURN true;
    END IF;
    EXECUTE format('SELECT EXISTS (SELECT FROM %I WHERE %I >= %L AND %I < %L)', of_table || '_default',
                   event_time, day::timestamptz, event_time, (day + 1)::timestamptz) INTO has_rows;
    IF has_rows THEN
        RETURN false;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', name, of_table);
    EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                   of_table, name, day::timestamptz, (day + 1)::timestamptz);
    RETURN true;
END
$body$;
DO $do$ BEGIN
    EXECUTE format('ALTER FUNCTION create_day_partition SET search_path = %I, pg_temp',
                   current_schema());
END $do$;
"""
_TABLES: Final = """
CREATE TABLE window_tables (
    table_name text PRIMARY KEY,
    stream text NOT NULL,
    declaration jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE window_tables IS
    'Tables with parts of windows, and the declaration that they were counted by. They never change.';
CREATE VIEW window_rows AS
SELECT 'window_counts'::text AS table_name, origin_topic, partition, first_offset, last_offset, window_start,
       record_topic, record_partition, record_offset
  FROM window_counts;
COMMENT ON VIEW window_rows IS
    'The rows of all tables of windows; made again whenever there is another table.';
"""
# A cast of a double keeps 15 of its digits. Each is a whole number times a power of two.
_EXACT: Final = """
CREATE FUNCTION exact_numeric(number double precision) RETURNS numeric
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT sign * mantissa
           * CASE WHEN exponent >= 0 THEN power(2::numeric, exponent)
                  ELSE power(5::numeric, -exponent) * ('1e' || exponent)::numeric END
      FROM (SELECT CASE WHEN bits < 0 THEN -1 ELSE 1 END AS sign,
                   (bits & 4503599627370495)
                   + CASE WHEN biased > 0 THEN 4503599627370496 ELSE 0 END AS mantissa,
                   greatest(biased, 1) - 1075 AS exponent
              FROM (SELECT bits, (bits >> 52)::integer & 2047 AS biased
                      FROM (SELECT ('x' || encode(float8send(number), 'hex'))::bit(64)::bigint AS bits)
                           AS raw) AS split) AS parts
$$;
COMMENT ON FUNCTION exact_numeric IS 'A finite double as the decimal fraction that it is.';
"""
_ERASED: Final = """
ALTER TABLE erased_records DROP CONSTRAINT erased_records_place_check;
ALTER TABLE erased_records ADD CONSTRAINT erased_records_place_check CHECK (place IN
    ('events', 'notifications', 'dead_letters', 'rejected', 'replayed', 'duplicates')
    OR starts_with(place, 'windows '));
COMMENT ON TABLE erased_records IS
    'Positions of the records of forgotten subjects: those of their events, of emptied notifications and '
    'dead letters, of what was dead-lettered (rejected), of replays and duplicates of the events, and of '
    'emptied rows of windows (windows and the name of their table).';
"""
_ADVISORY_KEY: Final = 0x5F10_DA75


def upgrade() -> None:
    """Creates table, view and function, and replaces the other function."""
    op.execute(_TABLES)
    op.execute(_EXACT)
    op.execute(_ERASED)
    op.execute(_FUNCTION.format(key=_ADVISORY_KEY))


def downgrade() -> None:
    """Refused, as of every migration."""
    raise NotImplementedError("going back is not supported; restore a backup instead")
