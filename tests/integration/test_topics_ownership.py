"""Topics and tables that somebody else made: read, refused or adopted, and never altered."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import orjson
import psycopg
import pytest
from confluent_kafka import TopicCollection
from confluent_kafka.admin import (
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourceType,
)

from faults import wait_until
from loads import execute, rows
from orchestration import Orchestration, orchestrated
from pipeline import WorkerProcess, count, event, produce, streamflow, workers
from services import DatabaseService
from streamflow.check import check
from streamflow.errors import ConfigurationError
from streamflow.kafka.clients import admin
from streamflow.kafka.ownership import Drift
from streamflow.kafka.topics import costs, provision_topics
from streamflow.postgres import schema
from streamflow.postgres.owned_topics import TopicsTable
from streamflow.settings import Settings
from streamflow.streams.user_events import USER_EVENTS
from streamflow_stack.stream_status import read_stream_status

pytestmark = pytest.mark.integration

# What B12 lost: every key's last value, and all of history.
TOPICS = ("user-events", "analytics", "notifications", "dead-letter-topic")
FOREIGN = {"cleanup.policy": "compact", "retention.ms": "-1"}
UNMANAGED = """
from dataclasses import replace

from streamflow.stream_topics import Topics
from streamflow.streams.user_events import USER_EVENTS

THEIRS = replace(USER_EVENTS, topics=Topics(managed=False))
"""


def config_of(settings: Settings, topic: str) -> dict[str, tuple[Any, Any]]:
    """Every setting of a topic, and where it comes from."""
    resource = ConfigResource(ResourceType.TOPIC, topic)
    client = admin(settings)
    found = client.describe_configs([resource])[resource].result(15)
    return {name: (entry.value, entry.source) for name, entry in found.items()}


def topic_id(settings: Settings, topic: str) -> str:
    client = admin(settings)
    described = client.describe_topics(TopicCollection([topic]))
    # As Kafka's own tools write it: the kind of Base64 that is for URLs.
    text = str(described[topic].result(15).topic_id)
    return text.replace("+", "-").replace("/", "_")


def make_topic(settings: Settings, topic: str, config: dict[str, str], partitions: int = 3) -> None:
    new = NewTopic(topic, num_partitions=partitions, replication_factor=1, config=config)
    client = admin(settings)
    client.create_topics([new])[topic].result(15)
    # The controller has answered; the broker's metadata may be behind it.
    wait_until(lambda: topic in client.list_topics(timeout=5).topics, 20)


def delete_topic(settings: Settings, topic: str) -> None:
    client = admin(settings)
    client.delete_topics([topic])[topic].result(15)
    wait_until(lambda: topic not in client.list_topics(timeout=5).topics, 20)


def set_config(settings: Settings, topic: str, name: str, value: str) -> None:
    entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    client = admin(settings)
    client.incremental_alter_configs([resource])[resource].result(15)


def add_partitions(settings: Settings, topic: str, total: int) -> None:
    client = admin(settings)
    client.create_partitions([NewPartitions(topic, total)])[topic].result(15)
    wait_until(lambda: len(client.list_topics(topic, 5).topics[topic].partitions) == total, 20)


def report(settings: Settings, **changes: str) -> dict[str, dict[str, Any]]:
    done = streamflow(settings, "topics", "--json", **changes)
    assert done.stdout, done.stderr
    return {each["topic"]: each for each in orjson.loads(done.stdout)}


@pytest.fixture
def bare(settings_without_topics: Settings, database_server: DatabaseService) -> Iterator[Settings]:
    """No topics, an empty database: what `init` finds on a new cluster."""
    made = settings_without_topics
    name = "".join(letter if letter.isalnum() else "_" for letter in made.prefix).strip("_")
    url = database_server.create_database(name)
    yield Settings(**made.model_dump(by_alias=True, exclude={"streams"}) | {"DATABASE_URL": url})
    client = admin(made)
    topics = [each for each in client.list_topics(timeout=5).topics if each.startswith(made.prefix)]
    for future in (client.delete_topics(topics) if topics else {}).values():
        future.exception(30)
    database_server.drop_database(name)


@contextmanager
def unmanaged(folder: Path) -> Iterator[dict[str, str]]:
    """What makes `user-events` somebody else's topic in a declaration."""
    (folder / "their_streams.py").write_text(UNMANAGED)
    yield {
        "STREAMFLOW_STREAMS": "their_streams:THEIRS",
        "PYTHONPATH": ":".join([str(folder), *sys.path]),
    }


