"""Kafka with TLS, SCRAM and ACLs: each part works with the rights that `streamflow acls` prints for it, as a
user of its own, and with no others."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import requests
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from faults import free_ports, wait_until
from pipeline import WorkerProcess, audit, event, events, produce, streamflow
from services import SecuredBrokerService
from streamflow.errors import ConfigurationError, Unavailable
from streamflow.kafka import clients
from streamflow.kafka.acls import Right, least_rights
from streamflow.kafka.topics import provision
from streamflow.registry import load_streams
from streamflow.settings import Settings
from streamlit_app.measure.probe import Probe

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture
def secured(tmp_path: Path, _clean_environment: None) -> Iterator[SecuredBrokerService]:
    service = SecuredBrokerService(tmp_path / "broker")
    service.start()
    with service.tokens:
        yield service
    service.stop()


def composed(rights: list[Right]) -> list[Right]:
    """With those that some parts need of others', as the docs say."""
    of_reader = [right for right in rights if right.part == "reader"]
    more = [right._replace(part=part) for part in ("replay", "dashboard") for right in of_reader]
    return rights + more


def assert_enters_by_token(secured: SecuredBrokerService, common: dict[str, Any]) -> None:
    """With a token of its own the reader has its rights; nobody enters with another secret, or with a token
    for another service."""
    given = secured.token_settings("reader")
    assert audit(Settings(**common, **given)).closed
    wrong = given | {"STREAMFLOW_KAFKA_OAUTH_CLIENT_SECRET": "wrong"}
    assert_refused(Settings(**common, **wrong), KafkaError._AUTHENTICATION)
    secured.tokens.audience = "another-service"
    assert_refused(Settings(**common, **given), KafkaError._AUTHENTICATION)


def assert_refused(settings: Settings, code: int) -> None:
    errors: list[KafkaError] = []
    client = AdminClient(
        clients.common_config(settings) | {"error_cb": errors.append, "log_level": 0}
    )

    def refused() -> bool:
        client.poll(0.1)
        return code in [error.code() for error in errors]

    wait_until(refused, 60, f"error {code}")


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
    users = secured.add_users(composed(least_rights(own, streams)))

    def acting_as(part: str, **changes: Any) -> Settings:
        return Settings(**{**common, **users[part], **changes})

    # Nobody enters with a wrong password, or trusts a broker that another authority vouches for.
    wrong = acting_as("reader", STREAMFLOW_KAFKA_SASL_PASSWORD="wrong")
    assert_refused(wrong, KafkaError._AUTHENTICATION)
    untrusted = {name: value for name, value in users["reader"].items() if "SSL_CA" not in name}
    assert_refused(Settings(**common, **untrusted), KafkaError._SSL)

    provision(acting_as("setup"), streams)
    values, _ = events(300, invalid=0.1)
    produce(acting_as("producer"), "user-events", values)
    with pytest.raises((AssertionError, KafkaException, ConfigurationError, Unavailable)):
        produce(acting_as("reader"), "user-events", values[:1])

    [ingest_port] = free_ports(1)
    running = {
        part: WorkerProcess(
            acting_as(part),
            part,
            tmp_path / f"{part}.log",
            *(() if part == "bridge" else ("--instance", "0")),
            **users[part],
            STREAMFLOW_BRIDGE_PORT=str(free_ports(1)[0]),
            STREAMFLOW_INGEST_PORT=str(ingest_port),
        )
        for part in ("validator", "analytics", "loader", "bridge", "ingest")
    }
    try:
        report = audit(acting_as("reader"))
        assert report.closed, report
        done = streamflow(
            acting_as("replay"),
            *("dlq", "replay", "--apply", "--code", "CLEAR_TEXT_PII", "--repair", "hash_address"),
            **users["replay"],
        )
        assert done.returncode == 0, done.stdout + done.stderr
        bridge = running["bridge"]
        wait_until(lambda: bridge.metric("streamflow_records_in_total") > 0, 60, "the bridge")
        url = f"http://127.0.0.1:{ingest_port}/v1/streams/user-events"
        key = {"Idempotency-Key": "k", "Content-Type": "application/json"}
        assert requests.post(url, event(1000), headers=key, timeout=60).status_code == 200
        with closing(Probe(acting_as("dashboard"))) as probe:
            wait_until(lambda: probe_answers(probe), 60, "the probe")
        assert_enters_by_token(secured, common)
    finally:
        stopped = [worker.stop() for worker in running.values()]
    assert stopped == [0] * len(running)
    for worker in running.values():
        assert not worker.said("AUTHORIZATION_FAILED"), worker.log.read_text()


def probe_answers(probe: Probe) -> bool:
    try:
        return probe().round_trip is not None
    except Unavailable:
        return False
