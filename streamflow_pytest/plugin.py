"""The fixtures `kafka`, `postgres` and `streamflow_stack`. docs/testing.md describes them.

pytest loads this module in every project where StreamFlow is installed, so it imports nothing else.
"""

import re
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest

if TYPE_CHECKING:
    from streamflow_pytest.kafka import Kafka
    from streamflow_pytest.services import BrokerService, DatabaseService
    from streamflow_pytest.stack import StackUnderTest


class StackFactory(Protocol):
    """What the fixture `streamflow_stack` is."""

    def __call__(self, *streams: str, **settings: str) -> "StackUnderTest":
        """Starts the workers of streams.

        Args:
            streams: as ``module:NAME``; without any, those of the project's settings.
            settings: others, by their variables.
        """
        ...


@pytest.fixture(scope="session")
def streamflow_broker(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[BrokerService]":
    """The session's Kafka."""
    _require_embedded()
    from streamflow_pytest.services import BrokerService  # noqa: PLC0415 (see above)

    service = BrokerService(tmp_path_factory.mktemp("streamflow-broker"))
    service.start()
    yield service
    service.stop()


@pytest.fixture(scope="session")
def streamflow_database(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[DatabaseService]":
    """The session's PostgreSQL."""
    _require_embedded()
    from streamflow_pytest.services import DatabaseService  # noqa: PLC0415 (see above)

    service = DatabaseService(tmp_path_factory.mktemp("streamflow-database"))
    service.start()
    yield service
    service.stop()


@pytest.fixture
def kafka(streamflow_broker: "BrokerService", request: pytest.FixtureRequest) -> "Iterator[Kafka]":
    """The session's Kafka, with a prefix for names of this test's own. Topics that begin with it are
    deleted after the test."""
    from streamflow_pytest.kafka import Kafka  # noqa: PLC0415 (see above)

    own = Kafka(streamflow_broker.bootstrap, f"{_word(request)}-")
    yield own
    own.delete_topics()


@pytest.fixture
def postgres(
    streamflow_database: "DatabaseService", request: pytest.FixtureRequest
) -> Iterator[str]:
    """The URL of a new, empty database, which is dropped after the test."""
    name = _word(request).replace("-", "_")
    yield streamflow_database.create_database(name)
    streamflow_database.drop_database(name)


@pytest.fixture
def streamflow_stack(kafka: "Kafka", postgres: str, tmp_path: Path) -> Iterator[StackFactory]:
    """Starts workers of streams against the session's servers. They end with the test."""
    from streamflow_pytest.stack import StackUnderTest, stack_settings  # noqa: PLC0415 (see above)

    with ExitStack() as running:

        def start(*streams: str, **settings: str) -> StackUnderTest:
            made = stack_settings(kafka, postgres, tmp_path, ",".join(streams), settings)
            stack = StackUnderTest(made[0], tmp_path / "streamflow", made[1])
            return running.enter_context(stack.running())

        yield start


def _require_embedded() -> None:
    from streamflow import extras  # noqa: PLC0415 (see above)

    extras.require("embedded", "a broker or database in a test")


def _word(request: pytest.FixtureRequest) -> str:
    """Of this test's own, for names in Kafka and PostgreSQL."""
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[:30]
    return f"{name}-{uuid.uuid4().hex[:6]}"
