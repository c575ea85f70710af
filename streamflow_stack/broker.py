"""The embedded broker: Apache Kafka in KRaft mode, broker and controller in one process.

A node is a folder: ``server.properties`` and ``log4j2.xml`` (written at each start), ``data``, the
marker ``formatted`` and ``tmp``. Several nodes share a cluster id and a list of voters. The folder is the
process's working directory, and all paths are relative to it: a comma in a path would be two folders to
Kafka, a backslash an escape, and log4j would read a URI.
"""

import base64
import os
import shutil
import subprocess
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from streamflow.errors import StackError
from streamflow_stack import aot_cache, jars, offsets_topic
from streamflow_stack.embedded import environment, java
from streamflow_stack.part import LOOPBACK, PROBE_SECONDS, READY, Health, StackReport
from streamflow_stack.process import Launch, reason_in

FORMAT_SECONDS = 120.0

_PROPERTIES = "server.properties"

JVM_OPTIONS = (
    # What an idle broker needs; the heap grows with the load.
    "-Xms64m",
    "-Xmx1g",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    # A start on a busy machine makes it grow to 300 MB otherwise.
    "-XX:GCTimeRatio=4",
    # And it shrinks again: by default most of a heap may stay free, and what an idle broker leaves behind,
    # 5 MB a minute, fills that first. Collectors other than G1 let it fill all of -Xmx.
    "-XX:-G1UseAdaptiveIHOP",
    "-XX:InitiatingHeapOccupancyPercent=65",
    "-XX:MinHeapFreeRatio=30",
    "-XX:MaxHeapFreeRatio=45",
    # What threads have freed stays in glibc's heaps otherwise, 25 MB and more of the compiler's.
    "-XX:TrimNativeHeapInterval=10000",
    # A broker without memory must end, so that it is started again, rather than limp on.
    "-XX:+ExitOnOutOfMemoryError",
    "-Djava.awt.headless=true",
    "-Djava.io.tmpdir=tmp",
    "-Dlog4j2.configurationFile=log4j2.xml",
    # Its counters would be a file in /tmp, which a killed JVM leaves behind.
    "-XX:+PerfDisableSharedMem",
    # Native compression libraries, which the JVM would otherwise warn about.
    "--enable-native-access=ALL-UNNAMED",
    "--sun-misc-unsafe-memory-access=allow",
)


@dataclass(frozen=True)
class Node:
    number: int  # its ``node.id``, from 1
    port: int  # for clients
    controller_port: int  # for the other nodes
    directory: Path

    @property
    def data(self) -> Path:
        return self.directory / "data"


@dataclass
class Broker:
    node: Node
    log: Path  # Kafka's own; what the JVM prints goes beside it
    nodes: Sequence[Node] = ()  # all of the cluster; only this one by default
    cluster_id: str | None = None  # of all nodes; if None, the node makes one when it is formatted
    _groups_kept_small: bool = field(default=False, init=False, repr=False)

    @property
    def address(self) -> str:
        return f"{LOOPBACK}:{self.node.port}"

    def prepare(self, report: StackReport) -> None:
        """Downloads the jars and formats the storage, unless both were done before. Raises StackError
        if the jars cannot be downloaded, or Kafka refuses the folder."""
        class_path = jars.class_path(partial(report.progress, "Apache Kafka"))
        node = self.node
        temporary = node.directory / "tmp"
        # A killed JVM leaves its unpacked native libraries behind.
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        (node.directory / _PROPERTIES).write_text(self._configuration())
        (node.directory / "log4j2.xml").write_text(_LOGGING)
        marker = node.directory / "formatted"
        if not marker.exists():
            report.say("formatting the broker's storage")
            # Left by an attempt that did not finish.
            shutil.rmtree(node.data, ignore_errors=True)
            cluster_id = self.cluster_id or new_cluster_id()
            self._format(class_path, cluster_id)
            marker.write_text(cluster_id + "\n")

    def launch(self) -> Launch:
        class_path = jars.cached_class_path()
        if class_path is None:
            raise StackError(f"Kafka's jars are gone from {jars.cache_directory()}: start again")
        return Launch(
            command=(*self._java(class_path), "kafka.Kafka", _PROPERTIES),
            log=self.log.with_suffix(".out"),
            environment=environment(),
            inherits=False,
            own_log=self.log,
            directory=self.node.directory,
        )

    @cached_property
    def _admin(self) -> AdminClient:
        return AdminClient(
            {
                "bootstrap.servers": self.address,
                "reconnect.backoff.max.ms": 250,
                "socket.timeout.ms": PROBE_SECONDS * 1000,
                "log_level": 0,
            }
        )

    def probe(self) -> Health:
        """Whether this node is registered in a cluster that has a controller."""
        health = probe_cluster(self._admin, self.node.number)
        if health.ready and not self._groups_kept_small and len(self.nodes) <= 1:
            try:
                offsets_topic.keep_small(
                    self._admin, self._admin.list_topics(timeout=PROBE_SECONDS).topics
                )
            except (KafkaException, TimeoutError) as error:
                return Health(answered=True, ready=False, detail=f"{offsets_topic.TOPIC}: {error}")
            self._groups_kept_small = True
        return health

    def _format(self, class_path: str, cluster_id: str) -> None:
        command = (
            *(*self._java(class_path), "kafka.tools.StorageTool", "format"),
            *(f"--cluster-id={cluster_id}", "--config", _PROPERTIES),
        )
        try:
            done = subprocess.run(  # noqa: S603 (our own command)
                command,
                capture_output=True,
                text=True,
                check=False,
                timeout=FORMAT_SECONDS,
                cwd=self.node.directory,
                env=environment(),
            )
        except subprocess.TimeoutExpired:
            raise StackError(
                f"Kafka has not formatted {self.node.data} within {FORMAT_SECONDS:g} s: the machine "
                "is too busy, try again"
            ) from None
        if done.returncode != 0:
            reason = reason_in(done.stderr) or reason_in(done.stdout) or f"code {done.returncode}"
            raise StackError(f"Kafka cannot format {self.node.data}: {reason}")

    def _java(self, class_path: str) -> tuple[str, ...]:
        # Both without links, since the process steps up from where it really is.
        log = os.path.relpath(self.log.resolve(), self.node.directory.resolve())
        options = (*JVM_OPTIONS, *aot_cache.options(class_path), f"-Dstreamflow.log={log}")
        return (str(java()), *options, "-cp", class_path)

    def _configuration(self) -> str:
        nodes = self.nodes or (self.node,)
        replicas = min(3, len(nodes))
        voters = (f"{node.number}@{LOOPBACK}:{node.controller_port}" for node in nodes)
        values = {
            "process.roles": "broker,controller",
            "node.id": self.node.number,
            "controller.quorum.voters": ",".join(voters),
            "listeners": f"PLAINTEXT://{LOOPBACK}:{self.node.port},"
            f"CONTROLLER://{LOOPBACK}:{self.node.controller_port}",
            "advertised.listeners": f"PLAINTEXT://{LOOPBACK}:{self.node.port}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name": "PLAINTEXT",
            "controller.listener.names": "CONTROLLER",
            "log.dirs": self.node.data.name,
            "offsets.topic.replication.factor": replicas,
            "transaction.state.log.replication.factor": replicas,
            "transaction.state.log.min.isr": max(1, replicas - 1),
            "share.coordinator.state.topic.replication.factor": replicas,
            "share.coordinator.state.topic.min.isr": max(1, replicas - 1),
            **_BROKER_DEFAULTS,
            **(_ALONE if len(nodes) == 1 else _TOGETHER),
        }
        return "".join(f"{name}={value}\n" for name, value in values.items())


