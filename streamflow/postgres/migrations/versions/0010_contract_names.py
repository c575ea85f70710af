"""The names in JSON of the fields of each stream, to tell a rename from no change."""

from typing import Final

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_TABLES: Final = """
CREATE TABLE contract_names (
    table_name text PRIMARY KEY,
    names jsonb NOT NULL
);
COMMENT ON TABLE contract_names IS
    'By which names in JSON the fields of a stream are read, by the contract that was deployed last.';
"""


def upgrade() -> None:
    """Creates the table."""
    op.execute(_TABLES)


def downgrade() -> None:
    """Refused, as of every migration."""
    raise NotImplementedError("going back is not supported; restore a backup instead")