@pytest.fixture
def foreign(bare: Settings) -> str:
    topic = f"{bare.prefix}user-events"
    make_topic(bare, topic, FOREIGN)
    return topic


def assert_refused(text: str, topic: str) -> None:
    assert topic in text
    assert "cleanup.policy is compact, delete is declared" in text
    assert "retention.ms is -1, 604800000 is declared" in text
    assert "Topics(managed=False)" in text
    assert f"streamflow topics --adopt {topic}" in text


def test_a_foreign_topic_is_refused_everywhere_and_stays_as_it_is(
    bare: Settings, foreign: str
) -> None:
    before = config_of(bare, foreign)
    for command in (["init", "--wait", "5"], ["topics", "--apply"]):
        done = streamflow(bare, *command)
        assert config_of(bare, foreign) == before
        assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
        assert_refused(done.stderr, foreign)
    shown = streamflow(bare, "topics")
    assert (shown.returncode, shown.stderr.count("\n")) == (1, 1)
    assert f"did not create {foreign}, and does not alter it" in shown.stderr
    # `check` finds it too, where nothing was ever made.
    [checked] = check(bare)
    [problem] = checked.problems
    assert problem.part == "topic"
    assert_refused(problem.text, foreign)
    assert [plan.action for plan in checked.topics] == ["is refused"] + ["will be created"] * 3
    found = report(bare)[foreign]
    assert found["owner"] == "foreign"
    assert {each["what"] for each in found["drift"]} >= {"cleanup.policy", "retention.ms"}
    assert config_of(bare, foreign) == before


def test_up_is_refused_too(bare: Settings, foreign: str) -> None:
    before = config_of(bare, foreign)
    done = streamflow(bare, "up", "--without", "dagster", STREAMFLOW_PORT_OFFSET="20000")
    assert config_of(bare, foreign) == before
    assert done.returncode == 1, done.stdout
    assert_refused(done.stderr, foreign)


def test_materializing_the_asset_is_refused(bare: Settings, foreign: str) -> None:
    schema.upgrade(bare, [USER_EVENTS])
    before = config_of(bare, foreign)
    with dg.DagsterInstance.ephemeral() as instance:
        one = Orchestration(instance, orchestrated(bare))
        result = one.materialize("kafka/user_events")
        check = one.check("kafka/user_events", "as_declared")
    assert config_of(bare, foreign) == before
    assert not result.success
    [failure] = [event for event in result.all_events if event.is_step_failure]
    assert_refused(failure.step_failure_data.error_display_string, foreign)
    assert not check.passed
    assert "--adopt" in (check.description or "")


def test_status_and_init_name_topics_and_tables(bare: Settings) -> None:
    names = [f"{bare.prefix}{name}" for name in TOPICS]
    up = {"kafka": "up", "postgres": "up"}
    found = read_stream_status(bare, up)
    assert found.failed == [
        f"stream user-events does not run: topic {', '.join(names)} does not exist: run `streamflow init`"
    ]
    assert {*found.rows.values(), *found.lag.values()} == {None}
    assert found.unknown == [
        "lag: nothing was committed yet by notification-group, analytics-group, db-group, websocket-bridge",
        "rows: the database has no events, window_counts, notifications, dead_letters: run `streamflow init`",
    ]
    for word in ("was created", "is there"):
        lines = [f"topic {name} {word}" for name in names] + [f"table events {word}"]
        assert streamflow(bare, "init").stdout.splitlines() == [
            "stream user-events", *(f"  {line}" for line in lines), "topics and schema are in place"
        ]  # fmt: skip
    found = read_stream_status(bare, up)
    assert (found.failed, set(found.rows.values())) == ([], {0})
    execute(bare, "DROP TABLE events")
    found = read_stream_status(bare, up)
    assert found.failed == [
        "stream user-events: the database has no table events: run `streamflow init`"
    ]
    assert (found.rows["events"], found.rows["notifications"]) == (None, 0)
    # Without the database, what Kafka says is shown all the same, and the other way round.
    dark = bare.model_copy(update={"kafka_bootstrap_servers": "127.0.0.1:1"})
    found = read_stream_status(dark, up)
    assert found.failed == [
        "stream user-events: the database has no table events: run `streamflow init`"
    ]
    assert found.rows["notifications"] == 0
    assert found.unknown[0].startswith("lag: ")


