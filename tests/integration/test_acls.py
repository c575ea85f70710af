"""Kafka with TLS, SCRAM and ACLs: each part works with the rights that `streamflow acls` prints for it, as a
user of its own, and with no others."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaException

from pipeline import WorkerProcess, audit, events, produce
from services import SecuredBrokerService
from streamflow.errors import ConfigurationError, Unavailable
from streamflow.kafka import clients
from streamflow.kafka.acls import least_rights
from streamflow.kafka.topics import provision
from streamflow.registry import load_streams
from streamflow.settings import Settings

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture
def secured(tmp_path: Path, _clean_environment: None) -> Iterator[SecuredBrokerService]:
    service = SecuredBrokerService(tmp_path / "broker")
    service.start()
    yield service
    service.stop()


def test_a_pipeline_under_least_rights(
    secured: SecuredBrokerService, database_url: str, tmp_path: Path
) -> None:
    common: dict[str, Any] = {
        "DATABASE_URL": database_url,
        "STREAMFLOW_PREFIX": "team-",
        "STREAMFLOW_STATE_DIR": tmp_path,
        "STREAMFLOW_STREAMS": "quick_windows:USER_EVENTS",
    }
    own = Settings(**common)
    streams = load_streams(own)
    users = secured.add_users(least_rights(own, streams))

    def acting_as(part: str, **changes: Any) -> Settings:
        return Settings(**{**common, **users[part], **changes})

    # Nobody enters with a wrong password, or trusts a broker that another authority vouches for.
    wrong = acting_as("reader", STREAMFLOW_KAFKA_SASL_PASSWORD="wrong")
    with pytest.raises(KafkaException, match=r"_AUTHENTICATION|_TRANSPORT|_ALL_BROKERS_DOWN"):
        clients.admin(wrong).list_topics(timeout=5)
    untrusted = {name: value for name, value in users["reader"].items() if "SSL_CA" not in name}
    with pytest.raises(KafkaException):
        clients.admin(Settings(**common, **untrusted)).list_topics(timeout=5)

    provision(acting_as("setup"), streams)
    values, _ = events(300, invalid=0.1)
    produce(acting_as("producer"), "user-events", values)
    with pytest.raises((AssertionError, KafkaException, ConfigurationError, Unavailable)):
        produce(acting_as("reader"), "user-events", values[:1])

    running = [
        WorkerProcess(
            acting_as(part), part, tmp_path / f"{part}.log", "--instance", "0", **users[part]
        )
        for part in ("validator", "analytics", "loader")
    ]
    try:
        report = audit(acting_as("reader"))
        assert report.closed, report
    finally:
        stopped = [worker.stop() for worker in running]
    assert stopped == [0, 0, 0]
    for worker in running:
        assert not worker.said("AUTHORIZATION_FAILED"), worker.log.read_text()
