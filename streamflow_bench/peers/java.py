"""Peers in Java: their jars, locked as Kafka's own, and their classes, made by Eclipse's compiler, which is a
jar too and needs no JDK.

To move to other versions, change them here and renew the locks: ``python -m streamflow_bench.peers.java``.
"""

import os
import subprocess
from pathlib import Path
from typing import Final

from streamflow.errors import StackError
from streamflow_bench.peers.place import FOLDER
from streamflow_stack import jars
from streamflow_stack.embedded import java
from streamflow_stack.jars import KAFKA_VERSION, JarSet

DEBEZIUM_VERSION: Final = "3.5.0.Final"
JDBC_VERSION: Final = "42.7.14"
COMPILER_VERSION: Final = "3.46.100"

STREAMS: Final = JarSet(
    "Kafka Streams", FOLDER / "java" / "streams-jars.json", f"kafka-streams-{KAFKA_VERSION}"
)
CONNECT: Final = JarSet(
    "Kafka Connect",
    FOLDER / "java" / "connect-jars.json",
    f"kafka-connect-{KAFKA_VERSION}-debezium-{DEBEZIUM_VERSION}",
)
_COMPILER: Final = JarSet(
    "Eclipse's compiler", FOLDER / "java" / "compiler-jars.json", f"ecj-{COMPILER_VERSION}"
)
_LANGUAGE: Final = "17"
_LOG_BRIDGE: Final = "org.slf4j:slf4j-simple:1.7.36"
_CONNECT: Final = (
    *("connect-runtime", "connect-api", "connect-json", "connect-transforms"),
    "kafka-clients",
)
_SOURCES: Final = {
    STREAMS: ("LoginEvent", "Router", "StreamsPeer", "Windows"),
    CONNECT: ("LoginEvent", "ToRow"),
}


def class_path(wanted: JarSet, classes: Path) -> str:
    """The jars, downloaded if need be, and our classes, compiled into a new folder. Raises StackError if
    either fails."""
    libraries = jars.class_path(lambda _done, _total: None, wanted)
    compiler = jars.class_path(lambda _done, _total: None, _COMPILER)
    sources = [str(FOLDER / "java" / f"{name}.java") for name in _SOURCES[wanted]]
    options = ("-source", _LANGUAGE, "-target", _LANGUAGE, "-nowarn", "-cp", libraries)
    done = subprocess.run(  # noqa: S603 (our own command)
        [str(java()), "-jar", compiler, *options, "-d", str(classes), *sources],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise StackError(f"{wanted.title}: its classes cannot be compiled: {done.stderr[:500]}")
    return os.pathsep.join((str(classes), libraries))


def _renew() -> None:
    context = jars.maven(STREAMS.folder / "resolve")
    log = jars.locked(context, _LOG_BRIDGE)
    streams = jars.resolved(context, [f"org.apache.kafka:kafka-streams:{KAFKA_VERSION}"])
    STREAMS.write_lock([*streams, log])
    connect = jars.resolved(
        context,
        [
            # Each by name: Debezium's metadata would take others of Kafka.
            *(f"org.apache.kafka:{name}:{KAFKA_VERSION}" for name in _CONNECT),
            f"io.debezium:debezium-connector-jdbc:{DEBEZIUM_VERSION}",
            f"org.postgresql:postgresql:{JDBC_VERSION}",
        ],
    )
    CONNECT.write_lock([*connect, log])
    _COMPILER.write_lock([jars.locked(context, f"org.eclipse.jdt:ecj:{COMPILER_VERSION}")])


if __name__ == "__main__":
    _renew()
