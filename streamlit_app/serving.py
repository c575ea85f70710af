"""The running server: poller, series, alerts and tail, shared by all sessions.

Streamlit reruns a page's script for every session and hands it nothing, so pages call `serving()`. It
is opened before the first session and closed after the last.
"""

import gc
import threading
import time
from collections.abc import Sequence
from itertools import chain
from typing import Any, Final

import structlog

from streamflow.alerting.book import Alert, AlertBook
from streamflow.alerting.rules import Thresholds
from streamflow.dead_letters.repairs import Repair, known_repairs
from streamflow.errors import ConfigurationError
from streamflow.lag.measure import LagReader
from streamflow.registry import hasher_for, load_streams
from streamflow.settings.dashboard import DashboardSettings, load_dashboard_settings
from streamflow.stream import Stream
from streamlit_app.alerting.watch import Watch
from streamlit_app.alerting.webhook import Webhook
from streamlit_app.measure.dagster import Dagster
from streamlit_app.measure.demand import Demand
from streamlit_app.measure.poller import Poller, PollJob
from streamlit_app.measure.postgres import PostgresSource
from streamlit_app.measure.probe import Probe
from streamlit_app.measure.rates import Recorder
from streamlit_app.measure.ring_buffers import Store
from streamlit_app.measure.stack import StackSource
from streamlit_app.measure.workers import WorkersSource
from streamlit_app.memory import Memory
from streamlit_app.records.tail import Search, Tail

log = structlog.get_logger()

_REFRESH: Final = 5.0  # seconds between two reads of topics and group members
_KEPT_EVERY: Final = 30.0  # seconds; what a crash may cost of the charts

# Of the web server's thread pool, which grows to 40 and shrinks when idle.
_POOLED: Final = "AnyIO worker thread"


class Serving:
    """The parts that sessions share; starts nothing yet.

    Attributes:
        topics: of all streams, each once, events first.
        repairs: those that a replay can apply, by name.
        repairs_fault: why no repair can be offered; empty if there is nothing wrong.

    Raises:
        ConfigurationError: a stream or a setting is wrong.
    """

    def __init__(self, settings: DashboardSettings) -> None:
        self.settings = settings
        self.streams = load_streams(settings)
        self.topics = _topics(self.streams)
        self.hasher = hasher_for(settings, self.streams)
        self.repairs, self.repairs_fault = _repairs(settings)
        self.store = Store()
        self.recorder = Recorder(self.store)
        self.webhook = Webhook(settings.webhook_url)
        book, thresholds = AlertBook(settings.alert_for), Thresholds.of(settings)
        self.watch = Watch(self.streams, self.recorder, book, thresholds)
        self.memory = Memory(settings.state_dir / "dashboard" / "memory.sqlite", self.store, book)
        self.demand = Demand()
        self.tail = Tail(settings, self.hasher)
        self.search = Search(settings, self.hasher)
        self.dagster = Dagster(settings.dagster, settings.dagster_for_people)
        self.poller = Poller(self._jobs())

    def _jobs(self) -> list[PollJob[Any]]:
        settings, recorder = self.settings, self.recorder
        interval = settings.dashboard_interval
        kafka = LagReader(settings, self.streams, refresh=_REFRESH)
        postgres = PostgresSource(settings, self.streams)
        workers = WorkersSource(settings.workers)
        jobs: list[PollJob[Any]] = [
            PollJob("kafka", "Kafka", interval, kafka, recorder.take_kafka, kafka.close),
            PollJob(
                "postgres", "PostgreSQL", interval, postgres, recorder.take_postgres, postgres.close
            ),
            PollJob("workers", "the workers' /metrics", 2 * interval, workers),
            PollJob("stack", "the supervisor", interval, StackSource(settings)),
            PollJob("memory", self.memory.name, _KEPT_EVERY, self.memory, close=self.memory),
            PollJob("alerts", "the alert rules", interval, self._evaluate_alerts),
        ]
        if settings.probes:
            probe = Probe(settings)
            jobs.append(
                PollJob(
                    "probe", "end-to-end probe", interval, probe, recorder.take_probe, probe.close
                )
            )
        return jobs

    def _evaluate_alerts(self) -> list[Alert]:
        for alert in self.watch.evaluate(self.poller.readings(), time.time()):
            log.warning("alert", state=str(alert.state), text=alert.condition.text)
            self.webhook.send(alert)
        return self.watch.book.firing()

    def start(self) -> None:
        self.memory.recall()
        self.webhook.start()
        self.poller.start()
        self.demand.start()
        self.tail.start()

    def stop(self) -> None:
        self.poller.stop()
        self.demand.stop()
        self.tail.stop()
        self.webhook.stop()

    def state(self) -> tuple[bool, dict[str, Any]]:
        """Readiness, and the state of each source, for ``/readyz``."""
        now = time.time()
        ready = self.poller.running and self.demand.running
        return ready, {
            "ready": ready,
            "reason": "" if ready else "a thread of the poller has ended: see the log",
            "sources": {
                name: {
                    "trouble": reading.trouble(now),
                    "measured_at": reading.measured_at,
                    "seconds": round(reading.seconds, 4),
                }
                for name, reading in self.poller.readings().items()
            },
            "threads": sum(thread.name != _POOLED for thread in threading.enumerate()),
            "looked_at": self.demand.subscriptions,
        }


def _topics(streams: Sequence[Stream]) -> list[str]:
    by_kind = zip(*(stream.topic_names for stream in streams), strict=True)
    return list(dict.fromkeys(chain.from_iterable(by_kind)))


def _repairs(settings: DashboardSettings) -> tuple[dict[str, Repair], str]:
    """The repairs, and what is wrong with the modules that they come from: no reason not to start."""
    try:
        return known_repairs(settings), ""
    except ConfigurationError as error:
        return {}, str(error)


def freeze_modules() -> None:
    """Streamlit collects garbage after every run of a script. Imported modules never become garbage: frozen,
    they are not walked each time (ten sessions: 12 % of a core instead of 94 %)."""
    gc.collect()
    gc.freeze()


class _Holder:
    """Holds the one `Serving` of this process."""

    def __init__(self) -> None:
        self._serving: Serving | None = None

    def open(self) -> Serving:
        serving = Serving(load_dashboard_settings())
        serving.start()
        freeze_modules()
        self._serving = serving
        return serving

    def close(self) -> None:
        if self._serving is not None:
            self._serving.stop()
            self._serving = None

    def __call__(self) -> Serving:
        """The running server.

        Raises:
            RuntimeError: the script was started without the server around it.
        """
        if self._serving is None:
            raise RuntimeError("start the dashboard with `streamflow dashboard`")
        return self._serving


serving = _Holder()
