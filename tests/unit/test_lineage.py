"""What lineage says of streams, jobs and runs, and when it says nothing."""

import uuid
from typing import Any

import pytest
from jsonschema import ValidationError
from openlineage.client.event_v2 import RunState
from openlineage.client.serde import Serde
from structlog.testing import capture_logs

import two_streams
from faults import wait_until
from openlineage_schemas import require_valid
from receivers import LineageReceiver
from streamflow import extras
from streamflow.errors import ConfigurationError, Unavailable
from streamflow.extras import ExtraMissing
from streamflow.lineage import sender
from streamflow.lineage.datasets import Dataset, How, Job, Names, Source
from streamflow.lineage.events import RunOf, event_of
from streamflow.lineage.runs import WorkerLineage, lineage_of
from streamflow.lineage.sender import Sender
from streamflow.lineage.streams import StreamDatasets
from streamflow.postgres.sessions.tables import session_tables
from streamflow.settings import Settings, load_settings
from streamflow.streams.user_events import USER_EVENTS
from streamflow_dagster.lineage import sessions_job
from upserts import CUSTOMERS

PASSWORD = "hidden-word"
SETTINGS = Settings(
    KAFKA_BOOTSTRAP_SERVERS="kafka-1:9092,kafka-2:9092",
    DATABASE_URL=f"postgresql://ann:{PASSWORD}@db.internal:6432/shop?sslmode=require",
)
NAMES = Names(SETTINGS)
TOPIC, TABLE = NAMES.topic, NAMES.table


def datasets(*streams: Any) -> StreamDatasets:
    return StreamDatasets(NAMES, streams)


def job(worker: str, name: str, *streams: Any) -> Job:
    [found] = [each for each in datasets(*streams).jobs_of(worker) if each.name == name]
    return found


def test_names_are_those_of_the_specification() -> None:
    assert TOPIC("user-events") == ("kafka://kafka-1:9092", "user-events")
    assert TABLE("events") == ("postgres://db.internal:6432", "shop.public.events")
    local = Names(Settings(DATABASE_URL="postgresql:///own?host=/run/postgresql,other"))
    assert local.table("t") == ("postgres:///run/postgresql:5432", "own.public.t")


def test_a_worker_that_needs_no_database_has_lineage_without_one() -> None:
    without = StreamDatasets(Names(Settings()), [USER_EVENTS])
    assert [job.name for job in without.jobs_of("analytics")] == ["analytics.analytics"]
    with pytest.raises(ConfigurationError, match="no database is known"):
        without.jobs_of("loader")


def test_a_table_of_events_has_the_fields_of_its_topic() -> None:
    made = job("loader", "loader.events", USER_EVENTS)
    [topic], [table] = made.inputs, made.outputs
    assert list(topic.columns) == ["id", "type", "user", "user_email", "timestamp"]
    assert table.sources["user"] == [Source(TOPIC("user-events"), "user", How.IDENTITY)]
    # What the loader itself adds comes from no field.
    assert table.columns.keys() - table.sources.keys() == {
        "origin_topic", "origin_partition", "origin_offset", "appended_at", "loaded_at",
    }  # fmt: skip
    state = job("loader", "loader.customers_changes", CUSTOMERS)
    assert [each.title for each in state.outputs] == ["customers_changes", "customers_state"]


def test_each_output_is_a_job_with_what_it_is_made_of() -> None:
    streams = (USER_EVENTS, two_streams.ORDERS)
    found = {
        each.name: [read.title for read in each.inputs]
        for worker in ("validator", "analytics", "loader")
        for each in datasets(*streams).jobs_of(worker)
    }
    [window_table, hopping] = [name for name in found if name.startswith("loader.orders_")]
    assert found == {
        "validator.notifications": ["user-events"],
        "validator.dead-letter-topic": ["user-events", "orders"],
        "analytics.analytics": ["user-events", "orders"],
        "loader.events": ["user-events"],
        "loader.orders": ["orders"],
        window_table: ["analytics"],
        hopping: ["analytics"],
        "loader.window_counts": ["analytics"],
        "loader.notifications": ["notifications"],
        "loader.dead_letters": ["dead-letter-topic"],
    }


