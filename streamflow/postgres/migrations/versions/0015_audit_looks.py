"""When proved records were last compared: what an audit since the last one does not look at, it names."""

from typing import Final

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

_COLUMNS: Final = """
ALTER TABLE audit_ledger
    ADD COLUMN full_at timestamptz,
    ADD COLUMN looked_at timestamptz,
    ADD COLUMN looked_through bigint NOT NULL DEFAULT 0,
    ADD COLUMN look_began timestamptz;
COMMENT ON COLUMN audit_ledger.full_at IS
    'When the last audit began that compared everything and proved it; null if none has.';
COMMENT ON COLUMN audit_ledger.looked_at IS
    'Each proved record that Kafka holds was compared with its row at this time or later.';
COMMENT ON COLUMN audit_ledger.looked_through IS
    'Audits since the last one look at some proved records again, in turn: those before this offset since '
    'look_began.';
"""


def upgrade() -> None:
    """Adds the columns; of what was proved before, none of this is known."""
    op.execute(_COLUMNS)


def downgrade() -> None:
    """Refused, as of every migration."""
    raise NotImplementedError("going back is not supported; restore a backup instead")
