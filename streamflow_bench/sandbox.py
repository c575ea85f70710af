"""Topics, groups and tables of the benchmark's own, on the configured Kafka and PostgreSQL.

Everything carries one name that nobody else uses, so that what is measured never touches the user's
data or the running workers' groups, and so that all of it can be found and removed at the end.
"""

import secrets
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from streamflow.errors import ConfigurationError
from streamflow.kafka.topics import provision
from streamflow.postgres.connections import session
from streamflow.postgres.schema import upgrade
from streamflow.registry import load_streams
from streamflow.settings import Settings
from streamflow_bench.leftovers import FOLDER, SCHEMA, TOPIC, Maker
from streamflow_bench.removal import drop_schema, remove_groups_once_empty, remove_topics

STREAM: Final = "streamflow.streams.user_events:USER_EVENTS"

_HOST: Final = "127.0.0.1"  # whatever the user's own workers listen on


class Sandbox:
    """A place to measure in; close it, whatever happened: it removes everything it made.

    Args:
        settings: where Kafka and PostgreSQL are.
    """

    def __init__(self, settings: Settings) -> None:
        maker = Maker.this()
        self.prefix = f"{TOPIC}{maker}."
        self._schema = f"{SCHEMA}{maker}"
        self._own = settings
        self._has_schema = False
        # One that no database must hold: a worker that is measured may have an empty one, or none.
        self._signing_key = secrets.token_hex(16)
        self._temporary = tempfile.TemporaryDirectory(prefix=f"{FOLDER}{maker}-")
        self.directory = Path(self._temporary.name)

    @contextmanager
    def topics(self, name: str) -> Iterator[Settings]:
        """As `settings_with_topics`; the topics and their groups go at the end."""
        settings = self.settings_with_topics(name)
        yield settings
        # After an error `close` does it.
        self.remove_groups(settings.prefix)
        self.remove_topics(settings.prefix)

    def settings_with_topics(self, name: str) -> Settings:
        """Settings under which the topics of ``user-events`` exist and are empty.

        Args:
            name: of this set of topics, made part of the prefix.
        """
        settings = self._settings(f"{self.prefix}{name}.", STREAMFLOW_BRIDGE_PORT=_free_port())
        provision(settings, load_streams(settings))
        return settings

    def claim_schema(self) -> None:
        """Creates the schema of the benchmark's own, empty; whatever was in it is dropped.

        Raises:
            ConfigurationError: the user may not create a schema.
        """
        self._drop_schema()
        with session(self._own, "bench") as connection:
            user, database = connection.info.user, connection.info.dbname
            try:
                connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(self._schema)))
            except psycopg.errors.InsufficientPrivilege:
                raise ConfigurationError(
                    f"the benchmark needs a schema of its own, and {user} may not create one: "
                    f"GRANT CREATE ON DATABASE {database} TO {user}"
                ) from None
            self._has_schema = True

    def with_schema(self, settings: Settings) -> Settings:
        """The same settings with empty tables in the schema of the benchmark's own, which every
        connection finds first and alone."""
        self.claim_schema()
        given = conninfo_to_dict(self._own.database).get("options") or ""
        options = f"{given} -c search_path={self._schema}".strip()
        url = make_conninfo(self._own.database, options=options)
        settings = self._settings(
            settings.prefix, DATABASE_URL=url, STREAMFLOW_BRIDGE_PORT=settings.bridge
        )
        upgrade(settings, load_streams(settings))
        return settings

    def _settings(self, prefix: str, **changes: Any) -> Settings:
        values = self._own.model_dump(by_alias=True, exclude={"streams"})
        return Settings(
            **values
            | {
                "STREAMFLOW_PREFIX": prefix,
                "STREAMFLOW_STREAMS": STREAM,
                "STREAMFLOW_STATE_DIR": self.directory,
                "STREAMFLOW_HOST": _HOST,
                "STREAMFLOW_SIGNING_KEY": self._signing_key,
            }
            | changes
        )

    def environment(self, settings: Settings) -> dict[str, str]:
        """For a worker that runs under these settings. What is not named is inherited."""
        found = {
            "KAFKA_BOOTSTRAP_SERVERS": settings.bootstrap,
            "STREAMFLOW_PREFIX": settings.prefix,
            "STREAMFLOW_STREAMS": STREAM,
            "STREAMFLOW_STATE_DIR": str(settings.state_dir),
            "STREAMFLOW_HOST": settings.host,
            "STREAMFLOW_BRIDGE_PORT": str(settings.bridge),
            "STREAMFLOW_SIGNING_KEY": self._signing_key,
        }
        if settings.database_url is not None:
            found["DATABASE_URL"] = settings.database
        return found

    def close(self) -> None:
        """Removes tables, groups, topics and files; each, whatever becomes of the others."""
        with ExitStack() as steps:
            steps.callback(self._temporary.cleanup)
            steps.callback(self.remove_topics, self.prefix)
            steps.callback(self.remove_groups, self.prefix)
            steps.callback(self._drop_schema)

    def _drop_schema(self) -> None:
        if self._has_schema:
            drop_schema(self._own, self._schema)
            self._has_schema = False

    def remove_topics(self, prefix: str) -> None:
        """Deletes the topics whose names begin like this."""
        remove_topics(self._own, prefix)

    def remove_groups(self, prefix: str) -> None:
        """Deletes the consumer groups whose names begin like this; waits until they are empty.

        Raises:
            Unavailable: one is not empty, or the broker does not answer.
        """
        remove_groups_once_empty(self._own, prefix)


def _free_port() -> int:
    """A port on which nobody listens now."""
    with socket.create_server((_HOST, 0)) as probe:
        return int(probe.getsockname()[1])
