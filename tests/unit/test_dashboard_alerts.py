"""The dashboard's alerts: which facts it takes from its readings."""

from lags import THRESHOLDS
from streamflow.alerting.book import AlertBook
from streamlit_app.alerting.watch import Watch
from streamlit_app.measure.rates import Recorder
from streamlit_app.measure.readings import Reading
from streamlit_app.measure.ring_buffers import Store
from streamlit_app.measure.stack import PartStatus
from streamlit_app.measure.workers import WorkerState


def test_a_worker_that_answered_once_is_expected_to_go_on_unless_it_is_left_out() -> None:
    watch = Watch((), Recorder(Store()), AlertBook(hold=0), THRESHOLDS)

    def look(now: float, off: str = "", **answers: bool) -> list[str]:
        states = {
            name: WorkerState(name=name, answers=each, ready=each, reason="timed out")
            for name, each in answers.items()
        }
        parts = tuple(PartStatus(off, "off", 0, "") for _ in off[:1])
        readings = {
            "kafka": Reading[object]("Kafka", 1.0),
            "postgres": Reading[object]("PostgreSQL", 1.0),
            "workers": Reading[object]("workers", 1.0).succeeded(states, now, 0.01),
            "stack": Reading[object]("stack", 1.0).succeeded(parts, now, 0.01),
        }
        return [alert.condition.text for alert in watch.evaluate(readings, now)]

    assert look(1.0, loader=True, bridge=False) == []
    assert watch.expected == {"loader"}
    assert look(2.0, loader=False, bridge=False) == ["loader is down: timed out"]
    assert watch.expected == {"loader"}
    look(3.0, off="loader", loader=False, bridge=True)
    assert watch.expected == {"bridge"}
    look(4.0, off="loader", loader=True, bridge=True)
    assert watch.expected == {"bridge", "loader"}
