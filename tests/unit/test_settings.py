"""Settings: from the environment, the coordinates of a running stack, defaults."""

import json
from pathlib import Path

import pytest

from streamflow.errors import ConfigurationError
from streamflow.settings import load_settings


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_three_brokers_replicate_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    one = load_settings()
    assert (one.kafka_replication_factor, one.kafka_min_isr) == (1, 1)
    monkeypatch.setenv("STREAMFLOW_BROKERS", "3")
    three = load_settings()
    assert (three.kafka_replication_factor, three.kafka_min_isr) == (3, 2)
    assert three.bootstrap == "127.0.0.1:9092,127.0.0.1:9094,127.0.0.1:9096"
    monkeypatch.setenv("STREAMFLOW_KAFKA_MIN_ISR", "1")
    assert load_settings().kafka_min_isr == 1


def test_a_running_stack_tells_how_many_brokers_it_has(tmp_path: Path) -> None:
    state = tmp_path / ".streamflow"
    state.mkdir()
    coordinates = {"kafka_bootstrap_servers": "b:1", "port_offset": 0, "brokers": 3}
    (state / "stack.json").write_text(json.dumps(coordinates))
    found = load_settings()
    assert (found.bootstrap, found.brokers, found.kafka_min_isr) == ("b:1", 3, 2)


@pytest.mark.parametrize("brokers", ["0", "2", "5"])
def test_other_numbers_of_brokers_are_refused(
    brokers: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMFLOW_BROKERS", brokers)
    with pytest.raises(ConfigurationError, match=r"STREAMFLOW_BROKERS.*is 1, or 3"):
        load_settings()


def test_an_empty_variable_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("STREAMFLOW_PII_KEY", "STREAMFLOW_BRIDGE_TOKEN", "STREAMFLOW_BRIDGE_ORIGINS"):
        monkeypatch.setenv(name, "")
    found = load_settings()
    assert (found.pii_key, found.bridge_token, found.bridge_origins) == (None, None, ())


def test_origins_are_a_list_and_the_port_is_shifted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMFLOW_BRIDGE_ORIGINS", "https://a.example, https://b.example")
    monkeypatch.setenv("STREAMFLOW_PORT_OFFSET", "100")
    found = load_settings()
    assert found.bridge_origins == ("https://a.example", "https://b.example")
    assert found.bridge == 3101
    monkeypatch.setenv("STREAMFLOW_BRIDGE_PORT", "4001")
    assert load_settings().bridge == 4001


def test_a_secret_is_not_in_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMFLOW_BRIDGE_TOKEN", "very secret")
    monkeypatch.setenv("STREAMFLOW_BRIDGE_QUEUE", "none")
    with pytest.raises(ConfigurationError) as caught:
        load_settings()
    assert "STREAMFLOW_BRIDGE_QUEUE" in str(caught.value)
    assert "very secret" not in str(caught.value)
