"""The topics that StreamFlow has created or adopted, in the table ``topics`` (see `kafka.ownership`)."""

from collections.abc import Mapping
from typing import Final

import psycopg

from streamflow.errors import ConfigurationError
from streamflow.postgres.connections import session
from streamflow.settings import Settings

_STATEMENT_SECONDS: Final = 15

_ADD: Final = """
INSERT INTO topics (topic, topic_id, adopted) VALUES (%s, %s, %s)
ON CONFLICT (topic) DO UPDATE
SET topic_id = excluded.topic_id, adopted = excluded.adopted, noted_at = now()
"""


class NoSchema(ConfigurationError):
    """The database has no tables of StreamFlow's yet."""


class TopicsTable:
    """`OwnedTopics` in PostgreSQL; each call opens a connection."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def ids(self) -> dict[str, str]:
        with session(self._settings, "topics", statement_timeout=_STATEMENT_SECONDS) as connection:
            try:
                rows = connection.execute("SELECT topic, topic_id FROM topics").fetchall()
            except psycopg.errors.UndefinedTable as error:
                raise NoSchema(
                    "the database has no schema yet, in which StreamFlow notes the topics that it "
                    "creates: run `streamflow db upgrade` first, or `streamflow init` for both"
                ) from error
        return {str(topic): str(topic_id) for topic, topic_id in rows}

    def add(self, ids: Mapping[str, str], *, adopted: bool) -> None:
        with (
            session(self._settings, "topics", statement_timeout=_STATEMENT_SECONDS) as connection,
            connection.transaction(),
            connection.cursor() as cursor,
        ):
            cursor.executemany(_ADD, [(name, topic_id, adopted) for name, topic_id in ids.items()])
