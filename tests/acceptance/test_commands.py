"""The commands that ask and arrange: topics, db, audit, worker; exit codes and messages."""

import json
import socket
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from confluent_kafka.admin import NewPartitions
from typer.testing import CliRunner

from faults import free_ports, wait_until
from pipeline import events, produce, streamflow, workers
from streamflow.kafka.clients import admin
from streamflow.settings import Settings
from streamflow_cli.app import app

pytestmark = pytest.mark.acceptance


def test_every_command_has_help_with_an_example() -> None:
    runner = CliRunner(env={"COLUMNS": "160"})
    top = runner.invoke(app, ["--help"]).stdout
    for command in (
        ("up",),
        ("down",),
        ("status",),
        ("env",),
        ("doctor",),
        ("produce",),
        ("worker",),
        ("topics",),
        ("audit",),
        ("forget",),
        ("db", "upgrade"),
        ("db", "roles"),
        ("bench",),
    ):
        assert command[0] in top
        done = runner.invoke(app, [*command, "--help"])
        assert done.exit_code == 0
        assert f"Example: streamflow {' '.join(command)}" in " ".join(done.stdout.split()).replace(
            'eval "$(', ""
        ), command


def test_topics_are_shown_made_and_watched(
    settings: Callable[..., Settings], database_url: str
) -> None:
    made = settings(DATABASE_URL=database_url)
    before = streamflow(made, "topics")
    assert before.returncode == 1
    assert "topics --apply" in before.stderr

    applied = streamflow(made, "topics", "--apply", "--json")
    assert applied.returncode == 0, applied.stderr
    found = {each["topic"].removeprefix(made.prefix): each for each in json.loads(applied.stdout)}
    assert found.pop("streamflow-positions")["partitions"] == 1
    assert set(found) == {"user-events", "analytics", "notifications", "dead-letter-topic"}
    assert {each["partitions"] for each in found.values()} == {3}
    assert found["user-events"]["config"]["retention.ms"] == str(168 * 3_600_000)

    topic = made.prefix + "analytics"
    client = admin(made)
    client.create_partitions([NewPartitions(topic, 5)])[topic].result(20)
    # The controller has answered; the broker's metadata may be behind it.
    wait_until(lambda: len(client.list_topics(topic, 10).topics[topic].partitions) == 5, 20)
    # Workers read all partitions, and Kafka removes none: a warning.
    for arguments in (("topics",), ("topics", "--apply")):
        warned = streamflow(made, *arguments)
        assert warned.returncode == 0
        assert f"topic {topic} has 5 partitions, 3 are declared" in warned.stderr
        assert len(warned.stderr.splitlines()) == 1


def test_the_schema_is_made_once(settings_without_topics: Settings, database_url: str) -> None:
    for _ in range(2):
        done = streamflow(settings_without_topics, "db", "upgrade", DATABASE_URL=database_url)
        assert (done.returncode, done.stdout) == (0, "the schema is up to date\n")


def test_an_audit_says_yes_or_no(stack_settings: Settings, tmp_path: Path) -> None:
    produce(stack_settings, "user-events", events(100)[0])
    early = streamflow(stack_settings, "audit", "--wait", "0", "--json")
    assert early.returncode == 1
    said = json.loads(early.stdout)
    assert (said["verdict"], said["problems"]) == ("not_yet", [])
    assert {(each["worker"], each["records"]) for each in said["pending"]} == {
        (worker, 100) for worker in ("validator", "analytics", "loader")
    }

    with workers(stack_settings, tmp_path):
        good = streamflow(stack_settings, "audit")
    assert good.returncode == 0, good.stdout
    assert "The ledger closes" in good.stdout

    with psycopg.connect(stack_settings.database) as connection:
        connection.execute("DELETE FROM notifications WHERE record_offset = 0")
    bad = streamflow(stack_settings, "audit", "--wait", "0")
    assert bad.returncode == 1
    assert "notifications[0] offset 0: not accounted for" in bad.stdout


