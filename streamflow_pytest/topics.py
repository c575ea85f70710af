"""Removing what a test has left in the session's broker."""

from typing import Final

from confluent_kafka.admin import AdminClient

_SECONDS: Final = 70.0


def delete_topics(bootstrap_servers: str, prefix: str) -> None:
    client = AdminClient({"bootstrap.servers": bootstrap_servers})
    names = [
        name for name in client.list_topics(timeout=_SECONDS).topics if name.startswith(prefix)
    ]
    if names:
        for future in client.delete_topics(names).values():
            # Waited for, not judged: the test may have deleted one itself.
            future.exception(_SECONDS)
