"""A declaration is tried with samples: what does not come back as it was is named, by its field."""

import json
import random
import re
import sys
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    HttpUrl,
    Json,
    JsonValue,
    PlainSerializer,
    RootModel,
    create_model,
)
from typer.testing import CliRunner

from streamflow import (
    Count,
    EpochMillis,
    Event,
    Hasher,
    HoppingWindow,
    Last,
    Notification,
    Stream,
    Timestamp,
    TumblingWindow,
    load_settings,
    load_streams,
)
from streamflow.check import planned_tables
from streamflow.declarations import problems as of_declaration
from streamflow.errors import ConfigurationError
from streamflow.postgres.schema import TablePlan
from streamflow.postgres.tables import event_columns
from streamflow.samples.node import NoSample
from streamflow.stream import Simulated
from streamflow.streams.user_events import USER_EVENTS
from streamflow.trial import TrialProblem, fails_at_start, problems, same, samples_of, simulated_of
from streamflow.windows.specs import Windows
from streamflow_cli.app import app
from upserts import CUSTOMERS


def stream_of(kind: Any, default: Any = ..., **changes: Any) -> Stream:
    contract = create_model(
        "Order", __base__=Event, timestamp=(Timestamp, ...), total=(kind, default)
    )
    declared: dict[str, Any] = {"name": "orders", "table": "orders", "key": lambda _: "k"}
    return Stream(contract=contract, **(declared | changes))


def raises(_value: Any) -> Any:
    raise RuntimeError("of a user's code")


def no_such_hash(text: str) -> str:
    if text[0] == Hasher().hash("Ann Example")[0]:
        raise ValueError("another one")
    return text


def tried(stream: Stream) -> list[TrialProblem]:
    hasher = Hasher(None, stream.decoder.private_fields)
    return problems(stream, samples_of(stream, hasher), hasher)


ROUNDED = Annotated[float, Field(ge=1), PlainSerializer(lambda value: round(value, 1))]


@pytest.mark.parametrize(
    ("stream", "part", "says"),
    [
        (
            stream_of(ROUNDED),
            "json",
            r"`total`: \S+ comes back as \S+ from JSON: let the field's serializer write the whole",
        ),
        (
            stream_of(Annotated[str, PlainSerializer(raises)]),
            "json",
            r"a sample of Order.* cannot be written as JSON and read again \(PydanticSerializationError\)",
        ),
        (
            stream_of(Json[list[int]]),
            "json",
            r"a sample of Order, written as JSON, is rejected .*total: .*: give that field a type",
        ),
        (
            stream_of(str, key=lambda order: order.total[3]),
            "key",
            r"no key can be made of a valid Order with `total` at a limit of its type \(IndexError\)",
        ),
        (
            stream_of(str, key=lambda order: len(order.total)),
            "key",
            r"\(AttributeError\): let `key` of the stream return a text",
        ),
        (
            stream_of(str, notify=raises),
            "notify",
            r"no notification can be made of a valid Order: .*RuntimeError",
        ),
        (
            stream_of(str, notify=lambda order: Notification("m", -1, order.total)),
            "notify",
            r"event_id a number from 0",
        ),
        (
            stream_of(
                Annotated[str, BeforeValidator(lambda _: "a" * 64)], private_fields=("total",)
            ),
            "private",
            r"`total` is private, and accepted in clear: declare it as Hashed",
        ),
        (
            stream_of(
                Annotated[str, AfterValidator(no_such_hash)], private_fields=("total",)
            ),
            "private",
            r"`total` is private, and its hash is rejected",
        ),
    ],
)  # fmt: skip
def test_what_does_not_work(stream: Stream, part: str, says: str) -> None:
    [problem] = tried(stream)
    assert problem.part == part

    assert re.search(says, problem.text), problem.text


class Root(RootModel[str]):
    pass


def at_random(_text: str) -> str:
    return random.choice("abcdefghijklmnopqrstuvwxyz")


COUNTED: dict[str, Any] = {"windows": TumblingWindow("10s", by="total")}


