"""A real schema registry: Apicurio's, with Confluent's API, from Maven as Kafka's jars are."""

import hashlib
import shutil
import tarfile
from pathlib import Path

import requests

from faults import free_ports, wait_until
from streamflow.errors import Unavailable
from streamflow.http import request
from streamflow_stack import jars
from streamflow_stack.embedded import environment, java
from streamflow_stack.process import Child, Launch

VERSION = "3.3.3"
SHA256 = "8bc6751c76d963734224b01d5e7f84ccb3cb61c87d3bd77c36c35f10a5cbed63"
START_SECONDS = 120.0


def unpacked() -> Path:
    """The registry's folder in the user's cache, after downloading what is not there."""
    folder = jars.cache_directory() / f"apicurio-registry-{VERSION}"
    program = folder / "app"
    with jars.exclusive(folder):
        if not program.exists():
            context = jars.maven(folder / "incoming")
            project = context.project("io.apicurio", "apicurio-registry-app").at_version(VERSION)
            archive = Path(project.artifact(classifier="all", packaging="tar.gz").resolve())
            if hashlib.sha256(archive.read_bytes()).hexdigest() != SHA256:
                archive.unlink()
                raise RuntimeError(f"{archive.name} is not the file that the tests expect")
            with tarfile.open(archive) as files:
                files.extractall(folder / "incoming" / "app", filter="data")
            # Only a whole folder gets its final name.
            (folder / "incoming" / "app").rename(program)
            shutil.rmtree(folder / "incoming")
    return program


class RegistryService:
    """A registry that runs. Start it from the main thread: it ends with its thread."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._port, self._management = free_ports(2)
        self._child: Child | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/apis/ccompat/v7"

    def start(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        options = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx384m")
        launch = Launch(
            command=(str(java()), *options, "-jar", str(unpacked() / "quarkus-run.jar")),
            log=self.directory / "registry.log",
            environment={
                **environment(),
                "QUARKUS_HTTP_HOST": "127.0.0.1",
                "QUARKUS_HTTP_PORT": str(self._port),
                "QUARKUS_MANAGEMENT_HOST": "127.0.0.1",
                "QUARKUS_MANAGEMENT_PORT": str(self._management),
            },
            inherits=False,
            directory=self.directory,
        )
        self._child = Child("registry", launch, self.directory / "registry.json")

        def ready() -> bool:
            assert self._child is not None
            assert self._child.poll() is None, f"it {self._child.last_words()}"
            try:
                return (
                    request("GET", f"{self.url}/subjects", timeout=5).status_code
                    == requests.codes.ok
                )
            except Unavailable:
                return False

        wait_until(ready, START_SECONDS, "the schema registry to be ready")

    def stop(self) -> None:
        if self._child is not None:
            self._child.stop(20)
            self._child = None
