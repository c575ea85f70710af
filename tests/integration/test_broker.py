"""The embedded broker on its own: start, crash, restart, start without a network."""

import contextlib
import functools
import http.server
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from faults import assert_on_loopback_only, is_running, kill, stalled, wait_until
from services import BrokerService, Quiet
from streamflow.errors import StackError
from streamflow.kafka.offsets import bounds
from streamflow_stack import aot_cache, jars
from streamflow_stack import broker as broker_module
from streamflow_stack.aot_training import train
from streamflow_stack.broker import Broker, Node
from streamflow_stack.embedded import environment
from streamflow_stack.process import Child, end_leftovers

pytestmark = pytest.mark.integration


def _create_topic(bootstrap: str, name: str) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(name, 1, 1)])[name].result(20)


def _produce(bootstrap: str, topic: str, values: list[bytes]) -> None:
    failures: list[KafkaError] = []

    def on_delivery(error: KafkaError | None, _record: object) -> None:
        if error:
            failures.append(error)

    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all"})
    for value in values:
        producer.produce(topic, value, on_delivery=on_delivery)
    assert producer.flush(30) == 0
    assert not failures


def _consume(bootstrap: str, topic: str, count: int) -> list[bytes | None]:
    consumer = Consumer(
        {"bootstrap.servers": bootstrap, "group.id": "reader", "enable.auto.commit": False}
    )
    consumer.assign([TopicPartition(topic, 0, 0)])
    found = consumer.consume(count, timeout=30)
    consumer.close()
    return [each.value() for each in found]


def test_why_kafka_does_not_format_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The JVM says first that it has read this variable, and last where Kafka has failed.
    options = environment() | {"JAVA_TOOL_OPTIONS": "-Xmx64m"}
    monkeypatch.setattr(broker_module, "environment", lambda: options)
    node = Node(-1, 1, 2, tmp_path / "kafka")
    with pytest.raises(StackError, match=r"cannot format .*: .*Invalid value -1 .* node\.id"):
        Broker(node, tmp_path / "kafka.log").prepare(Quiet())


def test_records_survive_sigkill_and_restart(own_broker: BrokerService) -> None:
    _create_topic(own_broker.bootstrap, "kept")
    values = [b"%d" % number for number in range(100)]
    _produce(own_broker.bootstrap, "kept", values)
    admin = AdminClient({"bootstrap.servers": own_broker.bootstrap})
    assert bounds(admin, [("kept", 0)]) == {("kept", 0): (0, 100)}

    own_broker.restart()

    # Also to one that knows the leader of before.
    assert bounds(admin, [("kept", 0)]) == {("kept", 0): (0, 100)}
    assert _consume(own_broker.bootstrap, "kept", 100) == values
    assert "formatting the broker's storage" not in own_broker.report.lines[1:]


def test_a_mistyped_topic_is_an_error(broker: BrokerService) -> None:
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    producer = Producer({"bootstrap.servers": broker.bootstrap, "message.timeout.ms": 3000})
    producer.produce("no-such-topic", b"x")
    producer.flush(10)
    assert "no-such-topic" not in admin.list_topics(timeout=10).topics


def test_it_listens_on_loopback_only(broker: BrokerService) -> None:
    assert_on_loopback_only(broker.port)