@pytest.mark.parametrize(
    ("stream", "says"),
    [
        (
            stream_of(str, Field(default_factory=lambda: at_random("")), **COUNTED),
            "Order.total is what events are counted by, so it must not have a default_factory",
        ),
        (
            stream_of(str | None, Field(default_factory=str), key="total"),
            "Order.total is the key, so it must not have a default_factory",
        ),
        (
            stream_of(datetime, Field(default_factory=datetime.now), event_time="total"),
            "Order.total is the event time, so it must not have a default_factory",
        ),
        *(
            (stream_of(kind, **COUNTED), "its windows cannot count by total: it must be a text, a whole")
            for kind in (Literal["a", 1], Literal["a", None], Literal[True, 2])  # noqa: PYI061
        ),
        *(
            (stream_of(kind, key="total"), "Order.total is the key, so it must be a text, a number, a bool")
            for kind in (Root, list[str], dict[str, int], Any, JsonValue, str | list[str])
        ),
    ],
)  # fmt: skip
def test_what_a_declaration_cannot_be(stream: Stream, says: str) -> None:
    [problem] = of_declaration(stream)
    assert problem.startswith(says)


@pytest.mark.parametrize(
    "kind",
    [
        str,
        int | None,
        int | str,
        Literal["a", 1],
        float,
        bytes,
        HttpUrl,
        EpochMillis,
        UUID,
        Decimal,
        bool,
    ],
)
def test_keys_are_scalars(kind: Any) -> None:
    assert of_declaration(stream_of(kind, key="total")) == []


@pytest.mark.parametrize(
    "windows",
    [
        TumblingWindow("10s", by="total"),
        TumblingWindow("10s", by="total", n=Count()),
        HoppingWindow("10s", every="5s", latest=Last("total")),
    ],
)
def test_what_windows_count_is_another_value_each_time(windows: Windows) -> None:
    # Where it does not lie in a type's default, only trying shows it.
    kind = Annotated[str, AfterValidator(at_random)]
    problem = fails_at_start(stream_of(kind, windows=windows))[-1]
    assert problem.startswith("`total` is another value each time that an event is read: let its")


@pytest.mark.parametrize(
    ("kind", "default"),
    [
        (datetime, datetime(2020, 1, 1, 12)),  # noqa: DTZ001
        (int, "x"), (float, float("nan")), (str, "a\0b"), (str, "ann@example.com"), (int, 2**70),
        (Annotated[str, Field(alias="sum")], 7),
    ],
)  # fmt: skip
def test_a_wrong_default_is_named(kind: Any, default: Any) -> None:
    problems_at_start = fails_at_start(stream_of(kind, default))
    assert len(problems_at_start) == 1
    assert problems_at_start[0].startswith(
        "the default of `total` is rejected when an event with it"
    )
    assert problems_at_start[0].endswith("): change the default")
    assert str(default) not in problems_at_start[0]


@pytest.mark.parametrize("kind", [Literal["a", None], JsonValue])  # noqa: PYI061
def test_a_null_that_a_type_holds(kind: Any) -> None:
    stream = stream_of(kind)
    assert tried(stream) == []
    event = stream.decoder.decode(b'{"timestamp":"2026-03-01T12:00:00Z","total":null}')
    assert isinstance(event, Event)
    assert b'"total":null' in stream.decoder.encode(event)
    # As of Any, the null of a JsonValue is a value of the column.
    nullable = {column.name: column.nullable for column in event_columns(stream)}
    assert nullable["total"] is (kind is not JsonValue)


@pytest.mark.parametrize("kind", [str, int | float, Decimal, list[dict[str, float]], Any])
def test_what_works_has_no_problem(kind: Any) -> None:
    assert tried(stream_of(kind)) == []
    assert fails_at_start(stream_of(kind)) == []


def test_the_example_works() -> None:
    assert tried(USER_EVENTS) == []
    assert len(simulated_of(USER_EVENTS, Hasher(None, {"user_email"}))) > 10


def test_numbers_are_compared_as_json_has_them() -> None:
    assert same({"a": [1e300, 1]}, {"a": [10**300, 1]})
    assert not same({"a": [1e300]}, {"a": [10**300 + 1]})
    assert not same([1], (1,))
    assert not same({"a": 1}, {"b": 1})
    assert not same("1", 1)


def test_a_simulator_that_breaks_the_contract() -> None:
    def simulate(_hasher: Hasher, **_options: Any) -> list[Simulated]:
        return [Simulated(None, b'{"total":"x"}', None)]

    with pytest.raises(Exception, match=r"rejects a record .*timestamp.*: mend `simulate`"):
        simulated_of(stream_of(str, simulate=simulate), Hasher())


