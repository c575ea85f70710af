"""What the audit knows of the conditions of windows (`where`), so that it asks them of new events only."""

from typing import Final

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_TABLES: Final = """
CREATE TABLE judged_conditions (
    table_name text NOT NULL,
    topic text NOT NULL,
    partition integer NOT NULL,
    chunk bigint NOT NULL,
    digest bigint NOT NULL,
    positions smallint[] NOT NULL,
    answers text[] NOT NULL,
    PRIMARY KEY (table_name, topic, partition, chunk)
);
COMMENT ON TABLE judged_conditions IS
    'What each where of windows said of events (t or f), by thousands of offsets, as long as the events have '
    'this digest. It may be emptied: the audit asks again.';
"""


def upgrade() -> None:
    """Creates the table."""
    op.execute(_TABLES)


def downgrade() -> None:
    """Refused, as of every migration."""
    raise NotImplementedError("going back is not supported; restore a backup instead")
