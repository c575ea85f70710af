"""Alembic's migrations of the shared tables."""

from functools import partial

import psycopg
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from streamflow.errors import ConfigurationError
from streamflow.postgres.connections import Connection, connect
from streamflow.postgres.schema_version import current_version
from streamflow.settings import Settings


def _manual(settings: Settings) -> Connection:
    """A connection that begins transactions by itself, as SQLAlchemy expects."""
    connection = connect(settings, "migrations", statement_timeout=0)
    connection.autocommit = False
    return connection


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", "streamflow.postgres:migrations")
    config.set_main_option("path_separator", "os")
    return config


def pending(connection: Connection) -> list[str]:
    """The migrations that the database lacks, oldest first. Raises ConfigurationError if it is newer than
    this release."""
    current = current_version(connection)
    script = ScriptDirectory.from_config(_config())
    if current is not None and current not in {known.revision for known in script.walk_revisions()}:
        raise ConfigurationError(
            f"the database has schema version {current}, which this release does not know: it is "
            "older than the database; install the newer release"
        )
    return [newer.revision for newer in script.iterate_revisions("head", current)][::-1]


def migrate(settings: Settings, connection: Connection) -> list[str]:
    """Applies what is pending. Raises psycopg.Error where the database refuses it."""
    names = pending(connection)
    if names:
        config = _config()
        engine = create_engine(
            "postgresql+psycopg://", creator=partial(_manual, settings), poolclass=NullPool
        )
        try:
            with engine.connect() as own:
                config.attributes["connection"] = own
                command.upgrade(config, "head")
        except DBAPIError as error:
            if isinstance(error.orig, psycopg.Error):
                raise error.orig from error
            raise
    return [f"migration {name}" for name in names]
