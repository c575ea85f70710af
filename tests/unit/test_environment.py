"""What of the environment reaches our own servers and connections, and what does not."""

import json
import os
from pathlib import Path

import pytest

from streamflow.settings import load_process_settings, load_settings
from streamflow.settings.environment import OWN_ADDRESSES, marked
from streamflow_stack import embedded
from streamflow_stack.broker import Broker, Node
from streamflow_stack.process import environment_of

URL = "postgresql://u:secret@127.0.0.1:5432/streamflow"
PROXY = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def _environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of this test's own, and variables that are put back after it."""
    monkeypatch.chdir(tmp_path)
    for name in (*(f"{word}_proxy" for word in ("no", "no_grpc", "http", "https", "all")), *_PG):
        for spelled in {name, name.upper()}:
            monkeypatch.setenv(spelled, "")
            monkeypatch.delenv(spelled)


_PG = ("PGSSLMODE", "PGSERVICE", "PGHOSTADDR", "PGOPTIONS", "PGCONNECT_TIMEOUT", "PGDATA")


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"HTTP_PROXY": PROXY}, "127.0.0.1,localhost,::1,10.0.0.7"),
        ({"https_proxy": PROXY, "NO_PROXY": "corp"}, "corp,127.0.0.1,localhost,::1,10.0.0.7"),
        ({"ALL_PROXY": PROXY, "no_proxy": "localhost, a"}, "localhost,a,127.0.0.1,::1,10.0.0.7"),
        ({"HTTP_PROXY": PROXY, "NO_PROXY": "*"}, None),
        ({}, None),
    ],
)
def test_our_own_addresses_are_asked_past_a_proxy(
    variables: dict[str, str], expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    load_process_settings(STREAMFLOW_HOST="10.0.0.7")
    load_process_settings(STREAMFLOW_HOST="10.0.0.7")
    found = [os.environ.get(name) for name in ("no_proxy", "NO_PROXY")]
    assert found == [expected] * 2 or expected is None
    assert "no_grpc_proxy" not in os.environ
    if expected is None:
        assert os.environ.get("NO_PROXY") == variables.get("NO_PROXY")


def test_what_grpc_reads_first_also_has_our_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", PROXY)
    monkeypatch.setenv("no_grpc_proxy", "corp")
    load_process_settings()
    assert dict(os.environ)["no_grpc_proxy"] == "corp,127.0.0.1,localhost,::1"


@pytest.mark.parametrize(
    ("given", "stack", "stays"),
    [
        (None, None, False),
        (None, {"database_url": URL, "database_embedded": True}, False),
        (URL, {"database_url": URL, "database_embedded": True}, False),
        # The stack uses a database of the user's, for which these variables may be meant.
        (None, {"database_url": URL, "database_embedded": False}, True),
        ("postgresql://other/x", {"database_url": URL, "database_embedded": True}, True),
        (URL, None, True),
    ],
)
def test_libpqs_variables_do_not_reach_the_embedded_database(
    *,
    given: str | None,
    stack: dict[str, object] | None,
    stays: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if stack:
        (tmp_path / ".streamflow").mkdir()
        (tmp_path / ".streamflow" / "stack.json").write_text(json.dumps(stack))
    for name in _PG:
        monkeypatch.setenv(name, "unknown")
    monkeypatch.setenv("PGP_KEY", "of another program")
    load_process_settings(**({"DATABASE_URL": given} if given else {}))
    assert [name in os.environ for name in _PG] == [stays] * len(_PG)
    assert "PGP_KEY" in os.environ


def test_addresses_that_the_stack_of_this_folder_printed_end_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    addresses = {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9092", "DATABASE_URL": URL}

    def evaluate(state_dir: Path, **later: str) -> None:
        for name, value in {**marked(state_dir, addresses), **later}.items():
            monkeypatch.setenv(name, value)

    evaluate(tmp_path / ".streamflow")
    assert load_settings().database_url is None
    settings = load_process_settings()
    assert (settings.kafka_bootstrap_servers, settings.database_url) == (None, None)
    assert not addresses.keys() & os.environ.keys()

    # What was set since then, and the addresses of another folder's stack, are meant.
    evaluate(Path(".streamflow"), DATABASE_URL="postgresql://own/x")
    settings = load_process_settings()
    assert (settings.kafka_bootstrap_servers, settings.database) == (None, "postgresql://own/x")
    evaluate(tmp_path / "elsewhere")
    settings = load_process_settings()
    assert (settings.bootstrap, settings.database) == ("127.0.0.1:9092", URL)
    assert URL not in os.environ[OWN_ADDRESSES]


def test_reading_settings_leaves_the_environment_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    addresses = {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9092", "DATABASE_URL": URL}
    variables = {**marked(tmp_path / ".streamflow", addresses), "HTTP_PROXY": PROXY}
    for name, value in {**variables, **dict.fromkeys(_PG, "unknown")}.items():
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    assert load_settings().database_url is None
    assert dict(os.environ) == before


def test_the_embedded_servers_inherit_next_to_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hostile = {
        "LC_ALL": "tr_TR.UTF-8",
        "LANG": "tr_TR.UTF-8",
        "JAVA_TOOL_OPTIONS": "-Duser.language=tr",
        "_JAVA_OPTIONS": "-Xmx1m",
        "PGDATESTYLE": "German",
        "PGPORT": "1",
    }
    for name, value in hostile.items():
        monkeypatch.setenv(name, value)
    found = embedded.environment()
    assert found.items() & hostile.items() == set()
    assert (found["PATH"], found["LC_ALL"]) == (os.environ["PATH"], "C.UTF-8")

    monkeypatch.setattr("streamflow_stack.jars.cached_class_path", lambda: "a.jar")
    folder = tmp_path / "ü, \\ #"
    launch = Broker(Node(1, 2, 3, folder / "kafka" / "1"), folder / "logs" / "kafka.log").launch()
    assert environment_of(launch) == found
    # Java would read a path in its own way: none is in the command.
    assert not [part for part in launch.command if str(tmp_path) in part]
    assert "-Dstreamflow.log=../../logs/kafka.log" in launch.command
