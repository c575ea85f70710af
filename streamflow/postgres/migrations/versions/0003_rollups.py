"""What is derived from the loaded rows: rollups, how far checks have looked, what retention removed."""

from typing import Final

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_TABLES: Final = """
CREATE TABLE hourly_events (
    stream text NOT NULL,
    hour timestamptz NOT NULL,
    event_type text NOT NULL,
    events bigint NOT NULL,
    users bigint,
    computed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (stream, hour, event_type)
);
COMMENT ON TABLE hourly_events IS 'Events by type and hour of event time (UTC).';

CREATE TABLE daily_active_users (
    stream text NOT NULL,
    day date NOT NULL,
    users bigint NOT NULL,
    events bigint NOT NULL,
    computed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (stream, day)
);
COMMENT ON TABLE daily_active_users IS 'Different users by day of event time (UTC).';

CREATE TABLE login_failure_bursts (
    stream text NOT NULL,
    day date NOT NULL,
    scope text NOT NULL,
    "user" text NOT NULL,
    started_at timestamptz NOT NULL,
    ended_at timestamptz NOT NULL,
    failures bigint NOT NULL,
    users bigint NOT NULL,
    peak bigint NOT NULL,
    succeeded boolean NOT NULL,
    computed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (stream, scope, "user", started_at)
);
COMMENT ON TABLE login_failure_bursts IS
    'Runs of failed logins, of one user (scope user) or of all together (scope all, user empty); '
    'peak: most failures within the span; succeeded: one of the users logged in then or soon after.';
CREATE INDEX login_failure_bursts_day ON login_failure_bursts (day, stream);

CREATE TABLE dead_letters_by_cause (
    day date NOT NULL,
    topic text NOT NULL,
    error_code text NOT NULL,
    stage text NOT NULL,
    letters bigint NOT NULL,
    open bigint NOT NULL,
    first_at timestamptz,
    last_at timestamptz,
    computed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (day, topic, error_code, stage)
);
COMMENT ON TABLE dead_letters_by_cause IS
    'Dead letters by the day on which the broker took them, and by where and why they failed.';

CREATE TABLE rollup_progress (
    rollup text NOT NULL,
    stream text NOT NULL,
    loaded_through timestamptz NOT NULL,
    PRIMARY KEY (rollup, stream)
);
COMMENT ON TABLE rollup_progress IS 'Rows loaded before this time are in the rollup.';

CREATE TABLE quality_scans (
    scan text NOT NULL,
    table_name text NOT NULL,
    loaded_through timestamptz NOT NULL,
    PRIMARY KEY (scan, table_name)
);
COMMENT ON TABLE quality_scans IS 'Rows loaded before this time were looked at and found sound.';

CREATE TABLE dropped_days (
    table_name text NOT NULL,
    day date NOT NULL,
    rows bigint NOT NULL,
    dropped_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (table_name, day)
);
COMMENT ON TABLE dropped_days IS 'Days of events that retention removed, and how many rows they had.';
"""


def upgrade() -> None:
    """Creates the tables."""
    op.execute(_TABLES)


def downgrade() -> None:
    """Refused: it would throw data away."""
    raise NotImplementedError("going back would drop the data; restore a backup instead")
