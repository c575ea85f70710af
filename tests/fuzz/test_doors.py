"""Every door takes anything: a value, or one line that says what is wrong. No traceback, no secret.

`FUZZ_EXAMPLES=5000` looks longer; `make fuzz` does.
"""

import contextlib
import io
import json
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from engineio.packet import MESSAGE, Packet
from hypothesis import HealthCheck, example, given
from hypothesis import settings as configured
from hypothesis import strategies as st

from fuzz.records import holds_mark
from fuzz.shapes import EVENTS, FORMS, OPEN_FORMS, Shapes
from loads import FakeRecord
from streamflow.database_url import normalized
from streamflow.dead_letters.selection_parser import make_selection
from streamflow.errors import ConfigurationError, StreamFlowError, UsageError
from streamflow.kafka.position_metadata import PositionMetadata
from streamflow.privacy import Hasher
from streamflow.producer.lines import LineReader
from streamflow.records import Origin, Rejection
from streamflow.settings import (
    load_dashboard_settings,
    load_orchestration_settings,
    load_settings,
)
from streamflow.settings.platform import all_fields
from streamflow.streams.user_events import USER_EVENTS
from streamflow_cli.app import main
from streaming_workers.bridge.frames import Encoder, Frame
from streaming_workers.bridge.packets import flaw
from streaming_workers.bridge.subscriptions import parse_count, parse_subscription
from streamlit_app.records.filters import Filter
from streamlit_app.records.masking import mask

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "100"))
HASHER = Hasher(b"a key", USER_EVENTS.private_fields)
NOW = datetime(2026, 11, 26, tzinfo=UTC)
SECRET = "hidden-secret"
FIELDS = all_fields()

