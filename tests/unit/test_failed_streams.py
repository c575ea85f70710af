"""A declaration that cannot work: one sentence with file and line, and the other streams go on."""

import sys
import traceback
from pathlib import Path

import pytest
from typer.testing import CliRunner

from streamflow import ConfigurationError, load_settings, load_streams
from streamflow.registry import without_streams
from streamflow_cli.app import app

GOOD = """
from typing import Literal
from streamflow import Event, Stream, Timestamp, Topics
class Order(Event):
    type: Literal["PLACED"]
    customer: str
    timestamp: Timestamp
ORDERS = Stream(name="orders", contract=Order, table="orders", key=lambda order: order.customer)
SHOP = Stream(
    name="shop", contract=Order, table="replays", key=lambda order: order.customer,
)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    # Restored afterwards, with what the tests import.
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "modules", sys.modules.copy())
    (tmp_path / "good_streams.py").write_text(GOOD)
    return tmp_path


def configure(monkeypatch: pytest.MonkeyPatch, *paths: str) -> None:
    monkeypatch.setenv("STREAMFLOW_STREAMS", ",".join(paths))


def why(monkeypatch: pytest.MonkeyPatch, path: str) -> str:
    configure(monkeypatch, path)
    with pytest.raises(ConfigurationError) as caught:
        load_streams(load_settings())
    assert "\n" not in str(caught.value)
    return str(caught.value).partition(" does not start: ")[2]


@pytest.mark.parametrize(
    ("code", "says"),
    [
        # B14.
        ("x = (", "own.py, line 1: '(' was never closed"),
        ("\n  x = 1", "own.py, line 2: unexpected indent"),
        ("import nopackage", "own.py, line 1: there is no module nopackage: install its package"),
        (
            "from streamflow import Steam",
            "own.py, line 1: cannot import name 'Steam' from 'streamflow'",
        ),
        ("x = Decimal(1)", "own.py, line 1: name 'Decimal' is not defined: import it, or correct"),
        ("1/0", "own.py, line 1: ZeroDivisionError: division by zero"),
        ("raise KeyError", "own.py, line 1: KeyError"),
        ("def f():\n    raise RuntimeError('a\\nb')\nf()", "own.py, line 2: RuntimeError: a"),
        ("import sys\nsys.exit(3)", "own.py, line 2: ends the process (sys.exit)"),
        ("def f(): return f()\nf()", "own.py, line 1: RecursionError: maximum recursion depth"),
        ("import json\njson.loads('{')", "own.py, line 2: Expecting property name"),
        (
            "import own_two",
            "own_two.py, line 1: own is imported while it is being imported itself, in a circle",
        ),
        (
            "class Foo: pass\nfrom streamflow import Event\nclass A(Event):\n    x: Foo",
            "own.py, line 3: Foo is no type that pydantic can check: use another for the field",
        ),
        (
            (
                "from streamflow import Event, Stream\nclass A(Event):\n    type: str\n"
                '    timestamp: "Missing"\nS = Stream(name="a", contract=A, table="a", key=str)'
            ),
            "own.py, line 5: A has a field whose type is not defined: import it, or define it first",
        ),
        (
            "from streamflow import Event\nclass A(Event):\n    x = 3",
            "own.py, line 2: A non-annotated attribute was detected: `x = 3`",
        ),
        (
            "from pydantic import BaseModel\nclass A(BaseModel):\n    x: int\nA(x='secret')",
            "own.py, line 4: A: Input should be a valid integer",
        ),
        (
            "from streamflow import Stream\nS = Stream(nmae='a')",
            "own.py, line 2: Stream has no argument nmae: did you mean name?; Stream needs name, contract",
        ),
        (
            "from streamflow import Stream\n\nS = Stream(\n    name='a', contract=int, table='t', key=str)",
            "own.py, line 3: contract must be a subclass of Event, or a union of them, not the class int",
        ),
        (
            (
                "from datetime import timedelta\nfrom good_streams import Order, Stream\n"
                "from streamflow import TumblingWindow\nS = Stream(name='a', contract=Order, table='a', "
                "key='customer',\n    windows=TumblingWindow(size=timedelta(0)))"
            ),
            "own.py, line 4: windows: size must be from 1ms to 3650d, not 0s",
        ),
        ("T = 1", "own has no S: it has no Stream"),
        ("S = 1", "own.py, line 1: S is not a Stream but a int: it has no Stream"),
        ("class S: ...", "S is not a Stream but the class S: it has no Stream"),
    ],
)
def test_what_is_wrong_in_a_user_s_file(
    code: str, says: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "own.py").write_text(code)
    (folder / "own_two.py").write_text("from own import Z")
    assert why(monkeypatch, "own:S").startswith(says)


@pytest.mark.parametrize("encoded", [GOOD.encode("utf-16"), b"x = '\xfc'\n"])
def test_a_file_in_another_encoding(
    encoded: bytes, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "own.py").write_bytes(encoded)
    assert why(monkeypatch, "own:S").endswith(": save the file as UTF-8")


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("good_streams", "write module:NAME, as in good_streams:ORDERS: good_streams alone is no"),
        ("good_streams:", "its streams are ORDERS, SHOP"),
        ("good_streams:ORDER", "good_streams has no ORDER (did you mean ORDERS?): its streams are"),
        ("good_streams:Order", "Order is not a Stream but the class Order: its streams are ORDERS"),
        ("good_streams.py:ORDERS", "good_streams.py is a file and no module: write good_streams"),
        ("./good_streams.py:ORDERS", "is a file and no module: write good_streams"),
        (
            "good_steams:ORDERS",
            "there is no module good_steams (did you mean good_streams?): it is",
        ),
        (":ORDERS", "'' is no name of a module"),
        ("json:ORDERS", "json has no ORDERS: it has no Stream"),
    ],
)
def test_a_path_that_names_no_stream(path: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert says in why(monkeypatch, path)


@pytest.mark.parametrize(
    ("broken", "name", "says"),
    [
        ("broken:S", None, "broken.py, line 1: '(' was never closed"),
        ("good_streams:NONE", None, "has no NONE"),
        (
            "good_streams:SHOP",
            "shop",
            "good_streams.py, line 9: its table replays is one of Stream",
        ),
        (
            "good_streams:ORDERS",
            "orders",
            "good_streams.py, line 8: another stream has the same name",
        ),
    ],
)
def test_one_that_cannot_work_stops_no_other(
    broken: str, name: str | None, says: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "broken.py").write_text("x = (")
    configure(monkeypatch, "good_streams:ORDERS", broken)
    streams = load_streams(load_settings())
    assert [stream.name for stream in streams] == ["orders"]
    [failed] = streams.failed
    assert (failed.path, failed.name) == (broken, name)
    assert says in str(failed)


def test_a_traceback_is_there_for_who_wants_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "own.py").write_text("1/0")
    configure(monkeypatch, "own:S")
    with pytest.raises(ConfigurationError) as caught:
        load_streams(load_settings())
    # What `--debug` prints.
    assert "1/0" in "".join(traceback.format_exception(caught.value))


WRONG = """
from good_streams import Order
from streamflow import Stream, Topics, TumblingWindow
WRONG = Stream(
    name="wrong", contract=Order, table="wrong", key="customer", partitions=6,
    windows=["10s"], topics=Topics(partitions="6", retentoin="7d"), mode="Upsert",
)
NAMELESS = Stream(name=3, contract=Order, table="x", key="customer", windows=TumblingWindow("10 parsecs"))
POSITIONAL = Stream("positional", contract=Order, table="x", key="customer")
GOOD = Stream(name="good", contract=Order, table="good", key="customer")
"""
WRONG_WITHIN = """
from good_streams import Order
from streamflow import Avro, CloudEvents, Count, Distinct, PhoneNumber, Quantiles, Stream, Sum, TumblingWindow
SUMS = Stream(
    name="sums", contract=Order, table="sums", key="customer",
    windows=TumblingWindow(
        "10s", n=Count(where=3), total=Sum(5), places=Quantiles("x", at=(2,)), users=Distinct("x", lg_k=99)
    ),
)
PHONES = Stream(name="phones", contract=Order, table="phones", key="customer",
                private_values=(PhoneNumber("UK"),))