def test_what_was_adopted_may_be_altered(bare: Settings, foreign: str) -> None:
    schema.upgrade(bare, [USER_EVENTS])
    adopted = streamflow(bare, "topics", "--adopt", foreign)
    # Adopting alone alters nothing: it differs still.
    assert adopted.returncode == 1, adopted.stderr
    assert config_of(bare, foreign)["cleanup.policy"][0] == "compact"
    assert report(bare)[foreign]["owner"] == "ours"
    # That would remove history: not without a word.
    done = streamflow(bare, "init")
    assert done.returncode == 0, done.stderr
    assert f"warning: topic {foreign}: cleanup.policy stays compact, though delete" in done.stderr
    asked = streamflow(bare, "topics", "--apply")
    assert asked.returncode == 1
    assert (
        f"{foreign}: cleanup.policy compact → delete (the last record of each key" in asked.stderr
    )
    assert f"{foreign}: retention.ms -1 → 604800000 (records older than 7 days" in asked.stderr
    assert "nothing was changed; without a terminal, add --yes" in asked.stderr
    assert config_of(bare, foreign)["cleanup.policy"][0] == "compact"
    applied = streamflow(bare, "topics", "--apply", "--yes")
    assert applied.returncode == 0, applied.stderr
    found = config_of(bare, foreign)
    assert (found["cleanup.policy"][0], found["retention.ms"][0]) == ("delete", "604800000")
    assert rows(bare, "SELECT adopted FROM topics WHERE topic LIKE '%user-events'") == [(True,)]


def test_only_a_declared_topic_that_exists_can_be_adopted(bare: Settings) -> None:
    schema.upgrade(bare, [USER_EVENTS])
    for topic, why in (
        ("nobody-s", "is not declared"),
        (f"{bare.prefix}user-events", "does not exist"),
    ):
        done = streamflow(bare, "topics", "--adopt", topic)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert topic in done.stderr
        assert why in done.stderr
    assert count(bare, "SELECT count(*) FROM topics") == 0


GROWN = """
from dataclasses import replace
from datetime import timedelta
from streamflow.stream_topics import Topics
from streamflow.streams.user_events import USER_EVENTS

GROWN = replace(USER_EVENTS, topics=Topics(partitions=6, retention=timedelta(hours=1)))
"""


def test_what_moves_keys_or_removes_records_is_asked_about(bare: Settings, tmp_path: Path) -> None:
    assert streamflow(bare, "init").returncode == 0
    topic = f"{bare.prefix}user-events"
    produce(bare, "user-events", [event(number) for number in range(5)])
    (tmp_path / "grown_streams.py").write_text(GROWN)
    path = ":".join([str(tmp_path), *sys.path])
    grown = {"STREAMFLOW_STREAMS": "grown_streams:GROWN", "PYTHONPATH": path}
    done = streamflow(bare, "init", **grown)
    assert done.returncode == 0
    assert f"warning: topic {topic}: partitions stays 3, though 6 is declared" in done.stderr
    assert f"warning: topic {topic}: retention.ms stays 604800000" in done.stderr
    assert "streamflow topics --apply" in done.stderr
    # Dagster asks nobody, either.
    specs = USER_EVENTS.prefixed(bare.prefix).topic_specs()
    assert provision_topics(bare, [replace(specs[0], partitions=6)], TopicsTable(bare))

    def partitions() -> int:
        return len(admin(bare).list_topics(topic, 5).topics[topic].partitions)

    assert partitions() == 3
    asked = streamflow(bare, "topics", "--apply", text=b"n\n", **grown)
    assert asked.returncode == 1
    assert f"{topic}: partitions 3 → 6 (about 50 % of the keys move" in asked.stderr
    lost = "(records older than 60 min are removed: 0 offsets now)"
    assert f"{topic}: retention.ms 604800000 → 3600000 {lost}" in asked.stderr
    assert "not confirmed: nothing was changed" in asked.stderr
    assert partitions() == 3
    done = streamflow(bare, "topics", "--apply", "--yes", **grown)
    assert done.returncode == 0, done.stderr
    wait_until(lambda: partitions() == 6, 20)
    assert config_of(bare, topic)["retention.ms"][0] == "3600000"
    # Had an hour passed, all would go.
    drift = Drift(topic, "retention.ms", "-3600000", "604800000")
    assert str(costs(bare, drift)).endswith("are removed: 5 offsets now")


