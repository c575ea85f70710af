"""What outlives a restart of the dashboard: series and alerts, in one file of the state directory.

Without it a new release would begin with empty charts, and send alerts again.
"""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import structlog
from pydantic import TypeAdapter, ValidationError

from streamflow.alerting.book import Alert, AlertBook
from streamflow.errors import Unavailable
from streamlit_app.measure.ring_buffers import Kept, Store

log = structlog.get_logger()

_VERSION: Final = 1
_SCHEMA: Final = f"""
DROP TABLE IF EXISTS series;
DROP TABLE IF EXISTS alerts;
CREATE TABLE series (
    name text, tier integer, steps blob, sums blob, counts blob, PRIMARY KEY (name, tier)
);
CREATE TABLE alerts (body text);
PRAGMA user_version = {_VERSION};
"""
_ALERT: Final = TypeAdapter(Alert)


class Memory:
    """Keeps what is in `store` and `book` in a file, and restores it."""

    def __init__(self, path: Path, store: Store, book: AlertBook) -> None:
        self.name = f"the memory in {path}"
        self._path = path
        self._store = store
        self._book = book

    def recall(self) -> None:
        """Restores what was kept. A file that cannot be used is ignored, and the log says so."""
        if not self._path.exists():
            return
        try:
            with self._opened() as database:
                for name, *blobs in database.execute(
                    "SELECT name, tier, steps, sums, counts FROM series"
                ):
                    self._store.restore(Kept(name, *blobs))
                alerts = [
                    _ALERT.validate_json(body)
                    for (body,) in database.execute("SELECT body FROM alerts ORDER BY rowid")
                ]
        except (Unavailable, ValidationError, ValueError, OverflowError) as error:
            log.warning("memory_unusable", path=str(self._path), reason=str(error).splitlines()[0])
            return
        self._book.restore(alerts)

    def __call__(self) -> int:
        """Keeps everything as it is now, or nothing; returns how many series there are.

        Raises:
            Unavailable: the file cannot be written.
        """
        rings = list(self._store.kept())
        with self._opened() as database, database:
            database.execute("DELETE FROM series")
            database.execute("DELETE FROM alerts")
            database.executemany("INSERT INTO series VALUES (?, ?, ?, ?, ?)", rings)
            database.executemany(
                "INSERT INTO alerts VALUES (?)",
                [(_ALERT.dump_json(alert).decode(),) for alert in self._book.all()],
            )
        return len({ring.name for ring in rings})

    @contextlib.contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with contextlib.closing(sqlite3.connect(self._path, timeout=2)) as database:
                [(version,)] = database.execute("PRAGMA user_version")
                if version != _VERSION:
                    database.executescript(_SCHEMA)
                yield database
        except (OSError, sqlite3.Error) as error:
            raise Unavailable(
                f"{self._path} cannot be used ({error}): charts and alerts of the dashboard will not "
                "outlive it; make the folder writable, or remove the file"
            ) from error
