"""What Quix's three peers share: an application that processes exactly once."""

import os
from typing import Any

from login_events import CONSUMER, GROUP, KAFKA, PRODUCER
from quixstreams import Application
from quixstreams.kafka import ConnectionConfig

COMMIT_EVERY = 10_000  # records
COMMIT_SECONDS = 1.0
_OWN = {"group.id", "enable.auto.commit", "auto.offset.reset", "acks", "enable.idempotence"}


def application(*, exactly_once: bool, **options: Any) -> Application:
    return Application(
        broker_address=ConnectionConfig.from_librdkafka_dict(KAFKA, ignore_extras=True),
        consumer_group=GROUP,
        auto_offset_reset="earliest",
        commit_every=COMMIT_EVERY,
        commit_interval=COMMIT_SECONDS,
        processing_guarantee="exactly-once" if exactly_once else "at-least-once",
        state_dir=os.environ["PEER_DIRECTORY"],
        loglevel="WARNING",
        consumer_extra_config=_further(CONSUMER),
        producer_extra_config=_further(PRODUCER),
        **options,
    )


def _further(config: dict[str, Any]) -> dict[str, Any]:
    """What the application does not set itself."""
    return {key: value for key, value in config.items() if key not in KAFKA.keys() | _OWN}