def test_what_we_made_is_ours_until_somebody_recreates_it(bare: Settings) -> None:
    topic = f"{bare.prefix}user-events"
    assert streamflow(bare, "init").returncode == 0
    assert {each["owner"] for each in report(bare).values()} == {"ours"}
    assert dict(rows(bare, "SELECT topic, topic_id FROM topics"))[topic] == topic_id(bare, topic)
    # Ours goes on to be altered, and may have more partitions, added by hand.
    set_config(bare, topic, "retention.ms", "1000")
    add_partitions(bare, topic, 5)
    applied = streamflow(bare, "topics", "--apply")
    assert applied.returncode == 0, applied.stderr
    assert "warning: topic" in applied.stderr
    assert "has 5 partitions, 3 are declared" in applied.stderr
    assert config_of(bare, topic)["retention.ms"][0] == "604800000"
    assert "retention.ms 1000 → 604800000\n" in applied.stderr

    delete_topic(bare, topic)
    make_topic(bare, topic, FOREIGN)
    before = config_of(bare, topic)
    done = streamflow(bare, "topics", "--apply")
    assert done.returncode == 1
    assert_refused(done.stderr, topic)
    assert "recreated" in done.stderr
    assert report(bare)[topic]["owner"] == "foreign"
    assert config_of(bare, topic) == before


def test_a_foreign_topic_that_is_as_declared_is_used(bare: Settings) -> None:
    assert streamflow(bare, "init").returncode == 0
    execute(bare, "TRUNCATE topics")
    assert streamflow(bare, "init").returncode == 0
    assert streamflow(bare, "topics", "--apply").returncode == 0
    assert {each["owner"] for each in report(bare).values()} == {"foreign"}


def test_topics_alone_say_what_is_missing(bare: Settings) -> None:
    done = streamflow(bare, "topics", "--apply")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "streamflow db upgrade" in done.stderr
    assert not [name for name in admin(bare).list_topics().topics if name.startswith(bare.prefix)]
    assert streamflow(bare, "init").returncode == 0
    # Where nothing has to be altered, nobody has to be asked whose it is.
    nowhere = {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}
    assert streamflow(bare, "topics", "--apply", **nowhere).returncode == 0
    assert report(bare, **nowhere)[f"{bare.prefix}user-events"]["owner"] == "unknown"
    set_config(bare, f"{bare.prefix}user-events", "retention.ms", "1000")
    done = streamflow(bare, "topics", "--apply", **nowhere)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "database does not answer" in done.stderr
    assert config_of(bare, f"{bare.prefix}user-events")["retention.ms"][0] == "1000"


def test_an_unmanaged_topic_is_read_and_never_changed(bare: Settings, tmp_path: Path) -> None:
    topic = f"{bare.prefix}user-events"
    with unmanaged(tmp_path) as theirs:
        done = streamflow(bare, "init", "--wait", "5", **theirs)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert topic in done.stderr
        assert "does not exist" in done.stderr

        # CreateTime, no end of retention, and more partitions than the derived topics have.
        make_topic(bare, topic, {"retention.ms": "-1"}, partitions=5)
        before = config_of(bare, topic)
        assert streamflow(bare, "init", **theirs).returncode == 0
        assert streamflow(bare, "topics", "--apply", **theirs).returncode == 0
        found = report(bare, **theirs)
        assert found[topic]["owner"] == "unmanaged"
        assert found[topic]["drift"] == []
        assert found[f"{bare.prefix}analytics"]["owner"] == "ours"
        refused = streamflow(bare, "topics", "--adopt", topic, **theirs)
        assert refused.returncode == 1
        assert "managed=False" in refused.stderr

        values = [event(number) for number in range(300)]
        produce(bare, "user-events", [*values, b"{"])
        made = bare.model_copy(update={"streams": (theirs["STREAMFLOW_STREAMS"],)})
        with pytest.MonkeyPatch.context() as patch:
            for name, value in theirs.items():
                patch.setenv(name, value)
            with workers(made, tmp_path):
                counted = "SELECT coalesce(sum(count), 0) FROM window_counts"
                wait_until(lambda: count(bare, counted) == 300, 60, "the windows to be loaded")
                audit = streamflow(bare, "audit", "--wait", "60")
        assert audit.returncode == 0, audit.stdout + audit.stderr
        assert count(bare, "SELECT count(*) FROM notifications") == 300
        assert count(bare, "SELECT count(*) FROM events") == 300
        assert count(bare, "SELECT count(*) FROM dead_letters") == 1
        assert config_of(bare, topic) == before


