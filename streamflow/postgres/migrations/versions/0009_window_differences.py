"""Windows whose counts differ from their events for good, until a person acknowledges it."""

from typing import Final

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_TABLES: Final = """
CREATE TABLE window_differences (
    topic text NOT NULL,
    partition integer NOT NULL,
    table_name text NOT NULL DEFAULT 'window_counts',
    window_start timestamptz NOT NULL,
    event_type text NOT NULL,
    difference bigint NOT NULL,
    first_offset bigint NOT NULL,
    noticed_at timestamptz NOT NULL DEFAULT now(),
    acknowledged_at timestamptz,
    acknowledged_by text,
    PRIMARY KEY (topic, partition, table_name, window_start, event_type)
);
COMMENT ON TABLE window_differences IS
    'Closed windows with fewer events counted than stored (difference > 0) or more (< 0), as audits have '
    'found them: of events that two releases of analytics judged by different contracts.';
"""


def upgrade() -> None:
    """Creates the table."""
    op.execute(_TABLES)


def downgrade() -> None:
    """Refused, as of every migration."""
    raise NotImplementedError("going back is not supported; restore a backup instead")
