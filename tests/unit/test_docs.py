"""What the documents say of the repository is so."""

import inspect
import json
import re
from enum import IntEnum
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from pydantic import create_model

import streamflow
from streamflow import Event, Rejection, Stream, Timestamp, Topics, TumblingWindow, trial
from streamflow.dead_letters.plan import Obstacle
from streamflow.dead_letters.repairs import known_repairs
from streamflow.declarations import problems
from streamflow.postgres.tables import ORIGIN_COLUMNS, SHARED, TIME_COLUMNS, Table, event_columns
from streamflow.privacy import Hasher
from streamflow.producer.lines import Accepted, LineReader
from streamflow.settings import Settings
from streamflow.streams.user_events import UserEvent

ROOT = Path(__file__).parents[2]
PAGES = [
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    *(str(page.relative_to(ROOT)) for page in ROOT.glob("docs/**/*.md")),
]
FOLDERS = {folder.name for folder in ROOT.iterdir() if folder.is_dir()}
TESTS = {file.name for file in ROOT.glob("tests/**/*.py")}


@pytest.mark.parametrize("page", PAGES)
def test_every_path_that_a_page_names_is_there(page: str) -> None:
    for path in re.findall(r"`([\w./-]+)`", (ROOT / page).read_text()):
        first = path.split("/")[0]
        if "/" in path and first in FOLDERS and not first.startswith("."):
            assert (ROOT / path).exists(), path
        if re.fullmatch(r"test_\w+\.py", path):
            assert path in TESTS, path


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    folder = (ROOT / page).parent
    for link in re.findall(r"\]\(([^)\s]+)\)", (ROOT / page).read_text()):
        target, _, anchor = link.partition("#")
        if "://" in link:
            continue
        file = folder / target if target else ROOT / page
        assert file.exists(), link
        if anchor:
            titles = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in titles}
            assert anchor in anchors, link


def test_the_example_of_user_events_satisfies_their_contract() -> None:
    [block] = re.findall(
        r"```json\n(.+?)```", (ROOT / "docs/architecture.md").read_text(), re.DOTALL
    )
    events = [json.loads(line) for line in block.splitlines()]
    assert set().union(*events) == set(UserEvent.model_fields)
    for event in events:
        if "user_email" in event:
            event["user_email"] = Hasher().hash(event["user_email"])
        UserEvent.model_validate_json(json.dumps(event))


def test_guarantees_that_code_cites_are_described() -> None:
    page = (ROOT / "docs/guarantees.md").read_text()
    described = set(re.findall(r"^## (G\d+) ", page, re.MULTILINE))
    folders = [name for name in FOLDERS if re.match(r"stream|tests", name)]
    cited = {
        number
        for folder in folders
        for file in (ROOT / folder).rglob("*.py")
        for number in re.findall(r"\bG\d{1,2}\b", file.read_text())
    }
    assert cited <= described
    assert len(described) == 16


STREAMS = (ROOT / "docs/streams.md").read_text()


@cache
def declared_on_the_page() -> dict[str, Any]:
    """What the Python blocks of the page on streams declare, one after the other."""
    names: dict[str, Any] = {"__name__": "my_streams"}
    for block in re.findall(r"```python\n(.+?)```", STREAMS, re.DOTALL):
        exec(block, names)  # noqa: S102
    return names


def test_the_streams_on_the_page_can_be_declared() -> None:
    streams = [each for each in declared_on_the_page().values() if isinstance(each, Stream)]
    assert [each.name for each in streams] == ["orders", "shop", "webhooks", "readings", "clicks"]
    for number, stream in enumerate(streams):
        assert problems(stream, streams[:number]) == []
        hasher = Hasher(private_fields=stream.decoder.private_fields)
        assert trial.problems(stream, trial.samples_of(stream, hasher), hasher) == []


@pytest.mark.parametrize("page", ["README.md", "docs/tutorial.md"])
def test_the_stream_that_a_visitor_sees_first_can_be_declared(page: str) -> None:
    [block] = re.findall(r"```python\n(.+?)```", (ROOT / page).read_text(), re.DOTALL)
    names: dict[str, Any] = {"__name__": "my_streams"}
    exec(block, names)  # noqa: S102
    assert problems(names["ORDERS"], ()) == []