def test_columns_of_windows_come_from_the_fields_of_events() -> None:
    [table] = [
        each.outputs[0]
        for each in datasets(two_streams.ORDERS).jobs_of("loader")
        if "spent_count" in each.outputs[0].columns or "spent" in each.outputs[0].columns
    ]
    orders = TOPIC("orders")
    grouped = [
        Source(orders, "customer", How.GROUP_BY),
        Source(orders, "type", How.GROUP_BY),
        Source(orders, "timestamp", How.WINDOW),
    ]
    assert table.sources["window_start"] == [Source(orders, "timestamp", How.TRANSFORMATION)]
    assert table.sources["customer"] == [Source(orders, "customer", How.IDENTITY)]
    assert table.sources["spent"] == [
        Source(orders, "amount_cents", How.AGGREGATION), *grouped,
    ]  # fmt: skip
    assert table.sources["counted"] == grouped
    assert table.sources.keys() <= table.columns.keys()
    counts = job("loader", "loader.window_counts", two_streams.ORDERS).outputs[0]
    assert counts.sources["event_type"] == [Source(orders, "customer", How.IDENTITY)]
    [sessions] = session_tables(two_streams.ORDERS)
    made = sessions_job(datasets(two_streams.ORDERS), sessions)
    assert made.outputs[0].sources["orders"] == [
        Source(TABLE("orders"), "customer", How.GROUP_BY),
        Source(TABLE("orders"), "timestamp", How.WINDOW),
    ]


def test_an_event_is_what_openlineage_wants_and_holds_no_password() -> None:
    run = RunOf(str(uuid.uuid4()), "ours", job("loader", "loader.events", USER_EVENTS), None)
    made = Serde.to_dict(event_of(run, RunState.RUNNING, {"events": 7}))
    require_valid(made)
    with pytest.raises(ValidationError):
        require_valid(made | {"eventType": "WALKING"})
    assert PASSWORD not in str(made)
    assert made["eventType"] == "RUNNING"
    assert made["job"]["facets"]["jobType"]["processingType"] == "STREAMING"
    [output] = made["outputs"]
    assert output["outputFacets"]["outputStatistics"]["rowCount"] == 7
    assert {"name": "id", "type": "bigint"}.items() <= output["facets"]["schema"]["fields"][
        0
    ].items()
    [source] = output["facets"]["columnLineage"]["fields"]["user"]["inputFields"]
    assert (source["name"], source["field"]) == ("user-events", "user")
    [transformation] = source["transformations"]
    assert (transformation["type"], transformation["subtype"]) == ("DIRECT", "IDENTITY")


REPLAY = Job(name="replay", inputs=[], outputs=[Dataset(title="t", name=TABLE("t"))])


def told(receiver: LineageReceiver) -> Settings:
    return SETTINGS.model_copy(update={"openlineage_url": receiver.url})


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "_PAUSE", 0.05)


def test_a_run_starts_and_completes_with_its_rows() -> None:
    with LineageReceiver() as receiver:
        parent = (str(uuid.uuid4()), "roll_days")
        with lineage_of(told(receiver), (), lambda _: REPLAY, parent=parent) as rows:
            rows["t"] = 3
        start, complete = receiver.events
    assert [start["eventType"], complete["eventType"]] == ["START", "COMPLETE"]
    assert start["run"]["runId"] == complete["run"]["runId"]
    assert complete["outputs"][0]["outputFacets"]["outputStatistics"]["rowCount"] == 3
    require_valid(complete)
    assert complete["run"]["facets"]["parent"]["run"]["runId"] == parent[0]
    assert complete["run"]["facets"]["parent"]["job"]["name"] == "roll_days"


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (Unavailable("the database does not answer"), "the database does not answer"),
        (ValueError("ann@example.com is wrong"), "ValueError"),
    ],
)
def test_a_run_fails_without_what_another_library_says(error: Exception, says: str) -> None:
    with LineageReceiver() as receiver:
        with (
            pytest.raises(type(error)),
            lineage_of(told(receiver), (), lambda _: REPLAY),
        ):
            raise error
        failed = receiver.events[-1]
    require_valid(failed)
    assert failed["eventType"] == "FAIL"
    assert failed["run"]["facets"]["errorMessage"]["message"] == says