CLOUDS = Stream(name="clouds", contract=Order, table="clouds", key="customer", decode=CloudEvents(5))
AVRO = Stream(name="avro", contract=Order, table="avro", key="customer", decode=Avro(registry="https://x"))
GOOD = Stream(name="good", contract=Order, table="good", key="customer")
"""


def test_wrong_arguments_stop_only_their_own_stream(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "wrong.py").write_text(WRONG)
    names = ("WRONG", "NAMELESS", "POSITIONAL", "GOOD")
    configure(monkeypatch, *(f"wrong:{name}" for name in names))
    streams = load_streams(load_settings())
    assert [stream.name for stream in streams] == ["good"]
    wrong, nameless, positional = streams.failed
    assert (wrong.name, nameless.name, positional.name) == ("wrong", None, None)
    assert wrong.faults == (
        (
            "wrong.py, line 4: Stream has no argument partitions: its arguments are name, contract, table, "
            "key, event_time, private_fields, private_values, unknown_fields, windows, notify, simulate, "
            "rollups, decode, mode, primary_key, trace, topics, prefix"
        ),
        (
            'wrong.py, line 4: windows must be a TumblingWindow, as in windows=TumblingWindow("10s", '
            "by=\"type\"), a HoppingWindow, a SessionWindow, or a list of such, not the text '10s'"
        ),
        (
            'wrong.py, line 4: mode must be "append" or "upsert", not the text \'Upsert\': did you mean '
            '"upsert"?'
        ),
        "wrong.py, line 4: topics: Topics has no argument retentoin: did you mean retention?",
        "wrong.py, line 4: topics: partitions must be a whole number from 1 to 9,000, not the text '6'",
    )
    assert nameless.why.startswith(
        "wrong.py, line 8: name must be a text, not 3; windows: size must"
    )
    assert positional.why == (
        "wrong.py, line 9: Stream takes no argument without a name: write name=… and so on; Stream needs name"
    )


def test_wrong_arguments_within_an_argument_stop_only_their_own_stream(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "within.py").write_text(WRONG_WITHIN)
    names = ("SUMS", "PHONES", "CLOUDS", "AVRO", "GOOD")
    configure(monkeypatch, *(f"within:{name}" for name in names))
    streams = load_streams(load_settings())
    assert [stream.name for stream in streams] == ["good"]
    sums, phones, clouds, avro = streams.failed
    assert [failed.name for failed in streams.failed] == ["sums", "phones", "clouds", "avro"]
    assert sums.faults == (
        (
            "within.py, line 4: windows: n: where must be a function of an event that says whether it "
            "counts, not 3"
        ),
        (
            'within.py, line 4: windows: total: field must be the name of a field, as in "total", or '
            '"address.city" within another, not 5'
        ),
        (
            "within.py, line 4: windows: places: at must be shares from 0 to 1, each once, as in "
            "at=(0.5, 0.99): 2 is none"
        ),
        "within.py, line 4: windows: users: lg_k must be a whole number from 5 to 14, not 99",
    )
    assert phones.why.startswith(
        "within.py, line 10: private_values: PhoneNumber: 'UK' is no region"
    )
    assert clouds.why.startswith("within.py, line 12: decode: attributes must be a dict of texts")
    assert avro.why.startswith("within.py, line 13: decode: registry must be a SchemaRegistry")


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ('S = Stream(name="shop", contract=Order, table="shop", key=str)\n1/0', "shop"),
        ('S: Stream = Stream(name="shop", contract=Missing)', "shop"),
        ("S = Stream(name=NAME, contract=Missing)", None),
        ('T = Stream(name="shop", contract=Missing)', None),
    ],
)
def test_one_that_cannot_be_imported_has_its_name(
    code: str, name: str | None, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "own.py").write_text(f"from good_streams import Order, Stream\n{code}")
    configure(monkeypatch, "good_streams:ORDERS", "own:S")
    [failed] = load_streams(load_settings()).failed
    assert failed.name == name
    told = CliRunner().invoke(app, ["acls"]).stderr
    assert told.startswith(
        f"warning: {'stream shop' if name else 'own:S'} does not start: own.py, line "
    )


def test_a_failed_one_takes_no_name_from_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    user_events = "streamflow.streams.user_events:USER_EVENTS"
    configure(monkeypatch, "good_streams:SHOP", user_events, "good_streams:ORDERS")
    streams = load_streams(load_settings())
    assert [stream.name for stream in streams] == ["user-events", "orders"]


def test_settings_without_some_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    user_events = "streamflow.streams.user_events:USER_EVENTS"
    configure(monkeypatch, "good_streams:SHOP", user_events, "good_streams:ORDERS")
    left = without_streams(load_settings(), {"orders"})
    # One that failed goes on to be told of.
    assert left.streams == ("good_streams:SHOP", user_events)


def test_what_needs_every_stream_is_refused_and_the_rest_warns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    configure(monkeypatch, "good_streams:SHOP", "good_streams:ORDERS")
    run = CliRunner().invoke
    for command in (["forget", "ann@example.com"], ["db", "rehash"]):
        error = run(app, command).exception
        assert isinstance(error, ConfigurationError), command
        assert "stream shop does not start: good_streams.py, line 9: its table replays" in str(
            error
        )
    done = run(app, ["acls"])
    assert done.exit_code == 0
    assert done.stderr.startswith("warning: stream shop does not start: ")
    monkeypatch.setenv("STREAMFLOW_DEBUG", "1")
    assert "Traceback" in run(app, ["acls"]).stderr
    monkeypatch.delenv("STREAMFLOW_DEBUG")
    done = run(app, ["status", "--json"])
    assert done.exit_code == 1
    assert '"stream shop does not start: good_streams.py, line 9' in done.stdout