def test_a_broker_that_never_had_a_group_is_asked_about_one(own_broker: BrokerService) -> None:
    """Its first coordinator is made for the question; librdkafka#5040 killed the process then, so
    it is asked in one of its own."""
    code = (
        "from streamflow.settings import Settings; from streamflow.kafka import offsets\n"
        f"settings = Settings(KAFKA_BOOTSTRAP_SERVERS='{own_broker.bootstrap}')\n"
        "print(offsets.committed(settings, 'new', [('nothing', 0)]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "{}\n"), done.stderr


def test_a_stalled_broker_is_not_ready(own_broker: BrokerService) -> None:
    with stalled(own_broker.pid):
        assert not own_broker.probe().ready
    wait_until(lambda: own_broker.probe().ready, 20, "the broker after its stall")


def test_it_starts_without_network_when_the_cache_is_filled(
    broker: BrokerService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert broker.probe().ready  # The session's broker has filled the cache.
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    service = BrokerService(tmp_path)
    service.start()
    service.stop()


def test_an_unreachable_registry_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMFLOW_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("STREAMFLOW_MAVEN_MIRROR", "http://127.0.0.1:9/maven2")
    with pytest.raises(StackError, match="cannot be downloaded") as caught:
        jars.class_path(lambda _done, _total: None)
    assert "\n" not in str(caught.value)


def test_a_file_other_than_the_locked_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = jars.KAFKA_JARS.locked()[-1]
    one = jars.JarSet("Kafka", tmp_path / "lock.json", "kafka")
    one.write_lock([wanted])
    monkeypatch.setenv("STREAMFLOW_CACHE_DIR", str(tmp_path))
    group, artifact, version = wanted.coordinates.split(":")
    path = tmp_path / "mirror" / group.replace(".", "/") / artifact / version
    path.mkdir(parents=True)
    (path / wanted.file_name).write_bytes(b"something else")
    with _serving(tmp_path / "mirror") as url:
        monkeypatch.setenv("STREAMFLOW_MAVEN_MIRROR", url)
        with pytest.raises(StackError, match="is not the file that this release expects"):
            jars.class_path(lambda _done, _total: None, one)
    assert jars.cached_class_path(one) is None


def test_classes_linked_ahead_fit_the_options_of_a_broker(tmp_path: Path) -> None:
    train(Quiet())
    broker = Broker(Node(1, 2, 3, tmp_path), tmp_path / "kafka.log")
    java, *options = broker.launch().command[:-2]
    tool = ("kafka.tools.StorageTool", "random-uuid")
    # With "on" Java ends where it would go on without the file.
    command = (java, "-XX:AOTMode=on", *options, *tool)
    (tmp_path / "log4j2.xml").write_text("<Configuration/>")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert any(option.startswith("-XX:AOTCache=") for option in options)


def test_a_broken_file_of_classes_is_no_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "classes.aot"
    broken.write_bytes(b"broken")
    monkeypatch.setattr(aot_cache, "cache_file", lambda _class_path: broken)
    service = BrokerService(tmp_path)
    assert f"-XX:AOTCache={broken}" in service.server.launch().command
    service.start()
    service.stop()
    assert (tmp_path / "kafka.out").read_text() == ""


def test_a_leftover_is_found_and_ended(tmp_path: Path) -> None:
    service = BrokerService(tmp_path)
    service.start()
    pid = service.pid
    lines = list(end_leftovers(tmp_path / "run"))
    assert lines == [f"ended service (pid {pid}) of a crashed run"]
    wait_until(lambda: not is_running(pid), 10, "the broker's end")
    service.stop()


def test_a_pid_file_of_another_process_ends_nobody(tmp_path: Path) -> None:
    (tmp_path / "kafka.json").write_text(
        f'{{"name": "kafka", "pid": {os.getpid()}, "created": 1.0, "stop_signal": 15}}'
    )
    assert list(end_leftovers(tmp_path)) == ["removed the pid file of kafka: a crashed run left it"]
    assert not list(tmp_path.glob("*.json"))


def test_a_taken_port_is_told_by_the_log(broker: BrokerService, tmp_path: Path) -> None:
    other = BrokerService(tmp_path)
    taken = type(other.broker.node)(
        1, broker.port, other.broker.node.controller_port, tmp_path / "kafka"
    )
    other.broker.node = taken
    other.broker.prepare(Quiet())
    child = Child("kafka", other.broker.launch(), tmp_path / "run" / "kafka.json")
    wait_until(lambda: child.poll() is not None, 60, "the second broker's end")
    assert "in use" in child.last_words()


def test_transactions_and_consumer_groups_work(broker: BrokerService) -> None:
    _create_topic(broker.bootstrap, "transactional")
    producer = Producer({"bootstrap.servers": broker.bootstrap, "transactional.id": "one"})
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce("transactional", b"x")
    producer.commit_transaction(30)
    consumer = Consumer(
        {
            "bootstrap.servers": broker.bootstrap,
            "group.id": "readers",
            "group.protocol": "consumer",
            "auto.offset.reset": "earliest",
        }
    )
    consumer.subscribe(["transactional"])
    [found] = consumer.consume(1, timeout=30)
    consumer.close()
    assert found.value() == b"x"


def _committed(consumer: Consumer) -> int | None:
    """Of the only partition of topic t; None while the coordinator is not found."""
    try:
        [found] = consumer.committed([TopicPartition("t", 0)], 10)
    except KafkaException:
        return None
    return int(found.offset)


@pytest.mark.chaos
def test_what_is_loaded_of_groups_after_a_crash_stays_small(
    own_broker: BrokerService, tmp_path: Path
) -> None:
    """Compaction takes closed segments only, so these are closed early."""
    _create_topic(own_broker.bootstrap, "t")
    consumer = Consumer({"bootstrap.servers": own_broker.bootstrap, "group.id": "g"})
    wait_until(lambda: _committed(consumer) is not None, 30, "the coordinator")
    committed = 0

    def commit(times: int) -> None:
        nonlocal committed
        for _ in range(times):
            committed += 1
            position = TopicPartition("t", 0, committed, metadata="x" * 100)
            consumer.commit(offsets=[position], asynchronous=False)

    def size() -> int:
        commit(1)  # Kafka looks at a segment's age when it appends to it
        segments = tmp_path.glob("**/__consumer_offsets-*/*.log")
        return sum(segment.stat().st_size for segment in segments)

    commit(2_000)
    assert size() > 200_000
    wait_until(lambda: size() < 50_000, 60, "the commits to be compacted")
    consumer.close()
    own_broker.restart()
    reader = Consumer({"bootstrap.servers": own_broker.bootstrap, "group.id": "g"})
    wait_until(lambda: _committed(reader) == committed, 30, "the commit to be found again")
    reader.close()


def test_killed_broker_is_refused_then_found_again(own_broker: BrokerService) -> None:
    kill(own_broker.pid)
    assert not own_broker.probe().ready
    with pytest.raises(KafkaException):
        AdminClient({"bootstrap.servers": own_broker.bootstrap}).list_topics(timeout=1)
    own_broker.start()
    assert own_broker.probe().ready


@contextlib.contextmanager
def _serving(directory: Path) -> Iterator[str]:
    """A Maven mirror."""
    handler = functools.partial(_Silent, directory=str(directory))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


class _Silent(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass
