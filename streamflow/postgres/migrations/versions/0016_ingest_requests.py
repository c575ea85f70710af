"""Requests with an idempotency key that ingest workers have accepted: a retry finds the first one."""

from typing import Final

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

_TABLES: Final = """
CREATE TABLE ingest_batches (
    batch bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    instance text NOT NULL,
    began_at timestamptz NOT NULL DEFAULT now(),
    positions jsonb,
    stored boolean NOT NULL DEFAULT false
);
CREATE INDEX ingest_batches_open ON ingest_batches (instance) WHERE NOT stored;
CREATE INDEX ingest_batches_began ON ingest_batches (began_at);
CREATE TABLE ingest_requests (
    stream text NOT NULL,
    key bytea NOT NULL,
    fingerprint bytea NOT NULL,
    batch bigint NOT NULL REFERENCES ingest_batches ON DELETE CASCADE,
    number integer NOT NULL,
    PRIMARY KEY (stream, key)
);
CREATE INDEX ingest_requests_batch ON ingest_requests (batch);
COMMENT ON TABLE ingest_batches IS
    'Requests with a key that an ingest worker sends in one Kafka transaction. What is not stored yet is '
    'settled by its instance when that starts again, or by another one after a while.';
COMMENT ON COLUMN ingest_batches.positions IS
    'Partition and offset of each record, by the number of its request; written before Kafka commits.';
COMMENT ON COLUMN ingest_batches.stored IS 'Whether Kafka has committed the records.';
COMMENT ON COLUMN ingest_requests.key IS 'SHA-256 of the idempotency key.';
COMMENT ON COLUMN ingest_requests.fingerprint IS
    'SHA-256 of the records as they are sent, with private values hashed.';
"""


def upgrade() -> None:
    """Creates the tables."""
    op.execute(_TABLES)


def downgrade() -> None:
    """Refused, as of every migration."""
    raise NotImplementedError("going back is not supported; restore a backup instead")
