"""PostgreSQL over TLS: what proves to be the right server is used, anything else is one clear line."""

from collections.abc import Iterator

import psycopg
import pytest

from pipeline import WorkerProcess, streamflow
from postgres_tls import TlsProxy
from services import DatabaseService
from streamflow.errors import ConfigurationError
from streamflow.postgres.connections import session
from streamflow.settings import Settings
from streamflow_stack.doctor import Mark, _database

pytestmark = pytest.mark.integration

VERIFIED = "sslmode=verify-full&sslrootcert={ca}"


@pytest.fixture(scope="module")
def proxy(
    database_server: DatabaseService, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TlsProxy]:
    with TlsProxy(database_server.port, tmp_path_factory.mktemp("tls")) as made:
        yield made


def through(proxy: TlsProxy, url: str, query: str, host: str = "127.0.0.1") -> str:
    start, _, database = url.rpartition("/")
    who = start.rpartition("@")[0]
    return f"{who}@{host}:{proxy.port}/{database}?{query.format(ca=proxy.ca, other=proxy.other_ca)}"


@pytest.mark.parametrize(
    ("host", "query", "reason"),
    [
        ("127.0.0.1", "sslmode=verify-full&sslrootcert={other}", "certificate verify failed"),
        ("localhost", VERIFIED, 'does not match host name "localhost"'),
        ("127.0.0.1", "sslmode=disable", "no encryption"),
        ("127.0.0.1", "sslmode=verify-full&sslrootcert=/nowhere.pem", "does not exist"),
        ("127.0.0.1", "sslmode=unknown", "invalid sslmode value"),
    ],
)
def test_what_is_not_the_right_server_is_one_line(
    proxy: TlsProxy, database_server: DatabaseService, host: str, query: str, reason: str
) -> None:
    settings = Settings(DATABASE_URL=through(proxy, database_server.url, query, host))
    with pytest.raises(ConfigurationError) as refused, session(settings, "test"):
        pass
    [found] = _database(settings, running=False)
    assert found.mark is Mark.BAD
    for line in (str(refused.value), found.text):
        assert reason in line
        assert "sslrootcert in DATABASE_URL" in line
        assert "\n" not in line


def test_a_server_without_tls_is_refused_where_it_is_required(
    database_server: DatabaseService,
) -> None:
    settings = Settings(DATABASE_URL=f"{database_server.url}?sslmode=require")
    with (
        pytest.raises(ConfigurationError, match="does not support SSL"),
        session(settings, "test"),
    ):
        pass


def test_each_command_and_worker_verifies(proxy: TlsProxy, stack_settings: Settings) -> None:
    url = stack_settings.database
    right = stack_settings.model_copy(
        update={"database_url": Settings(DATABASE_URL=through(proxy, url, VERIFIED)).database_url}
    )
    wrong = right.model_copy(
        update={
            "database_url": Settings(
                DATABASE_URL=through(proxy, url, "sslmode=verify-full&sslrootcert={other}")
            ).database_url
        }
    )
    log = stack_settings.state_dir.parent / "loader.log"
    password = psycopg.conninfo.conninfo_to_dict(url)["password"]
    loader = WorkerProcess(right, "loader", log, "--instance", "0")
    refused = WorkerProcess(wrong, "loader", log.with_name("refused.log"), "--instance", "1")
    loader.wait_assigned()
    with psycopg.connect(right.database) as connection:
        assert connection.pgconn.ssl_in_use
    assert loader.stop() == 0
    assert refused.process.wait(60) == 1
    done = streamflow(wrong, "db", "upgrade")
    assert done.returncode == 1
    said = [done.stderr.strip(), refused.log.read_text().strip()]
    for text in said:
        assert "certificate verify failed" in text
        assert "Traceback" not in text
        assert str(password) not in text
    assert "\n" not in said[0]