def test_dagster_shows_an_unmanaged_topic_as_external(bare: Settings, tmp_path: Path) -> None:
    with unmanaged(tmp_path) as theirs, pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        with dg.DagsterInstance.ephemeral() as instance:
            made = orchestrated(bare, STREAMFLOW_STREAMS=theirs["STREAMFLOW_STREAMS"])
            one = Orchestration(instance, made)
            graph = one.definitions.resolve_asset_graph()
    node = graph.get(dg.AssetKey(["kafka", "user_events"]))
    assert node.is_external
    assert not node.is_materializable
    assert graph.get(dg.AssetKey(["kafka", "analytics"])).is_materializable


def described(settings: Settings, table: str) -> list[tuple[Any, ...]]:
    return rows(
        settings,
        "SELECT attname, format_type(atttypid, atttypmod), attnotnull FROM pg_attribute"
        f" WHERE attrelid = '{table}'::regclass AND attnum > 0 ORDER BY attnum",
    )


@pytest.mark.parametrize(
    "columns",
    ["id integer, note text", 'id bigint, type text, "user" text, user_email text'],
)
def test_a_foreign_table_of_a_stream_is_refused(bare: Settings, columns: str) -> None:
    execute(bare, f"CREATE TABLE events ({columns})")
    before = described(bare, "events")
    for command in (["init", "--wait", "5"], ["db", "upgrade"]):
        done = streamflow(bare, *command)
        assert described(bare, "events") == before
        assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
        assert "table events" in done.stderr
        assert "StreamFlow did not create" in done.stderr


def test_a_foreign_table_with_the_name_of_one_of_ours_is_refused(bare: Settings) -> None:
    execute(bare, "CREATE TABLE notifications (id integer)")
    before = described(bare, "notifications")
    done = streamflow(bare, "db", "upgrade")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert 'relation "notifications" already exists' in done.stderr
    assert "StreamFlow did not create" in done.stderr
    assert described(bare, "notifications") == before
    with pytest.raises(ConfigurationError, match="did not create"):
        schema.upgrade(bare, [USER_EVENTS])


def test_a_table_of_ours_that_has_the_columns_of_another_stream_is_told_as_before(
    bare: Settings,
) -> None:
    schema.upgrade(bare, [USER_EVENTS])
    with psycopg.connect(bare.database) as connection:
        connection.execute('ALTER TABLE events RENAME COLUMN "user" TO somebody')
    with pytest.raises(ConfigurationError, match="somebody"):
        schema.upgrade(bare, [USER_EVENTS])


BESIDE = """
from dataclasses import replace
from streamflow import Avro, SchemaRegistry
from streamflow.stream_topics import Topics
from streamflow.streams.user_events import USER_EVENTS

SHOP = replace(USER_EVENTS, name="shop", table="shop", topics=Topics(dead_letters="shop-letters"))
THEIRS = replace(USER_EVENTS, name="theirs", table="theirs", topics=Topics(managed=False))
NOWHERE = SchemaRegistry("http://127.0.0.1:1")
AVRO = replace(USER_EVENTS, name="avro", table="avro", decode=Avro(registry=NOWHERE))
"""