def test_a_database_that_is_not_there_is_one_line(settings_without_topics: Settings) -> None:
    [port] = free_ports(1)
    url = f"postgresql://u:hidden@127.0.0.1:{port}/d"
    done = streamflow(settings_without_topics, "db", "upgrade", DATABASE_URL=url)
    assert done.returncode == 1
    assert done.stderr.startswith("error: the database does not answer")
    assert len(done.stderr.splitlines()) == 1
    assert "hidden" not in done.stderr


COMMANDS = (
    ("db", "upgrade"),
    ("init",),
    ("audit", "--wait", "0"),
    ("dlq", "list"),
    ("forget", "--user", "ann"),
    ("status",),
    ("doctor",),
    ("worker", "loader"),
    ("up", "--without", "kafka"),
    ("dagster",),
)


WRONG_URLS = (
    "postgresql://u:hid%den@127.0.0.1:1/d",
    "postgresql://u:hid%%den@127.0.0.1:1/d",
    "postgresql://u:hid den@127.0.0.1:1/d",
    "postgresql://u:hid@den@127.0.0.1:1/d",
    "postgresql://u:hid/den@127.0.0.1:1/d",
    "mysql://u:hidden@127.0.0.1:1/d",
    "hidden",
)


@pytest.mark.parametrize(
    ("command", "url"),
    [(command, WRONG_URLS[0]) for command in COMMANDS] + [(("init",), url) for url in WRONG_URLS],
)
def test_a_database_url_that_is_wrong_is_named_and_not_told(
    command: tuple[str, ...], url: str, settings_without_topics: Settings
) -> None:
    done = streamflow(settings_without_topics, *command, DATABASE_URL=url)
    assert done.returncode == 1
    assert done.stderr.startswith("error: settings are wrong: DATABASE_URL: ")
    assert len(done.stderr.splitlines()) == 1
    assert "hid" not in done.stdout + done.stderr
    assert "den" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    "command", [("init", "--wait", "1"), ("doctor",), ("dlq", "list"), ("status",)]
)
@pytest.mark.parametrize("parameter", ["hidden=1", "port=hidden"])
def test_what_libpq_refuses_in_a_database_url_is_not_told(
    parameter: str, command: tuple[str, ...], settings_without_topics: Settings
) -> None:
    url = f"postgresql://u:secr3t@127.0.0.1:1/d?{parameter}"
    done = streamflow(settings_without_topics, *command, DATABASE_URL=url)
    assert "secr3t" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("scheme", ["postgres", "postgresql+psycopg2"])
def test_a_database_url_may_name_a_driver(
    scheme: str, settings_without_topics: Settings, database_url: str
) -> None:
    url = database_url.replace("postgresql", scheme, 1)
    for command in (("db", "upgrade"), ("dlq", "list"), ("doctor",)):
        done = streamflow(settings_without_topics, *command, DATABASE_URL=url)
        assert done.returncode == 0 or command == ("doctor",), done.stderr
        assert "does not answer" not in done.stdout + done.stderr


def test_a_wrong_setting_is_one_line(settings_without_topics: Settings) -> None:
    done = streamflow(settings_without_topics, "topics", STREAMFLOW_PORT_OFFSET="many")
    assert done.returncode == 1
    assert done.stderr.startswith("error: settings are wrong: STREAMFLOW_PORT_OFFSET")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("worker", "nobody"), ": 'nobody' is not one of 'validator'"),
        (("worker",), "Missing argument 'name'"),
        (("nothing",), "No such command 'nothing'"),
        (("db",), "Missing command"),
        (("produce", "--frum", "x"), "No such option: --frum"),
        (("audit", "--wait"), "requires an argument"),
    ],
)
def test_wrong_usage_is_one_line(
    arguments: tuple[str, ...], says: str, settings_without_topics: Settings
) -> None:
    done = streamflow(settings_without_topics, *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert says in done.stderr
    assert "--help" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_no_arguments_are_answered_with_help(settings_without_topics: Settings) -> None:
    done = streamflow(settings_without_topics)
    assert done.returncode == 2
    assert "Start with: streamflow up" in done.stdout


def test_a_worker_whose_port_is_taken_says_so(stack_settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = streamflow(stack_settings, "worker", "validator", "--health-port", port)
    assert done.returncode == 1
    assert f"port {port} for health and metrics cannot be used" in done.stderr
