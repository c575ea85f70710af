"""What the windows had counted of records that the database refused."""

from typing import Final

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_TABLES: Final = """
CREATE TABLE refused_events (
    topic text NOT NULL,
    partition integer NOT NULL,
    "offset" bigint NOT NULL,
    event_type text,
    event_time timestamptz NOT NULL,
    appended_at timestamptz,
    loaded_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (partition, "offset", topic)
);
COMMENT ON TABLE refused_events IS
    'Events that keep their contract and that the database refused: dead letters of the loader, which '
    'are counted in windows, as every event that keeps its contract is.';

ALTER TABLE duplicates ADD COLUMN appended_at timestamptz;
"""


def upgrade() -> None:
    """Creates the table."""
    op.execute(_TABLES)


def downgrade() -> None:
    """Refused: it would throw data away."""
    raise NotImplementedError("going back would drop the data; restore a backup instead")
