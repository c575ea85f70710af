"""The key that workers sign with: a setting, or in the database, where a migration created one."""

from streamflow.errors import ConfigurationError, Unavailable
from streamflow.postgres.connections import session
from streamflow.settings import Settings
from streamflow.signing import Signer


class SigningKey:
    """The key of a process, read when it is first needed: a worker waits for its database in its loop,
    where it can report that and be stopped."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._signer: Signer | None = None

    def signer(self) -> Signer:
        """The signer with that key. Raises ConfigurationError if there is no key, nor a database that
        holds one, and Unavailable if the database does not answer."""
        if self._signer is None:
            self._signer = self._read()
        return self._signer

    def _read(self) -> Signer:
        settings = self._settings
        if settings.signing_key is not None:
            return Signer(settings.signing_key.get_secret_value().encode())
        if settings.database_url is None:
            raise ConfigurationError(
                "no key to sign records with: set STREAMFLOW_SIGNING_KEY or DATABASE_URL"
            )
        try:
            with session(settings, "signing-key", statement_timeout=10) as connection:
                row = connection.execute(
                    "SELECT key, (extract(epoch FROM unsigned_until) * 1000)::bigint"
                    " FROM signing_key"
                ).fetchone()
        except Unavailable as error:
            raise Unavailable(
                f"the key to sign records with cannot be read: {error}; with STREAMFLOW_SIGNING_KEY "
                "set, the database is not needed for that"
            ) from error
        if row is None:
            raise ConfigurationError(
                "the database holds no key to sign records with, it was deleted from "
                "signing_key: set STREAMFLOW_SIGNING_KEY"
            )
        return Signer(*row)
