"""Since when windows are not declared: declared again, they begin anew, and their table has a hole."""

from typing import Final

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_COLUMN: Final = """
ALTER TABLE window_tables ADD COLUMN given_up_at timestamptz;
COMMENT ON COLUMN window_tables.given_up_at IS
    'When a release was deployed that does not declare these windows; null while they are declared.';
"""


def upgrade() -> None:
    """Adds the column."""
    op.execute(_COLUMN)


def downgrade() -> None:
    """Refused, as of every migration."""
    raise NotImplementedError("going back is not supported; restore a backup instead")
