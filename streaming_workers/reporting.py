"""Reports to Dagster what a worker does, as asset events over its REST endpoint: fire and forget.

The worker only adds to counters; another thread sends them now and then, and keeps them if Dagster does
not answer. Nothing here imports Dagster.
"""

import threading
import time
from dataclasses import dataclass
from typing import Final, Self

import structlog

from streamflow.errors import Unavailable
from streamflow.http import request
from streamflow.names import asset_name
from streamflow.settings import Settings

log = structlog.get_logger()

TIMEOUT: Final = 2.0  # seconds
# A healthy worker without records also reports, but not so often.
QUIET_FACTOR: Final = 10


@dataclass(slots=True)
class Done:
    records: int = 0
    since: float = 0.0  # when counting began; monotonic
    missed: bool = False  # a report of it has failed


def topic_asset(topic: str, prefix: str) -> str:
    return f"kafka/{asset_name(topic.removeprefix(prefix))}"


def table_asset(table: str) -> str:
    return f"postgres/{asset_name(table)}"


def producer_asset(topic: str, prefix: str) -> str:
    return f"producer/{asset_name(topic.removeprefix(prefix))}"


class Ledger:
    """Counts, and says what is due; `interval` seconds are between two reports of an asset. Pure."""

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._done: dict[str, Done] = {}
        self._reported_at: dict[str, float] = {}

    def note(self, asset: str, records: int, now: float) -> None:
        """Adds records; none means that the worker is up to date."""
        done = self._done.setdefault(asset, Done(since=now))
        done.records += records

    def take_due(self, now: float) -> dict[str, Done]:
        """What to report now. It counts as reported; `give_back` what was not."""
        due = {}
        for asset, done in list(self._done.items()):
            since = now - self._reported_at.get(asset, float("-inf"))
            news = done.records > 0 or done.missed
            wait = self._interval if news else QUIET_FACTOR * self._interval
            if since >= wait:
                due[asset] = done
                del self._done[asset]
                self._reported_at[asset] = now
        return due

    def give_back(self, asset: str, done: Done) -> None:
        later = self._done.get(asset)
        if later is not None:
            done.records += later.records
        done.missed = True
        self._done[asset] = done


class Reporter:
    """Sends what is due from its own thread to Dagster's webserver at `url`; None for no reports. Use as
    a context manager."""

    def __init__(self, url: str | None, interval: float, worker: str) -> None:
        self._url = url.rstrip("/") if url else None
        self._worker = worker
        self._pause = min(1.0, interval / 10)
        self._ledger = Ledger(interval)
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._answers = True
        self._thread = threading.Thread(target=self._run, name="dagster-reports", daemon=True)

    @classmethod
    def of(cls, settings: Settings, worker: str) -> "Reporter":
        return cls(settings.dagster_url, settings.dagster_report_seconds, worker)

    def note(self, asset: str, records: int) -> None:
        """Counts; returns at once, whatever the webserver does."""
        if self._url is not None:
            with self._lock:
                self._ledger.note(asset, records, time.monotonic())

    def __enter__(self) -> Self:
        if self._url is not None:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        # Not joined: a report that is being sent arrives or does not.
        self._ended.set()

    def _run(self) -> None:
        while not self._ended.wait(self._pause):
            now = time.monotonic()
            with self._lock:
                due = self._ledger.take_due(now)
            for asset, done in due.items():
                if not self._send(asset, done, now - done.since):
                    with self._lock:
                        self._ledger.give_back(asset, done)

    def _send(self, asset: str, done: Done, seconds: float) -> bool:
        body = {
            "description": f"reported by the {self._worker}",
            "metadata": {
                "records": done.records,
                "seconds": round(seconds, 3),
                "records_per_second": round(done.records / seconds, 3) if seconds > 0 else 0.0,
                "worker": self._worker,
            },
        }
        url = f"{self._url}/report_asset_materialization/{asset}"
        try:
            answer = request("POST", url, json=body, timeout=TIMEOUT)
            why = "" if answer.ok else f"status {answer.status_code}"
        except Unavailable as error:
            why = str(error)
        if bool(why) == self._answers:
            self._answers = not why
            if why:
                log.warning("dagster does not answer", why=why, url=self._url)
            else:
                log.info("dagster answers again")
        return not why
