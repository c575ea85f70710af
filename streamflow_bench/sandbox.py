"""The benchmark's own topics, groups and tables, on the configured Kafka and PostgreSQL.

All names begin with one prefix that nothing else uses, so that a benchmark never touches the user's data
or the running workers' groups, and so that everything can be found and removed at the end.
"""

import secrets
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import psycopg
import tenacity
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from streamflow.errors import ConfigurationError, Unavailable
from streamflow.kafka.topics import provision
from streamflow.postgres.connections import session
from streamflow.postgres.schema import upgrade
from streamflow.registry import load_streams
from streamflow.settings import Settings
from streamflow_bench.leftovers import FOLDER, SCHEMA, TOPIC, Maker
from streamflow_bench.removal import drop_schema, remove_groups, remove_topics
from streamflow_stack.preflight import free_port

STREAM: Final = "streamflow.streams.user_events:USER_EVENTS"

_EMPTY_LISTINGS: Final = 3
_LISTING_PAUSE: Final = 0.5  # seconds

_HOST: Final = "127.0.0.1"  # whatever address the user's own workers listen on


class Sandbox:
    """A place to measure in, where `settings` say that Kafka and PostgreSQL are. `close` removes everything
    that it created."""

    def __init__(self, settings: Settings) -> None:
        maker = Maker.this()
        self.prefix = f"{TOPIC}{maker}."
        self._schema = f"{SCHEMA}{maker}"
        self._own = settings
        self._has_schema = False
        self._temporary = tempfile.TemporaryDirectory(prefix=f"{FOLDER}{maker}-")
        self.directory = Path(self._temporary.name)
        self._environment = {
            "STREAMFLOW_STATE_DIR": str(self.directory),
            "STREAMFLOW_HOST": _HOST,
            # Not the database's: a measured worker may have an empty database, or none.
            "STREAMFLOW_SIGNING_KEY": secrets.token_hex(16),
        }

    @contextmanager
    def topics(self, name: str, stream: str = STREAM) -> Iterator[Settings]:
        """As `settings_with_topics`; removes the topics and their groups at the end."""
        settings = self.settings_with_topics(name, stream)
        yield settings
        # After an error `close` does it.
        self.remove_groups(settings.prefix)
        remove_topics(self._own, settings.prefix)

    def settings_with_topics(self, name: str, stream: str = STREAM) -> Settings:
        """Settings with which the topics of ``user-events`` exist and are empty; `name` becomes part of
        their prefix. Another `stream` is one of the same topics."""
        settings = self._settings(
            f"{self.prefix}{name}.",
            STREAMFLOW_BRIDGE_PORT=free_port(_HOST),
            STREAMFLOW_STREAMS=stream,
        )
        provision(settings, load_streams(settings))
        return settings

    def claim_schema(self) -> None:
        """Creates the benchmark's own schema, or empties it. Raises ConfigurationError if the user may not
        create one."""
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
        """The same settings with empty tables in the benchmark's own schema, the only one in the search
        path of every connection."""
        self.claim_schema()
        user_options = conninfo_to_dict(self._own.database).get("options") or ""
        options = f"{user_options} -c search_path={self._schema}".strip()
        url = make_conninfo(self._own.database, options=options)
        settings = self._settings(
            settings.prefix,
            DATABASE_URL=url,
            STREAMFLOW_BRIDGE_PORT=settings.bridge,
            STREAMFLOW_STREAMS=",".join(settings.streams),
        )
        upgrade(settings, load_streams(settings))
        return settings

    def _settings(self, prefix: str, **changes: Any) -> Settings:
        values = self._own.model_dump(by_alias=True, exclude={"streams"})
        return Settings(**values | self._environment | {"STREAMFLOW_PREFIX": prefix} | changes)

    def environment(self, settings: Settings) -> dict[str, str]:
        """For a worker with these settings. All other variables are inherited."""
        environment = self._environment | {
            "KAFKA_BOOTSTRAP_SERVERS": settings.bootstrap,
            "STREAMFLOW_PREFIX": settings.prefix,
            "STREAMFLOW_STREAMS": ",".join(settings.streams),
            "STREAMFLOW_BRIDGE_PORT": str(settings.bridge),
        }
        if settings.database_url is not None:
            environment["DATABASE_URL"] = settings.database
        return environment

    def close(self) -> None:
        """Removes tables, groups, topics and files; if one step fails, the others are still done."""
        with ExitStack() as steps:
            steps.callback(self._temporary.cleanup)
            steps.callback(self._remove_topics)
            steps.callback(self.remove_groups, self.prefix)
            steps.callback(self._drop_schema)

    def _remove_topics(self) -> None:
        """Topics that were being created when the benchmark was interrupted appear a little later."""
        empty = 0
        while empty < _EMPTY_LISTINGS:
            empty = 0 if remove_topics(self._own, self.prefix) else empty + 1
            time.sleep(_LISTING_PAUSE)

    def _drop_schema(self) -> None:
        if self._has_schema:
            drop_schema(self._own, self._schema)
            self._has_schema = False

    @tenacity.retry(
        retry=tenacity.retry_if_exception_type(Unavailable),
        wait=tenacity.wait_fixed(0.2),
        stop=tenacity.stop_after_delay(30),
        reraise=True,
    )
    def remove_groups(self, prefix: str) -> None:
        """Waits until the groups are empty. Raises as `streamflow_bench.removal.remove_groups`."""
        remove_groups(self._own, prefix)