fuzzed = configured(
    max_examples=EXAMPLES,
    derandomize="FUZZ_EXAMPLES" not in os.environ,  # `make test` asks the same each time
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
# Texts of all kinds: lone surrogates, NUL, and what looks nearly right.
texts = st.text(max_size=40) | st.sampled_from(
    ["", " ", "\x00", "\ud800", "1" * 5000, "-1", "nan", "inf", "1e999", "²", "٣", "0x1", "{}", "[]", "null"]
)  # fmt: skip
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


def refused_in_one_line(call: Callable[[], Any], *errors: type[StreamFlowError]) -> Any:
    """What a call returns; None if it refuses, in one line and without the secret."""
    try:
        return call()
    except errors as error:
        message = str(error)
        assert message
        assert "\n" not in message, message
        assert SECRET not in message, message
        return None


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


# Lines of files.


@fuzzed
@given(st.integers(0, 2**32), st.binary(max_size=60))
def test_lines(seed: int, noise: bytes) -> None:
    reader, shapes = LineReader(USER_EVENTS, HASHER), Shapes(seed)
    for line in (
        noise,
        *(shape.value or b"" for shape in shapes.take(30) if shape.topic == EVENTS),
    ):
        if line.count(b"[") + line.count(b"{") > 200:
            continue  # see the test below
        accepted = reader.read(line)
        if isinstance(accepted, Rejection):
            assert not holds_mark(reader.redacted(line)), line
        else:
            assert not holds_mark(accepted.key + accepted.value), line
            assert not isinstance(USER_EVENTS.decoder.decode(accepted.value), Rejection)


def test_a_deep_line() -> None:
    line = b'{"a": ' + b"[" * 300 + b"]" * 300 + b"}"
    assert isinstance(LineReader(USER_EVENTS, HASHER).read(line), Rejection)


# Records as the bridge and the dashboard show them.


@fuzzed
@given(st.integers(0, 2**32))
def test_shown_records(seed: int) -> None:
    encoder = Encoder({EVENTS: USER_EVENTS}, HASHER)
    for number, shape in enumerate(Shapes(seed).take(20)):
        record = FakeRecord(
            number, shape.value, topic=shape.topic, key=shape.key, headers=shape.headers
        )
        seen = mask(record, HASHER)
        shown = [seen.value, seen.key or "", *(content or "" for _, content in seen.headers)]
        assert not holds_mark("\n".join(shown).encode("utf-8", "surrogatepass")), shape
        if shape.topic == EVENTS and shape.place not in ("key", "header"):
            packet = Frame(EVENTS, record, encoder).packet.encode()
            assert not holds_mark(packet.encode() if isinstance(packet, str) else packet), shape


# What is typed into the dashboard, and stands in its addresses.


@fuzzed
@given(text=texts, key=texts, path=texts | st.text("a.[]0'\"=<>~! ", max_size=12), header=texts)
@example(text="", key="", path="a[0].b >= 1e999", header="=")
def test_filters(text: str, key: str, path: str, header: str) -> None:
    if len(path) > 4_000:
        path = ""  # see the test below
    wanted = Filter(text=text, key=key, path=path, header=header)
    test = refused_in_one_line(wanted.compiled, UsageError)
    if test is not None:
        for value in (b'{"a": [{"b": 1}]}', b"\xff", None, b'{"a": "' + b"1" * 5000 + b'"}'):
            record = mask(FakeRecord(1, value, key=b"k", headers=[("trace", b"x")]), HASHER)
            assert test(record) in (True, False)


def test_a_long_index_in_a_filter() -> None:
    with pytest.raises(UsageError):
        Filter(path=f"a[{'1' * 5000}]").compiled()


# The selection of dead letters: command line, Dagster's launchpad, dashboard.

selections = st.fixed_dictionaries(
    {},
    optional={
        "codes": st.lists(texts | st.just("SCHEMA_VIOLATION"), max_size=2),
        "since": texts | st.from_regex(r"[0-9]{1,7}[smhd]", fullmatch=True),
        "until": texts | st.datetimes().map(str),
        "ids": st.lists(texts | st.from_regex(r"[a-z.]{1,5}/[0-9]+/[0-9]+", fullmatch=True), max_size=2),
        "text": texts | st.sampled_from([FORMS[form] for form in FORMS.keys() - OPEN_FORMS]),
        "loaded_until": texts,
        "statuses": st.lists(texts | st.just("open"), max_size=2),
        "limit": st.integers(),
    },
)  # fmt: skip


@fuzzed
@given(selections)
def test_selections(fields: dict[str, Any]) -> None:
    selection = refused_in_one_line(lambda: make_selection(HASHER, now=NOW, **fields), UsageError)
    if selection is not None:
        # It is stored: as JSON, without NUL and without addresses.
        kept = json.dumps(selection.as_dict(), default=str)
        assert "\\u0000" not in kept
        assert not holds_mark(kept.encode())


@pytest.mark.parametrize("fields", [{"ids": ["a\0/0/0"]}, {"limit": 2**63}])
def test_selections_that_cannot_be_stored(fields: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        make_selection(HASHER, **fields)


@fuzzed
@given(json_values)
def test_job_configuration(value: Any) -> None:
    import dagster as dg

    from streamflow_dagster.defs.replay import ReplayConfig, replay_dead_letters

    fields = value if isinstance(value, dict) else dict.fromkeys(("limit", "ids", "rate"), value)
    config = {"ops": {"replay": {"config": fields}}}
    try:
        dg.validate_run_config(replay_dead_letters, config)
        made = ReplayConfig(**fields)
    except (dg.DagsterInvalidConfigError, ValueError):
        return
    refused_in_one_line(made.options, UsageError)
    refused_in_one_line(made.require_plan_alone, UsageError)


# Socket.IO.


@fuzzed
@given(
    json_values
    | st.fixed_dictionaries({"topics": json_values, "types": json_values, "windows": json_values})
)
def test_socket_io_messages(request: Any) -> None:
    topics = USER_EVENTS.topic_names
    subscription = refused_in_one_line(lambda: parse_subscription(request, topics), UsageError)
    if subscription is not None:
        assert subscription.topics <= set(topics)
        kinds = frozenset(filter(lambda kind: isinstance(kind, str), [request]))
        subject = SimpleNamespace(
            topic=EVENTS, field=lambda _name: request, kinds=kinds, windows=None
        )
        assert subscription.accepts(subject) in (True, False)
    count = refused_in_one_line(lambda: parse_count(request, 100), UsageError)
    assert count is None or 0 <= count <= 100


@fuzzed
@given(json_values, texts | st.sampled_from(["2", "21", "2/x,", "2/,1", "0", "1", "3", "51-"]))
def test_socket_io_packets(value: Any, head: str) -> None:
    for data in (head, value, head + json.dumps(value), head + json.dumps([value, value])):
        why = flaw(Packet(MESSAGE, data))
        assert why is None or "\n" not in why


# Settings.

loaders = st.sampled_from([load_settings, load_dashboard_settings, load_orchestration_settings])
values = texts | st.sampled_from(
    [f"postgresql://u:{SECRET}@h:x/d", f"postgresql://u:{SECRET}%@h/d", f"{SECRET}://", "~nobody-here/x"]
)  # fmt: skip


@fuzzed
@given(loaders, st.dictionaries(st.sampled_from(sorted(FIELDS)), values, min_size=1, max_size=3))
def test_environment(load: Callable[[], object], given_values: dict[str, str]) -> None:
    usable = {
        name: value
        for name, value in given_values.items()
        if "\x00" not in value and value.isprintable()
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in usable.items():
            patch.setenv(name, value)
        refused_in_one_line(load, ConfigurationError)


toml_values = texts.map(json.dumps) | st.sampled_from(
    ["1", "-1", "1.5", "nan", "inf", "true", "[1, 'a']", "[]", "{a = 1}", "2026-11-26", "07:32:00",
     f"'{SECRET}'", "~/x", "''"]
)  # fmt: skip
names = st.sampled_from(sorted(FIELDS)) | st.text("STREAMFLOW_abc.='[]", max_size=12)
toml_lines = st.tuples(names, toml_values).map(" = ".join)
toml_files = st.lists(toml_lines, max_size=3).map("\n".join) | texts


@fuzzed
@given(
    loaders, toml_files.map(lambda text: text.encode("utf-8", "replace")) | st.binary(max_size=30)
)
def test_settings_file(folder: Path, load: Callable[[], object], content: bytes) -> None:
    (folder / "streamflow.toml").write_bytes(content)
    refused_in_one_line(load, ConfigurationError)


# Texts of other systems, which are parsed and never trusted.


@fuzzed
@given(texts | st.from_regex(r"postgres(ql)?://[a-z:@/?=%0-9#\[\],&]{0,30}", fullmatch=True))
def test_database_urls(text: str) -> None:
    try:
        once = normalized(text)
    except ValueError:
        return
    assert normalized(once) == once


@fuzzed
@given(st.binary(max_size=60), texts)
def test_positions_and_metadata(raw: bytes, text: str) -> None:
    for data in (raw, text.encode("utf-8", "replace")):
        origin = Origin.parse(data)
        assert origin is None or Origin.parse(origin.encode()) == origin
    PositionMetadata.parse(text)


# The command line.

COMMANDS = (
    ["produce"], ["audit"], ["topics"], ["status"], ["env"], ["down"], ["up"], ["init"], ["worker"],
    ["db"], ["db", "upgrade"], ["dlq"], ["dlq", "list"], ["dlq", "show"], ["dlq", "replay"], ["forget"], [],
)  # fmt: skip
OPTIONS = (
    "--from", "--rate", "--count", "--json", "--resume", "--wait", "--limit", "--since", "--code", "--id",
    "--apply", "--help", "--version", "--", "-", "--on-invalid", "--seed", "--health-port", "--instance",
)  # fmt: skip
arguments = st.tuples(
    st.sampled_from(COMMANDS),
    st.lists(
        st.sampled_from(OPTIONS) | texts.map(lambda text: text.replace("\x00", "")), max_size=4
    ),
).map(lambda parts: [*parts[0], *parts[1]])


def run(*given_arguments: str) -> tuple[int, str]:
    """Exit code and standard error of a command, in this process."""
    errors = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["streamflow", *given_arguments])
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
            try:
                main()
            except SystemExit as end:
                return int(end.code or 0), errors.getvalue()
    return 0, errors.getvalue()


@fuzzed
@given(arguments)
def test_command_line(folder: Path, given_arguments: list[str]) -> None:
    # What the parser accepts goes no further than to the settings: nothing is started.
    (folder / "streamflow.toml").write_text("STREAMFLOW_BROKERS = 'none'")
    code, errors = run(*given_arguments)
    assert code in (0, 1, 2), errors
    assert "Traceback" not in errors
    if code and given_arguments and "--help" not in given_arguments:
        lines = errors.splitlines()
        assert [line for line in lines if line.startswith("error: ")] == lines[-1:], errors