@pytest.fixture
def beside(tmp_path: Path) -> dict[str, str]:
    """Two more streams than the example."""
    (tmp_path / "streams_beside.py").write_text(BESIDE)
    ours = "streamflow.streams.user_events:USER_EVENTS"
    return {
        "STREAMFLOW_STREAMS": f"{ours},streams_beside:SHOP,streams_beside:THEIRS,streams_beside:AVRO",
        "PYTHONPATH": ":".join([str(tmp_path), *sys.path]),
    }


def test_a_topic_that_is_refused_stops_no_other_stream(
    bare: Settings, beside: dict[str, str]
) -> None:
    shop, theirs = f"{bare.prefix}shop", f"{bare.prefix}theirs"
    make_topic(bare, shop, FOREIGN)
    before = config_of(bare, shop)
    for command in (["init", "--wait", "5"], ["topics", "--apply"]):
        done = streamflow(bare, *command, **beside)
        assert done.returncode == 1
        errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        [error] = errors
        assert f"stream shop does not start: topic {shop} was not created by" in error
        assert f"stream theirs does not start: topic {theirs} does not exist" in error
    made = admin(bare).list_topics(timeout=10).topics
    assert f"{bare.prefix}user-events" in made
    assert f"{bare.prefix}dead-letter-topic" in made
    # Nothing is made for a stream that does not start.
    assert f"{bare.prefix}shop-letters" not in made
    assert config_of(bare, shop) == before
    examined = streamflow(bare, "doctor", **beside).stdout
    assert f"bad  topics           stream shop does not start: topic {shop}" in examined


def test_workers_leave_a_stream_out_until_it_can_run(
    bare: Settings, beside: dict[str, str], tmp_path: Path
) -> None:
    """One lacks its topic, one a column, and one its schema registry."""
    assert streamflow(bare, "init", "--wait", "5", **beside).returncode == 1
    execute(bare, "ALTER TABLE shop DROP COLUMN user_email")
    logs = {name: tmp_path / f"{name}.log" for name in ("validator", "analytics", "loader")}

    def found(topic: str, table: str) -> tuple[int, int, int]:
        """Rows, notifications and counted events."""
        source = f"{bare.prefix}{topic}"
        notified = f"SELECT count(*) FROM notifications WHERE origin_topic = '{source}'"
        counted = (
            f"SELECT coalesce(sum(count), 0) FROM window_counts WHERE origin_topic = '{source}'"
        )
        return (
            count(bare, f"SELECT count(*) FROM {table}"),
            count(bare, notified),
            count(bare, counted),
        )

    with ExitStack() as cleanup:
        for name, log in logs.items():
            worker = WorkerProcess(bare, name, log, **beside)
            cleanup.callback(worker.kill)
        produce(bare, "avro", [b"\0\0\0\0\1x"])
        produce(bare, "shop", [event(number) for number in range(3)])
        produce(bare, "user-events", [event(number) for number in range(10)])
        wait_until(lambda: found("user-events", "events") == (10, 10, 10), 90)
        wait_until(lambda: found("shop", "shop") == (0, 3, 3), 60)
        said = {name: log.read_text() for name, log in logs.items()}
        assert all('"stream not running"' in text for text in said.values())
        wait_until(lambda: all('"stream waits"' in log.read_text() for log in logs.values()), 60)
        lacks = "stream shop: the database has no column shop.user_email: run `streamflow init`"
        assert lacks in said["loader"]

        make_topic(bare, f"{bare.prefix}theirs", {})
        produce(bare, "theirs", [event(number) for number in range(7)])
        assert streamflow(bare, "init", **beside).returncode == 0
        wait_until(lambda: found("theirs", "theirs") == (7, 7, 7), 90)
        wait_until(lambda: found("shop", "shop") == (3, 3, 3), 60)

        # And without what was there: the others go on for as long as it is gone.
        delete_topic(bare, f"{bare.prefix}theirs")
        for number in range(11, 15):
            produce(bare, "user-events", [event(number)])
            wanted = (number, number, number)
            wait_until(lambda wanted=wanted: found("user-events", "events") == wanted, 60)
    gone = f"topic {bare.prefix}theirs does not exist: its owner has to create it"
    assert all(log.read_text().count(gone) >= 2 for log in logs.values())
    assert rows(bare, "SELECT DISTINCT error_code FROM dead_letters") == []
