"""One broker and one database per test session, in a temporary folder, on free ports.

`stack_settings` gives a test its own topics (by a prefix) and its own database (a clone of a
template that has the schema), so that tests share processes and nothing else.
"""

import os
import re
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest

from kept_counts import require_exact_kinds, require_exact_rows
from services import BrokerService, DatabaseService
from streamflow.settings import Settings

if TYPE_CHECKING:
    from loads import Load
    from streamflow.postgres.connections import Connection

TEMPLATE = "streamflow_template"

# How long an example takes says more about the machine than about the product.
hypothesis.settings.register_profile(
    "shared machine",
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("shared machine")

SettingsFactory = Callable[..., Settings]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take long first: xdist hands files out in this order, and short ones at the end keep
    all processes busy until then."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    units = Path(__file__).parent / "unit"

    def rank(item: pytest.Item) -> int:
        return 0 if item.path in slow else 2 if item.path.is_relative_to(units) else 1

    items.sort(key=rank)


@pytest.fixture(autouse=True, scope="session")
def _clean_environment() -> Iterator[None]:
    """What the developer has set for a stack of their own must not reach the tests."""
    kept = {"STREAMFLOW_CACHE_DIR", "STREAMFLOW_MAVEN_MIRROR"}
    patch = pytest.MonkeyPatch()
    for name in list(os.environ):
        foreign = name.startswith("STREAMFLOW_") or name in {
            "KAFKA_BOOTSTRAP_SERVERS",
            "DATABASE_URL",
            "OPENLINEAGE_URL",
        }
        if foreign and name not in kept:
            patch.delenv(name)
    yield
    patch.undo()


@pytest.fixture(scope="session")
def broker(_clean_environment: None, streamflow_broker: BrokerService) -> BrokerService:
    """The session's broker. A test that kills it starts it again."""
    return streamflow_broker


@pytest.fixture
def own_broker(tmp_path: Path, _clean_environment: None) -> Iterator[BrokerService]:
    """A broker of this test's own, to be stopped, killed and robbed of records."""
    service = BrokerService(tmp_path / "broker")
    service.start()
    yield service
    service.stop()


@pytest.fixture(scope="session")
def database_server(
    _clean_environment: None, streamflow_database: DatabaseService
) -> DatabaseService:
    """The session's database server. A test that kills it starts it again."""
    return streamflow_database


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> str:
    """A word of this test's own, for topics, groups and databases."""
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[:30]
    return f"{name}-{uuid.uuid4().hex[:6]}."


@pytest.fixture
def settings(
    broker: BrokerService, database_server: DatabaseService, prefix: str, tmp_path: Path
) -> SettingsFactory:
    """Makes settings for the session's broker and database; keyword arguments change them."""

    def make(**changes: Any) -> Settings:
        values: dict[str, Any] = {
            "KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap,
            "DATABASE_URL": database_server.url,
            "STREAMFLOW_PREFIX": prefix,
            "STREAMFLOW_STATE_DIR": tmp_path / "state",
            "STREAMFLOW_STREAMS": "quick_windows:USER_EVENTS",
        }
        return Settings(**(values | changes))

    return make


@pytest.fixture(scope="session")
def database_template(database_server: DatabaseService) -> str:
    """The name of a database with the schema in it and nobody connected to it."""
    from streamflow.postgres.schema import upgrade
    from streamflow.registry import load_streams

    found = Settings(DATABASE_URL=database_server.create_database(TEMPLATE))
    upgrade(found, load_streams(found))
    return TEMPLATE


@pytest.fixture
def database_url(
    database_server: DatabaseService, database_template: str, prefix: str
) -> Iterator[str]:
    """A database of this test's own, with the schema. Whatever the test does, counts of dead letters and of
    duplicates are right after it."""
    name = re.sub(r"[^a-z0-9]+", "_", prefix).strip("_")
    url = database_server.create_database(name, database_template)
    yield url
    require_exact_kinds(url)
    database_server.drop_database(name)


@pytest.fixture
def exact_row_counts(database_url: str) -> Iterator[None]:
    """After the test, the kept counts of rows are right, too."""
    yield
    require_exact_rows(database_url)


@pytest.fixture
def database(database_url: str) -> Settings:
    """Settings of that database, without a broker."""
    return Settings(DATABASE_URL=database_url)


@pytest.fixture
def connection(database: Settings) -> "Iterator[Connection]":
    from streamflow.postgres.connections import session

    with session(database, "test") as made:
        yield made


@pytest.fixture
def load(database: Settings) -> "Iterator[Load]":
    """A loader and its sink for that database."""
    from loads import Load

    made = Load(database)
    yield made
    made.sink.close()


@pytest.fixture
def settings_without_topics(settings: SettingsFactory) -> Settings:
    """Settings under which nothing was provisioned: no topic, no schema."""
    return settings()


@pytest.fixture
def stack_settings(settings: SettingsFactory, database_url: str) -> Iterator[Settings]:
    """Settings with topics and a database of this test's own, both in place."""
    from pipeline import topics_of

    made = settings(DATABASE_URL=database_url)
    with topics_of(made):
        yield made
