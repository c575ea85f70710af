"""The tables that all streams share. Each stream's own table follows from its contract."""

from typing import Final

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_TABLES: Final = """
CREATE TABLE window_counts (
    window_start timestamptz NOT NULL,
    window_end timestamptz NOT NULL,
    event_type text NOT NULL,
    count bigint NOT NULL,
    partition integer NOT NULL,
    late boolean NOT NULL,
    first_offset bigint NOT NULL,
    last_offset bigint NOT NULL,
    origin_topic text NOT NULL,
    record_topic text NOT NULL,
    record_partition integer NOT NULL,
    record_offset bigint NOT NULL,
    appended_at timestamptz,
    loaded_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (first_offset, partition, origin_topic)
);
COMMENT ON TABLE window_counts IS
    'Results of windows; a window''s total is the sum. No source event is counted in two rows.';
CREATE INDEX window_counts_window ON window_counts (window_start, event_type);
CREATE INDEX window_counts_record ON window_counts (record_offset, record_partition, record_topic);

CREATE TABLE notifications (
    message text NOT NULL,
    "time" timestamptz NOT NULL,
    event_id bigint NOT NULL,
    "user" text NOT NULL,
    origin_topic text NOT NULL,
    origin_partition integer NOT NULL,
    origin_offset bigint NOT NULL,
    record_topic text NOT NULL,
    record_partition integer NOT NULL,
    record_offset bigint NOT NULL,
    appended_at timestamptz,
    loaded_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (origin_partition, origin_offset, origin_topic)
);
CREATE INDEX notifications_record
    ON notifications (record_partition, record_offset, record_topic);
CREATE INDEX notifications_time ON notifications USING brin ("time");

CREATE TABLE dead_letters (
    source_topic text NOT NULL,
    source_partition integer NOT NULL,
    source_offset bigint NOT NULL,
    origin_topic text NOT NULL,
    origin_partition integer NOT NULL,
    origin_offset bigint NOT NULL,
    record_topic text NOT NULL,
    record_partition integer NOT NULL,
    record_offset bigint NOT NULL,
    error_code text NOT NULL,
    stage text NOT NULL,
    group_name text NOT NULL,
    exception text NOT NULL,
    message text NOT NULL,
    attempt integer NOT NULL,
    redacted boolean NOT NULL,
    failed_at timestamptz,
    status text NOT NULL DEFAULT 'open',
    key bytea,
    value bytea,
    headers jsonb NOT NULL,
    appended_at timestamptz,
    loaded_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (source_partition, source_offset, source_topic)
);
COMMENT ON TABLE dead_letters IS
    'Records that broke their contract: source is the record that failed, origin where its event '
    'first entered the log, record the dead letter itself.';
CREATE INDEX dead_letters_origin ON dead_letters (origin_partition, origin_offset, origin_topic);
CREATE INDEX dead_letters_record ON dead_letters (record_partition, record_offset, record_topic);
CREATE INDEX dead_letters_code ON dead_letters (error_code, appended_at);
CREATE INDEX dead_letters_failed_at ON dead_letters (failed_at);
CREATE INDEX dead_letters_status ON dead_letters (status, appended_at);

CREATE TABLE replayed_events (
    origin_topic text NOT NULL,
    origin_partition integer NOT NULL,
    origin_offset bigint NOT NULL,
    topic text NOT NULL,
    partition integer NOT NULL,
    "offset" bigint NOT NULL,
    attempt integer NOT NULL,
    loaded_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (origin_partition, origin_offset, origin_topic)
);
COMMENT ON TABLE replayed_events IS
    'Events that were stored from a replay: their identity, whatever a repair did to their time.';
CREATE INDEX replayed_events_position ON replayed_events (partition, "offset", topic);

CREATE TABLE duplicates (
    topic text NOT NULL,
    partition integer NOT NULL,
    "offset" bigint NOT NULL,
    origin_topic text NOT NULL,
    origin_partition integer NOT NULL,
    origin_offset bigint NOT NULL,
    table_name text NOT NULL,
    event_type text,
    event_time timestamptz,
    loaded_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (partition, "offset", topic)
);
COMMENT ON TABLE duplicates IS
    'Records that told what another record had told before, so that each is accounted for.';

CREATE TABLE loader_positions (
    group_name text NOT NULL,
    topic text NOT NULL,
    partition integer NOT NULL,
    next_offset bigint NOT NULL DEFAULT 0,
    records bigint NOT NULL DEFAULT 0,
    rejected bigint NOT NULL DEFAULT 0,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (group_name, topic, partition)
) WITH (fillfactor = 50);
COMMENT ON TABLE loader_positions IS
    'Where the loader goes on, moved in the transaction that loads the rows. Do not edit.';

CREATE TABLE audit_ledger (
    topic text NOT NULL,
    partition integer NOT NULL,
    proved_through bigint NOT NULL,
    records bigint NOT NULL,
    stored bigint NOT NULL,
    dead_lettered bigint NOT NULL,
    duplicates bigint NOT NULL,
    proved_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (topic, partition)
);
"""


def upgrade() -> None:
    """Creates the shared tables."""
    op.execute(_TABLES)


def downgrade() -> None:
    """Refused: it would throw data away."""
    raise NotImplementedError("going back would drop the data; restore a backup instead")
