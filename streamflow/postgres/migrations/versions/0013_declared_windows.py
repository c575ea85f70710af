"""What tables of windows are known to have been: given up for a time, and declared with `late_after`.

Declared again, windows begin anew, and their table has a hole. Without `late_after` no event comes too late.
"""

from typing import Final

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_COLUMNS: Final = """
ALTER TABLE window_tables ADD COLUMN given_up_at timestamptz, ADD COLUMN late_after boolean;
COMMENT ON COLUMN window_tables.given_up_at IS
    'When a release was deployed that does not declare these windows; null while they are declared.';
COMMENT ON COLUMN window_tables.late_after IS
    'Whether the windows were ever declared with late_after; null if that is not known.';
"""


def upgrade() -> None:
    """Adds the columns; of tables that are there, `late_after` is not known."""
    op.execute(_COLUMNS)


def downgrade() -> None:
    """Refused, as of every migration."""
    raise NotImplementedError("going back is not supported; restore a backup instead")
