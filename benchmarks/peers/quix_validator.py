"""Quix Streams: notifications and dead letters, in transactions with the offsets."""

from typing import Any

import orjson
from login_events import DEAD_LETTERS, OUTPUT, TOPIC, notification, read
from quix_application import application


def judge(value: bytes) -> tuple[bool, bytes]:
    try:
        return True, orjson.dumps(notification(read(value)))
    except ValueError:
        return False, value


def topic(name: str) -> Any:
    return app.topic(
        name,
        value_serializer="bytes",
        key_serializer="bytes",
        value_deserializer="bytes",
        key_deserializer="bytes",
    )


app = application(exactly_once=True, use_changelog_topics=False)
judged = app.dataframe(topic(TOPIC)).apply(judge)
judged.filter(lambda each: each[0]).apply(lambda each: each[1]).to_topic(topic(OUTPUT))
judged.filter(lambda each: not each[0]).apply(lambda each: each[1]).to_topic(topic(DEAD_LETTERS))
app.run()
