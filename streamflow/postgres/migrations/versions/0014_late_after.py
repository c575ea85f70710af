"""Whether windows were ever declared with `late_after`: without it no event comes too late."""

from typing import Final

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_COLUMN: Final = """
ALTER TABLE window_tables ADD COLUMN late_after boolean;
COMMENT ON COLUMN window_tables.late_after IS
    'Whether the windows were ever declared with late_after; null if that is not known.';
"""


def upgrade() -> None:
    """Adds the column; of tables that are there it is not known."""
    op.execute(_COLUMN)


def downgrade() -> None:
    """Refused, as of every migration."""
    raise NotImplementedError("going back is not supported; restore a backup instead")
