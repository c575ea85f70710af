"""Reports to Dagster what a worker does, as asset events over its REST endpoint: fire and forget.

The worker only adds to counters; a thread of its own sends them, now and then, and keeps them for the
next time if Dagster does not answer. Nothing here imports Dagster.
"""

import re
import threading
import time
from dataclasses import dataclass
from typing import Final, Self

import requests
import structlog

from streamflow.errors import cause_of
from streamflow.settings import Settings

log = structlog.get_logger()

TIMEOUT: Final = 2.0  # seconds
# Without news a worker that works is still worth a word, but not so often.
QUIET_FACTOR: Final = 10


@dataclass(slots=True)
class Done:
    """What was done to an asset since its last report.

    Attributes:
        records: handled.
        since: when counting began; on the monotonic clock.
        missed: a report of it has failed.
    """

    records: int = 0
    since: float = 0.0
    missed: bool = False


def topic_asset(topic: str, prefix: str) -> str:
    return f"kafka/{_word(topic.removeprefix(prefix))}"


def table_asset(table: str) -> str:
    return f"postgres/{_word(table)}"


def producer_asset(topic: str, prefix: str) -> str:
    return f"producer/{_word(topic.removeprefix(prefix))}"


def _word(name: str) -> str:
    # As streamflow_dagster.catalog.word does; workers do not import that.
    return re.sub(r"[^A-Za-z0-9_]", "_", name)


class Ledger:
    """Counts, and says what is due. Pure: the clock is handed in.

    Args:
        interval: seconds between two reports of one asset.
    """

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._done: dict[str, Done] = {}
        self._reported_at: dict[str, float] = {}

    def note(self, asset: str, records: int, now: float) -> None:
        """Adds records, also none: the worker has looked and works."""
        done = self._done.setdefault(asset, Done(since=now))
        done.records += records

    def take_due(self, now: float) -> dict[str, Done]:
        """What is to be reported now. It counts as reported; `give_back` what was not."""
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
    """Sends what is due from a thread of its own. Use as a context manager.

    Args:
        url: of Dagster's webserver; None for no reports at all.
        interval: seconds between two reports of one asset.
        worker: who reports.
    """

    def __init__(self, url: str | None, interval: float, worker: str) -> None:
        self._url = url.rstrip("/") if url else None
        self._worker = worker
        self._pause = min(1.0, interval / 10)
        self._ledger = Ledger(interval)
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._heard = True
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
        # Not waited for: what is on its way arrives or does not.
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
            requests.post(url, json=body, timeout=TIMEOUT).raise_for_status()
        except requests.RequestException as error:
            self._say(heard=False, why=str(cause_of(error)))
            return False
        self._say(heard=True)
        return True

    def _say(self, *, heard: bool, why: str = "") -> None:
        """Logs once that Dagster does not answer, and once that it does again."""
        if heard != self._heard:
            self._heard = heard
            if heard:
                log.info("dagster listens again")
            else:
                log.warning("dagster does not listen", why=why, url=self._url)