def probe_cluster(admin: AdminClient, number: int | None = None) -> Health:
    """Whether a cluster answers and has a controller; with `number`, whether that node is in it."""
    try:
        metadata: Any = admin.list_topics(timeout=PROBE_SECONDS)
    except KafkaException as error:
        return Health(answered=False, ready=False, detail=error.args[0].str())
    if metadata.controller_id < 0 or not metadata.brokers:
        return Health(answered=True, ready=False, detail="the cluster has no controller yet")
    if number is not None and number not in metadata.brokers:
        return Health(answered=True, ready=False, detail="the broker is not registered yet")
    return READY


def new_cluster_id() -> str:
    """A random id, as Kafka's own ``Uuid`` writes them."""
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")


_BROKER_DEFAULTS = {
    # A mistyped name must be an error, not a new topic.
    "auto.create.topics.enable": "false",
    # One machine: few coordinator partitions start faster and lose nothing.
    "offsets.topic.num.partitions": offsets_topic.PARTITIONS,
    "transaction.state.log.num.partitions": 5,
    "share.coordinator.state.topic.num.partitions": 1,
    "group.initial.rebalance.delay.ms": 0,
    # A dead worker's partitions move on after 10 s (KIP-848), or 6 s and more (classic).
    "group.consumer.session.timeout.ms": 10_000,
    "group.consumer.min.session.timeout.ms": 6_000,
    "group.consumer.heartbeat.interval.ms": 2_000,
    "group.consumer.min.heartbeat.interval.ms": 1_000,
    "group.min.session.timeout.ms": 6_000,
    "log.retention.check.interval.ms": 60_000,
    # The cleaner allocates all of it at its start: 128 MB by default. This is enough for 150,000 keys at a
    # time; a segment with more is compacted in several steps.
    "log.cleaner.dedupe.buffer.size": 4_194_304,
    "num.network.threads": 2,
    "num.io.threads": 4,
}

_ALONE = {
    # After a crash the controller refuses the broker until its former session has ended. With both
    # in one process no other controller has to notice a silence early, so that wait (9 s) can be short.
    "broker.session.timeout.ms": 2_000,
    "broker.heartbeat.interval.ms": 500,
    # Every half second the controller writes a record that says nothing, for other nodes to see that it is
    # alive. There are none.
    "metadata.max.idle.interval.ms": 0,
    # See `offsets_topic`.
    "log.cleaner.backoff.ms": 5_000,
}

_TOGETHER = {
    # What one node alone has acknowledged is lost with it: consumers' offsets as well.
    "default.replication.factor": 3,
    "min.insync.replicas": 2,
}

_LOGGING = """\
<?xml version="1.0" encoding="UTF-8"?>
<Configuration status="ERROR">
  <Appenders>
    <RollingFile name="file" fileName="${sys:streamflow.log}"
                 filePattern="${sys:streamflow.log}.%i">
      <PatternLayout pattern="%d{yyyy-MM-dd'T'HH:mm:ss.SSSXXX} %-5p %c{1}: %m%n%throwable{10}"/>
      <SizeBasedTriggeringPolicy size="20 MB"/>
      <DefaultRolloverStrategy max="3"/>
    </RollingFile>
  </Appenders>
  <Loggers>
    <Root level="WARN"><AppenderRef ref="file"/></Root>
    <Logger name="kafka.server.KafkaRaftServer" level="INFO"/>
    <Logger name="org.apache.kafka.coordinator" level="INFO"/>
    <!-- It prints every setting of every component at each start. -->
    <Logger name="org.apache.kafka.common.config.AbstractConfig" level="ERROR"/>
  </Loggers>
</Configuration>
"""