def test_the_events_on_the_page_satisfy_its_contract() -> None:
    orders = declared_on_the_page()["ORDERS"]
    reader = LineReader(orders, Hasher(private_fields=orders.decoder.private_fields))
    [block] = re.findall(r"```json\n(.+?)```", STREAMS, re.DOTALL)
    for line in block.splitlines():
        sent = reader.read(line.encode())
        assert isinstance(sent, Accepted), sent
        [notification] = orders.notifications_of([sent.event])
        assert not isinstance(notification, Rejection)
        assert b"@" not in sent.value
        assert orders.decoder.decode(sent.value) == sent.event


def test_the_repairs_on_the_page_repair_what_it_says() -> None:
    page = (ROOT / "docs/repairs.md").read_text()
    names: dict[str, Any] = {"__name__": "my_repairs"}
    for block in re.findall(r"```python\n(.+?)```", page, re.DOTALL):
        exec(block, names)  # noqa: S102
    names["test_country_code"]()
    orders = declared_on_the_page()["ORDERS"]
    assert names["no_trace_id"]({"traceId": 1, "id": 2}, orders, Hasher()) == {"id": 2}
    assert names["allowed"].takes_replays
    built_in = {name: known.help for name, known in known_repairs(Settings()).items()}
    assert set(re.findall(r"^\| `([a-z_]+)` \|", page, re.MULTILINE)) == built_in.keys()
    assert set(re.findall(r"`([A-Z_]{5,})`", page)) >= {obstacle.value for obstacle in Obstacle}


@pytest.mark.parametrize("kind", [Stream, Topics, TumblingWindow])
def test_the_page_has_every_argument(kind: Any) -> None:
    cells = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", STREAMS, re.MULTILINE)
    named = {name for cell in cells for name in re.findall(r"\w+", cell)}
    arguments = inspect.signature(kind).parameters.values()
    assert {each.name for each in arguments if each.kind is not each.VAR_KEYWORD} <= named


class Priority(IntEnum):
    LOW = 1
    HIGH = 2


def types_on_the_page() -> list[tuple[str, str]]:
    [table] = re.findall(r"\| field \| in JSON \| column \|\n\|.+\n((?:\|.+\n)+)", STREAMS)
    rows = [re.split(r"(?<!\\)\|", line)[1:4] for line in table.splitlines()]
    return [
        (annotation.replace("\\|", "|"), column.strip(" `"))
        for fields, _, column in rows
        for annotation in re.findall(r"`([^`]+)`", fields)
    ]


@pytest.mark.parametrize(("annotation", "column"), types_on_the_page())
def test_each_type_has_the_column_that_the_page_says(annotation: str, column: str) -> None:
    imports = (
        "from datetime import *; from decimal import Decimal; from typing import *; from uuid import UUID;"
        "from pydantic import AwareDatetime, Field, HttpUrl; from streamflow import *"
    )
    names = declared_on_the_page() | {"Priority": Priority}
    exec(imports, names)  # noqa: S102
    fields: dict[str, Any] = {"it": (eval(annotation, names), ...), "timestamp": (Timestamp, ...)}  # noqa: S307
    model = create_model("Model", __base__=Event, **fields)
    stream = Stream(name="it", contract=model, table="it", key="timestamp")
    assert event_columns(stream)[0].type == column


def test_the_page_names_what_is_taken_and_what_is_imported() -> None:
    for name in (*ORIGIN_COLUMNS, *TIME_COLUMNS, "unknown_fields"):
        assert f"`{name}`" in STREAMS
    for name in re.findall(r"from streamflow import ([\w, ]+)", STREAMS):
        assert set(name.split(", ")) <= set(streamflow.__all__)


@pytest.mark.parametrize("table", SHARED, ids=lambda table: table.name)
def test_the_columns_of_shared_tables_are_listed(table: Table) -> None:
    page = (ROOT / "docs/reference/tables.md").read_text().partition("## Shared tables")[2]
    said, _, rest = page.partition("\n\n`window_counts`:")
    own = f"\n\n`window_counts`:{rest}".split(f"\n\n`{table.name}`: ")[1].split("\n\n")[1]
    listed = [
        name for row in own.splitlines()[2:] for name in re.findall(r"`(\w+)`", row.split("|")[1])
    ]
    by_itself = {"status"} if table.name == "dead_letters" else set()
    of_every_one = set(re.findall(r"`(\w+)`", said)) & {
        "appended_at",
        "record_topic",
        "record_partition",
        "record_offset",
    }
    assert sorted([*listed, *of_every_one]) == sorted({*table.columns} | by_itself)
