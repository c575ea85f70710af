"""What was lost, whose topics are ours, who signs derived records, and what a plan had shown."""

from typing import Final

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_TABLES: Final = """
CREATE TABLE gaps (
    reader text NOT NULL,
    topic text NOT NULL,
    partition integer NOT NULL,
    first_offset bigint NOT NULL,
    end_offset bigint NOT NULL CHECK (end_offset > first_offset),
    cause text NOT NULL CHECK (cause IN ('retention', 'recreated', 'truncated')),
    noticed_at timestamptz NOT NULL DEFAULT now(),
    acknowledged_at timestamptz,
    acknowledged_by text,
    PRIMARY KEY (reader, topic, partition, first_offset)
);
COMMENT ON TABLE gaps IS
    'Offsets that a consumer group (reader) could not read, because their records were gone first; '
    'end_offset is the first offset behind them. The audit is red until a gap is acknowledged.';

ALTER TABLE loader_positions ADD COLUMN topic_id text, ADD COLUMN leader_epoch integer;
COMMENT ON COLUMN loader_positions.topic_id IS
    'Id (KIP-516) of the topic that next_offset counts in; leader_epoch (KIP-320) is that of the '
    'record before it.';
ALTER TABLE audit_ledger
    ADD COLUMN topic_id text,
    ADD COLUMN lost bigint NOT NULL DEFAULT 0,
    ADD COLUMN counted_from_zero boolean NOT NULL DEFAULT false,
    ADD COLUMN windows_proved_through bigint NOT NULL DEFAULT 0,
    ADD COLUMN windows_proved_at timestamptz;
COMMENT ON COLUMN audit_ledger.counted_from_zero IS
    'Whether stored, dead_lettered and duplicates are of all offsets before proved_through; older '
    'releases kept those of the records that Kafka still held.';
COMMENT ON COLUMN audit_ledger.windows_proved_through IS
    'Events before this offset are counted in windows that an audit has compared with them.';

CREATE TABLE topics (
    topic text PRIMARY KEY,
    topic_id text NOT NULL,
    adopted boolean NOT NULL DEFAULT false,
    noted_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE topics IS
    'Topics that StreamFlow has created, or was told to adopt. No other topic is ever altered.';

CREATE TABLE signing_key (
    only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    key bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    unsigned_until timestamptz NOT NULL
);
COMMENT ON TABLE signing_key IS
    'Key with which workers sign the records that they derive. Records that the broker appended '
    'before unsigned_until are trusted without.';
-- Two random UUIDs: 244 random bits. Where workers of an older release run on while this one is
-- rolled out, they have a while to end.
INSERT INTO signing_key (key, unsigned_until)
    SELECT uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()),
           now() + CASE WHEN EXISTS (SELECT FROM loader_positions) THEN interval '15 minutes'
                        ELSE interval '0' END;

-- The loader asks whether a record is a replay that we sent.
CREATE INDEX replay_records_position ON replay_records (partition, "offset", topic);

-- Older releases believed what the headers of a failed record said of its origin and attempt.
UPDATE dead_letters AS letter
   SET origin_topic = source_topic, origin_partition = source_partition,
       origin_offset = source_offset, attempt = 0
 WHERE ((origin_topic, origin_partition, origin_offset)
            <> (source_topic, source_partition, source_offset) OR attempt > 0)
   AND NOT EXISTS (SELECT FROM replay_records AS sent
                    WHERE sent.topic = letter.source_topic
                      AND sent.partition = letter.source_partition
                      AND sent."offset" = letter.source_offset);

CREATE TABLE replay_plans (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    requested_by text NOT NULL,
    selection jsonb NOT NULL,
    options jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE replay_plans IS 'Plans of replays: what was shown, so that just that is replayed.';

CREATE TABLE replay_plan_letters (
    plan_id bigint NOT NULL REFERENCES replay_plans (id) ON DELETE CASCADE,
    source_topic text NOT NULL,
    source_partition integer NOT NULL,
    source_offset bigint NOT NULL,
    passes boolean NOT NULL,
    PRIMARY KEY (plan_id, source_partition, source_offset, source_topic)
);
ALTER TABLE replays ADD COLUMN plan_id bigint;

-- By what lists and filters of dead letters take for their time.
DROP INDEX dead_letters_failed_at;
CREATE INDEX dead_letters_failed
    ON dead_letters ((coalesce(failed_at, appended_at, loaded_at)));
CREATE INDEX dead_letters_status_failed
    ON dead_letters (status, (coalesce(failed_at, appended_at, loaded_at)));
"""


def upgrade() -> None:
    """Creates the tables."""
    op.execute(_TABLES)


def downgrade() -> None:
    """Refused: it would throw data away."""
    raise NotImplementedError("going back would drop the data; restore a backup instead")
