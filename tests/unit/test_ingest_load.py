"""The form of the load that `benchmarks/ingest_load.py` sends and of what it prints."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from streamflow.privacy import Hasher
from streamflow.producer.lines import Accepted, LineReader
from streamflow.streams.user_events import USER_EVENTS
from streaming_workers.ingest.bodies import Incoming, events_of


@pytest.fixture
def load() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "ingest_load.py"
    spec = importlib.util.spec_from_file_location("ingest_load", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Its dataclass is looked up by the name of its module.
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(__import__("sys").modules, "ingest_load", module)
        spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("batch", [1, 10])
def test_what_it_sends_satisfies_the_contract(load: ModuleType, batch: int) -> None:
    events = events_of({"content-type": "application/json"}, load.body_of(5, batch))
    reader = LineReader(USER_EVENTS, Hasher(private_fields=USER_EVENTS.decoder.private_fields))
    assert len(events) == batch
    for event in events:
        assert isinstance(event, Incoming)
        assert isinstance(reader.read(event.document), Accepted)


def test_what_it_prints(load: ModuleType) -> None:
    options = load.parsed(["--batch", "10", "--keys"])
    seen = load.Measured([0.001 * number for number in range(1, 101)], 1000, {429: 3})
    printed = json.loads(json.dumps(load.report(options, seen, 2.0)))
    assert (printed["events_per_second"], printed["requests_per_second"]) == (500, 50)
    assert (printed["p50_ms"], printed["p99_ms"]) == (50.0, 99.0)
    assert printed["other_answers"] == {"429": 3}
    assert load.report(options, load.Measured(), 2.0)["p50_ms"] is None
