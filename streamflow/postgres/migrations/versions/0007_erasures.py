"""Who was forgotten, and which records were theirs (G16)."""

from typing import Final

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_TABLES: Final = """
CREATE TABLE erasures (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind text NOT NULL CHECK (kind IN ('address', 'user')),
    hashes text[] NOT NULL,
    requested_by text NOT NULL,
    requested_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    others jsonb NOT NULL DEFAULT '{}',
    certificate jsonb
);
COMMENT ON TABLE erasures IS
    'Forgotten subjects, by hash: the loader stores nothing more of theirs. Keep it when you restore an '
    'older backup, with erased_records. others: changed rows, by table, since the last certificate.';

CREATE TABLE erased_records (
    erasure_id bigint NOT NULL REFERENCES erasures (id),
    place text NOT NULL CHECK (place IN
        ('events', 'notifications', 'dead_letters', 'rejected', 'replayed', 'duplicates')),
    topic text NOT NULL,
    partition integer NOT NULL,
    "offset" bigint NOT NULL,
    appended_at timestamptz,
    PRIMARY KEY (partition, "offset", topic, place)
);
COMMENT ON TABLE erased_records IS
    'Positions of the records of forgotten subjects: those of their events, of emptied notifications and '
    'dead letters, of what was dead-lettered (rejected), and of replays and duplicates of the events.';
CREATE INDEX erased_records_erasure ON erased_records (erasure_id, place);
"""


def upgrade() -> None:
    """Creates the tables."""
    op.execute(_TABLES)


def downgrade() -> None:
    """Refused: who was forgotten would be stored again."""
    raise NotImplementedError("going back would forget who was forgotten; restore a backup instead")
