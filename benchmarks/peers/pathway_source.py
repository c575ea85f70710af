"""What Pathway's two peers share. Pathway reads JSON by its own schema: of the contract it checks types, and
here the four event types, but neither ranges, lengths, unknown fields nor the form of a hash."""

import os
from typing import Any

os.environ.setdefault("PATHWAY_THREADS", "1")  # before it is imported

import pathway as pw
from login_events import CONSUMER, TOPIC, TYPES

TIME = "%Y-%m-%dT%H:%M:%S.%fZ"


def valid_events(schema: type[pw.Schema], **options: Any) -> pw.Table:
    # It subscribes as a group; what it has read is committed, for the bench to see its progress.
    settings = CONSUMER | {"enable.auto.commit": True, "auto.commit.interval.ms": 100}
    events = pw.io.kafka.read(
        {key: str(value) for key, value in settings.items()},
        topic=TOPIC,
        format="json",
        schema=schema,
        autocommit_duration_ms=200,
        **options,
    )
    first, *others = TYPES
    known = events.type == first
    for kind in others:
        known |= events.type == kind
    return events.filter(known)
