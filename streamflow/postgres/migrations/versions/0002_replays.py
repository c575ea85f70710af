"""What was replayed, by whom, and what became of each record (G8)."""

from typing import Final

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_TABLES: Final = """
CREATE TABLE replays (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    transactional_id text NOT NULL UNIQUE,
    requested_by text NOT NULL,
    selection jsonb NOT NULL,
    options jsonb NOT NULL,
    state text NOT NULL DEFAULT 'running'
        CHECK (state IN ('running', 'finished', 'stopped', 'interrupted')),
    note text NOT NULL DEFAULT '',
    started_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz
);
COMMENT ON TABLE replays IS
    'Replays of dead letters. A running one holds an advisory lock: without it, it was killed.';
CREATE INDEX replays_running ON replays (id) WHERE state = 'running';

CREATE TABLE replay_records (
    replay_id bigint NOT NULL REFERENCES replays (id),
    source_topic text NOT NULL,
    source_partition integer NOT NULL,
    source_offset bigint NOT NULL,
    letter_status text NOT NULL,
    attempt integer NOT NULL,
    outcome text NOT NULL CHECK (outcome IN ('planned', 'prepared', 'sent', 'stored', 'duplicate',
        'rejected', 'fails', 'quarantined', 'not_sent')),
    code text NOT NULL DEFAULT '',
    message text NOT NULL DEFAULT '',
    topic text,
    partition integer,
    "offset" bigint,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (replay_id, source_partition, source_offset, source_topic)
);
COMMENT ON TABLE replay_records IS
    'What a replay made of each letter: source names the letter, letter_status what it had before, '
    'topic, partition and offset where it was sent to.';
CREATE INDEX replay_records_letter
    ON replay_records (source_partition, source_offset, source_topic);
CREATE INDEX replay_records_unsettled ON replay_records (replay_id, outcome)
    WHERE outcome IN ('planned', 'prepared', 'sent');

COMMENT ON COLUMN dead_letters.status IS
    'open; replaying: sent, and not yet seen stored; replayed: its event is stored; superseded: its '
    'replay was refused, a later letter of the same origin stands for it; quarantined: given up.';
CREATE INDEX dead_letters_by_status
    ON dead_letters (status, source_partition, source_offset, source_topic);
"""


def upgrade() -> None:
    """Creates the tables of replays."""
    op.execute(_TABLES)


def downgrade() -> None:
    """Refused: it would throw data away."""
    raise NotImplementedError("going back would drop the data; restore a backup instead")
