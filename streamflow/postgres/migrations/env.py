"""Alembic's environment: works on the connection that `schema.upgrade` hands it.

New migration: copy the newest file in ``versions``, number it on, set ``revision`` and
``down_revision``, write ``upgrade`` as plain SQL. Migrations are frozen: they import nothing of ours.
"""

from alembic import context
from sqlalchemy import Connection


def run(connection: Connection) -> None:
    """Runs the pending migrations in one transaction."""
    context.configure(connection=connection, version_table="streamflow_schema_version")
    with context.begin_transaction():
        context.run_migrations()


run(context.config.attributes["connection"])