def test_a_contract_without_samples_starts() -> None:
    """A validator that only knows itself what is valid."""
    stream = stream_of(Annotated[str, AfterValidator(raises)])
    with pytest.raises(NoSample, match="declare `simulate`"):
        samples_of(stream, Hasher())
    assert fails_at_start(stream) == []


MODULE = """
from typing import Annotated, Literal
from pydantic import Json
from streamflow import Event, Stream, Timestamp

class Good(Event):
    who: str
    timestamp: Timestamp

class Bad(Good):
    total: Json[list[int]]

GOOD = Stream(name="good", contract=Good, table="good", key="who")
BAD = Stream(name="bad", contract=Bad, table="bad", key="who")
WORSE = Stream(name="worse", contract=Good, table="pg_worse", key="whom", event_time="timestemp")
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "modules", sys.modules.copy())
    (tmp_path / "tried_streams.py").write_text(MODULE)
    return "tried_streams"


def test_at_every_start_a_few_samples_are_tried(
    module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMFLOW_STREAMS", f"{module}:BAD,{module}:GOOD")
    streams = load_streams(load_settings())
    assert [stream.name for stream in streams] == ["good"]
    [failed] = streams.failed
    assert failed.why.startswith("tried_streams.py, line 14: a sample of Bad, written as JSON, is")


@pytest.mark.parametrize("command", [("produce",), ("audit",), ("dlq", "list")])
def test_a_configured_stream_that_does_not_start_is_not_called_unknown(
    command: tuple[str, ...], module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMFLOW_STREAMS", f"{module}:BAD,{module}:GOOD")
    error = CliRunner().invoke(app, [*command, "--stream", "bad"]).exception
    assert isinstance(error, ConfigurationError)
    assert str(error).startswith(
        "stream bad is configured, but it does not start: tried_streams.py, line 14: a sample of Bad"
    )


def test_the_one_stream_that_starts_does_not_get_what_may_be_meant_for_another(
    module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMFLOW_STREAMS", f"{module}:BAD,{module}:GOOD")
    error = CliRunner().invoke(app, ["produce", "--from", "-"]).exception
    assert str(error) == "there are several streams (good, bad): choose one with --stream NAME"


def test_the_command_says_everything_that_is_wrong(module: str) -> None:
    run = CliRunner().invoke
    done = run(app, ["check", "--offline", f"{module}:WORSE", f"{module}:BAD", f"{module}:GOOD"])
    assert done.exit_code == 1
    for says in (
        "tried_streams.py, line 15: its table pg_worse looks like one of PostgreSQL's own",
        "tried_streams.py, line 15: key names the field whom, which Good does not have: did you mean who?",
        "tried_streams.py, line 15: event_time names the field timestemp",
        "tried_streams.py, line 14: a sample of Bad, written as JSON, is rejected when it is read again",
        "topic good is declared, 3 partitions",
        "timestamp with time zone",
        "Not good: 4 problems.",
    ):
        assert says in done.stdout, says
    done = run(app, ["check", "--offline", f"{module}:GOOD"])
    assert done.exit_code == 0
    assert "Good: nothing was found wrong." in done.stdout
    done = run(app, ["check", "--offline", "--json", f"{module}:NONE"])
    assert done.exit_code == 1
    assert '"part": "declaration", "text": "tried_streams has no NONE' in done.stdout


def test_configured_streams_are_named(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMFLOW_STREAMS", f"{module}:BAD,{module}:WORSE,{module}:GOOD")
    run = CliRunner().invoke
    done = run(app, ["check", "--offline", "--json", "good"])
    assert done.exit_code == 0
    assert [checked["stream"] for checked in json.loads(done.stdout)["streams"]] == ["good"]
    # One that does not start has its name, too.
    done = run(app, ["check", "--offline", "--json", "bad", "good"])
    assert done.exit_code == 1
    assert [checked["stream"] for checked in json.loads(done.stdout)["streams"]] == ["bad", "good"]
    error = run(app, ["check", "--offline", "goood"]).exception
    assert str(error) == (
        "no stream is called goood: did you mean good? Configured: bad, worse, good; write MODULE:NAME for "
        "one that is not configured"
    )
    error = run(app, ["check", "--offline", "good", f"{module}:BAD"]).exception
    assert "give names only, or MODULE:NAME only" in str(error)


@pytest.mark.parametrize(
    ("plan", "actions"),
    [
        (None, ["is declared"] * 3),
        (TablePlan(), ["is there"] * 3),
        (TablePlan(refused="it is not StreamFlow's"), ["is refused"] * 3),
        (
            TablePlan(("table customers_changes", "table customers_state", "view customers")),
            ["will be created"] * 3,
        ),
        (
            TablePlan(("column customers_changes.a", "column customers_state.a", "view customers")),
            ["will be altered"] * 3,
        ),
        (
            TablePlan(("table customers_state", "view customers")),
            ["is there", "will be created", "will be created"],
        ),
    ],
)
def test_each_planned_table_has_an_action(plan: TablePlan | None, actions: list[str]) -> None:
    planned = planned_tables(CUSTOMERS, plan)
    assert [(table.name, table.kind) for table in planned] == [
        ("customers_changes", "table"), ("customers_state", "table"), ("customers", "view"),
    ]  # fmt: skip
    assert [table.action for table in planned] == actions


def test_without_servers_the_command_says_what_was_not_tried(
    module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    done = CliRunner().invoke(
        app, ["check", f"{module}:GOOD", "--against", "postgresql://127.0.0.1:1/x"]
    )
    assert done.exit_code == 1
    assert (
        "not tried: comparing the contract with the database: the database does not answer"
        in done.stdout
    )
    assert "Not known: not everything could be tried." in done.stdout


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--offline", "--against", "postgresql:///x"], "--offline asks no database"),
        (["--allow-steps"], "--allow-steps is about the changes that --against"),
    ],
)
def test_options_that_do_not_go_together(options: list[str], says: str) -> None:
    error = CliRunner().invoke(app, ["check", *options]).exception
    assert says in str(error)


def test_every_field_that_has_no_column_is_named() -> None:
    contract = create_model(
        "Order", __base__=Event, timestamp=(Timestamp, ...), loaded_at=(str, ...),
        origin_topic=(str, ...), kind=(Literal["a"], ...), xmin=(str, ...), ctid=(int, ...),
        **{"a" * 64: (str, ...), "ä" * 32: (str, ...), "b" * 63: (str, ...), "oid": (int, ...)},
    )  # fmt: skip
    found = of_declaration(Stream(name="orders", contract=contract, table="orders", key="kind"))
    assert [text.split(" is ")[0] for text in found] == [
        "the field name loaded_at", "the field name origin_topic", "the field name xmin",
        "the field name ctid", f"the field name {'a' * 64}", f"the field name {'ä' * 32}",
    ]  # fmt: skip


def test_more_fields_than_a_table_has_columns() -> None:
    def fields(count: int) -> Stream:
        model = create_model("Wide", __base__=Event, **{f"f{n}": (int, 0) for n in range(count)})
        wide = create_model("Wider", __base__=model, timestamp=(Timestamp, ...))
        return Stream(name="wide", contract=wide, table="wide", key="f0")

    assert of_declaration(fields(1_590)) == []
    [found] = of_declaration(fields(1_591))
    assert found.startswith("its table would have 1,597 columns, and PostgreSQL has room for 1,596")


def test_decimals_of_more_digits_than_a_type_can_name() -> None:
    wide = Annotated[Decimal, Field(max_digits=1_001, decimal_places=2)]
    contract = create_model("Wide", __base__=Event, timestamp=(Timestamp, ...), n=(wide, ...))
    stream = Stream(name="wide", contract=contract, table="wide", key="n")
    assert {column.name: column.type for column in event_columns(stream)}["n"] == "numeric"


def test_the_tables_of_windows_are_shown() -> None:
    done = CliRunner().invoke(
        app, ["check", "--offline", "dagster_windows:ORDERS", "session_streams:PURCHASES"]
    )
    assert (
        "windows of 5min every 1min, by country, address.city: table orders_5min_by_1min is declared,"
        " totals in orders_5min_by_1min_totals"
    ) in done.output
    assert "windows of 1h, of all events together: table orders_1h is declared" in done.output
    sessions = "  sessions with a gap of 30min, by customer: table purchases_sessions_30min"
    assert f"{sessions} is declared\n" in done.output
    assert re.search(r"purchases_sessions_30min.*spent +numeric +yes", done.output, re.DOTALL)
