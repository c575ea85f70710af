"""Makes the file of `streamflow_stack.aot_cache`: ``python -m streamflow_stack.aot_training``.

A broker in a temporary folder starts, serves a transaction and a consumer group, and ends; Java writes
down which classes that took. It costs ten seconds of a processor, once for each Java and version of Kafka.
"""

import sys
import tempfile
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic
from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

from streamflow.errors import StackError, StreamFlowError
from streamflow.kafka import clients
from streamflow_stack import aot_cache, jars
from streamflow_stack.broker import Broker, Node
from streamflow_stack.part import LOOPBACK, StackReport
from streamflow_stack.preflight import free_port
from streamflow_stack.process import Child, Launch

# Without the second compiler there are no profiles in the file: with them Java compiles so much at once that
# a start costs twice the time of the processor.
_OPTIONS = ("-XX:TieredStopAtLevel=1",)
_TOPIC = "training"
_RECORDS = 2_000
_START_SECONDS = 120.0
# After its end Java assembles the file, with all processors.
_STOP_SECONDS = 120.0


class _Silent:
    def say(self, text: str) -> None:
        pass

    def progress(self, what: str, done: int, total: int) -> None:
        pass


@dataclass
class _RecordedBroker(Broker):
    output: Path = Path()

    def launch(self) -> Launch:
        launch = super().launch()
        java, *rest = launch.command
        return replace(
            launch, command=(java, *_OPTIONS, f"-XX:AOTCacheOutput={self.output}", *rest)
        )


def train(report: StackReport) -> Path:
    """Makes the file, unless it is there; returns where.

    Raises:
        StackError: the jars cannot be downloaded, or the broker does not start or makes no file.
        Unavailable: the broker does not answer.
    """
    class_path = jars.class_path(partial(report.progress, "Apache Kafka"))
    with jars.exclusive(jars.jar_folder()):
        final = aot_cache.cache_file(class_path)
        if final.exists():
            return final
        with tempfile.TemporaryDirectory(dir=jars.jar_folder(), prefix="training-") as folder:
            made = _recorded(Path(folder))
            # What others see is whole.
            made.replace(final)
    return final


def _recorded(folder: Path) -> Path:
    node = Node(1, free_port(LOOPBACK), free_port(LOOPBACK), folder / "kafka")
    log = folder / "kafka.log"
    broker = _RecordedBroker(node, log, output=folder / "classes.aot")
    broker.prepare(_Silent())
    child = Child("kafka", broker.launch(), folder / "kafka.json")
    try:
        _wait_until_ready(broker, child)
        with clients.kafka_errors():
            _work(broker.address)
        child.stop(_STOP_SECONDS)
    finally:
        child.kill()
    if not broker.output.exists():
        raise StackError(f"Java made no file of Kafka's classes: the broker {child.last_words()}")
    return broker.output


def _wait_until_ready(broker: Broker, child: Child) -> None:
    ready = Retrying(
        retry=retry_if_result(lambda ready: not ready),
        stop=stop_after_delay(_START_SECONDS),
        wait=wait_fixed(0.2),
        retry_error_callback=lambda _state: False,
    )
    if not ready(lambda: child.poll() is not None or broker.probe().ready) or child.poll():
        raise StackError(f"the broker that is recorded {child.last_words()}")


def _work(address: str) -> None:
    """What the workers ask of a broker: topics, transactions, groups, and reading what is committed."""
    servers: dict[str, Any] = {"bootstrap.servers": address}
    # The client has a name: one that is collected cancels its requests.
    admin = AdminClient(servers)
    admin.create_topics([NewTopic(_TOPIC, 3, 1)])[_TOPIC].result(60)
    producer = Producer({**servers, "transactional.id": _TOPIC})
    producer.init_transactions(60)
    producer.begin_transaction()
    for number in range(_RECORDS):
        producer.produce(_TOPIC, b"%d" % number)
    producer.commit_transaction(60)
    consumer = Consumer(
        {
            **servers,
            "group.id": _TOPIC,
            "group.protocol": "consumer",
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
        }
    )
    consumer.subscribe([_TOPIC])
    left = _RECORDS
    while left > 0:
        left -= len(consumer.consume(left, 10)) or left
    consumer.commit(asynchronous=False)
    consumer.close()


if __name__ == "__main__":
    try:
        print(train(_Silent()))  # noqa: T201 (a command)
    except StreamFlowError as error:
        sys.exit(f"error: {error}")