@pytest.mark.usefixtures("quick")
def test_events_wait_for_a_receiver_that_is_away_and_arrive_in_order() -> None:
    with LineageReceiver(503) as receiver, capture_logs() as logs:
        runs = Sender(told(receiver))
        sent = [
            event_of(RunOf(str(uuid.uuid4()), "ours", REPLAY), state, {})
            for state in (RunState.START, RunState.RUNNING, RunState.COMPLETE)
        ]
        for each in sent:
            runs.send(each)
        wait_until(lambda: len(receiver.posted) > 2, 10)
        receiver.status = 200
        receiver.posted.clear()
        wait_until(lambda: len(receiver.posted) == 3, 10)
        runs.close()
        assert [each["eventType"] for each in receiver.events] == ["START", "RUNNING", "COMPLETE"]
    assert [(each["event"], each.get("why")) for each in logs] == [
        ("lineage is not sent", "status 503"),
        ("lineage is sent again", None),
    ]


@pytest.mark.usefixtures("quick")
def test_an_event_that_is_refused_holds_up_no_other() -> None:
    with LineageReceiver(400) as receiver, lineage_of(told(receiver), (), lambda _: REPLAY):
        wait_until(lambda: len(receiver.posted) == 1, 10)
        receiver.status = 200
    assert [each["eventType"] for each in receiver.events] == ["START", "COMPLETE"]


def test_no_more_events_wait_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with LineageReceiver(hangs=True) as receiver:
        runs = Sender(told(receiver))
        event = event_of(RunOf(str(uuid.uuid4()), "ours", REPLAY), RunState.RUNNING, {})
        for _ in range(2 * sender.MOST):
            runs.send(event)
        assert receiver.asked.wait(10)
        # One may be on its way.
        assert sender.MOST - 1 <= len(runs._waiting) <= sender.MOST
        monkeypatch.setattr(sender, "_PATIENCE", 0.01)
        runs.close()


def test_a_key_is_sent_as_a_token() -> None:
    with LineageReceiver() as receiver:
        keyed = Settings(OPENLINEAGE_URL=receiver.url, OPENLINEAGE_API_KEY=PASSWORD)
        runs = Sender(keyed)
        runs.send(event_of(RunOf(str(uuid.uuid4()), "ours", REPLAY), RunState.START, {}))
        runs.close()
        [(_, headers, body)] = receiver.posted
    assert headers["Authorization"] == f"Bearer {PASSWORD}"
    assert PASSWORD.encode() not in body
    with pytest.raises(ConfigurationError, match="into settings of their own"):
        load_settings(OPENLINEAGE_URL=f"http://ann:{PASSWORD}@127.0.0.1:1")


def test_off_is_the_default_and_needs_no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "is_installed", lambda _extra: False)
    with lineage_of(Settings(), (), lambda _: pytest.fail("asked for")) as rows:
        rows["t"] = 1
    with WorkerLineage(Settings(), [USER_EVENTS], "loader") as off:
        off.note({"events": 1})
    on = SETTINGS.model_copy(update={"openlineage_url": "http://127.0.0.1:1"})
    with pytest.raises(ExtraMissing, match=r"pip install 'streamflow-kafka\[lineage\]'"):
        WorkerLineage(on, [USER_EVENTS], "loader")
