"""Removing what a benchmark created, by the beginning of its name."""

from collections.abc import Mapping
from concurrent.futures import Future

from confluent_kafka import KafkaError, KafkaException
from psycopg import sql

from streamflow.kafka.clients import admin, kafka_errors
from streamflow.postgres.connections import session
from streamflow.settings import Settings

_TIMEOUT = 30.0  # seconds


def topic_names(settings: Settings) -> list[str]:
    """Raises Unavailable if the broker does not answer."""
    with kafka_errors():
        return list(admin(settings).list_topics(timeout=_TIMEOUT).topics)


def group_names(settings: Settings) -> list[str]:
    """Of consumer groups. Raises as `topic_names`."""
    client = admin(settings)
    with kafka_errors():
        listed = client.list_consumer_groups(request_timeout=_TIMEOUT).result(_TIMEOUT)
    return [group.group_id for group in listed.valid]


def schema_names(settings: Settings) -> list[str]:
    """Raises Unavailable if the database does not answer."""
    with session(settings, "bench") as connection:
        rows = connection.execute("SELECT nspname FROM pg_namespace").fetchall()
    return [str(name) for (name,) in rows]


def remove_topics(settings: Settings, prefix: str) -> int:
    """Returns the number of topics deleted."""
    names = [name for name in topic_names(settings) if name.startswith(prefix)]
    client = admin(settings)
    with kafka_errors():
        deleted = client.delete_topics(names, operation_timeout=_TIMEOUT) if names else {}
        _wait_until_deleted(deleted, gone=KafkaError.UNKNOWN_TOPIC_OR_PART)
    return len(names)


def remove_groups(settings: Settings, prefix: str) -> int:
    """Returns the number of consumer groups deleted. Raises Unavailable if one is not empty, or the broker
    does not answer."""
    names = [name for name in group_names(settings) if name.startswith(prefix)]
    client = admin(settings)
    with kafka_errors():
        deleted = client.delete_consumer_groups(names) if names else {}
        _wait_until_deleted(deleted, gone=KafkaError.GROUP_ID_NOT_FOUND)
    return len(names)


def _wait_until_deleted(deleted: Mapping[str, Future[None]], *, gone: int) -> None:
    """What is listed may be gone by then: `gone` is the error of it."""
    for future in deleted.values():
        try:
            future.result(_TIMEOUT)
        except KafkaException as error:
            if error.args[0].code() != gone:
                raise


def drop_schema(settings: Settings, name: str) -> None:
    with session(settings, "bench") as connection:
        statement = sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(name))
        connection.execute(statement)
