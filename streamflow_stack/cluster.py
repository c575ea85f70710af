"""The nodes of the embedded Kafka: one, or three of one cluster to try failover on one machine."""

import json
from functools import partial
from pathlib import Path

from streamflow.errors import StackError
from streamflow.settings import BROKERS, Settings
from streamflow_stack.broker import Broker, Node, new_cluster_id
from streamflow_stack.part import Part, StackReport, Stage
from streamflow_stack.state import StateDirectory, write_atomically

_FILE = "cluster.json"


def broker_parts(settings: Settings, state: StateDirectory) -> tuple[Part, ...]:
    """A part for each node: `kafka`, and for three of them `kafka-2` and `kafka-3`."""
    directory = state.directory / "kafka"
    names = BROKERS[: settings.brokers]
    nodes = tuple(
        Node(
            number,
            settings.port(name),
            settings.port(name.replace("kafka", "controller")),
            directory / str(number),
        )
        for number, name in enumerate(names, 1)
    )
    return tuple(
        _part(name, directory, Broker(node, state.logs / f"{name}.log", nodes))
        for name, node in zip(names, nodes, strict=True)
    )


def _part(name: str, directory: Path, broker: Broker) -> Part:
    return Part(
        name=name,
        stage=Stage.SERVICES,
        prepare=partial(_prepare, directory, broker),
        launch=broker.launch,
        probe=broker.probe,
        ports=(broker.node.port, broker.node.controller_port),
        address=broker.address,
    )


def _prepare(directory: Path, broker: Broker, report: StackReport) -> None:
    broker.cluster_id = _claim(directory, len(broker.nodes))
    broker.prepare(report)


def _claim(directory: Path, brokers: int) -> str:
    """The id of the cluster in a folder; a new one for a new cluster. Raises StackError if the data is
    of a cluster with another number of nodes."""
    known = _known(directory)
    if known is None:
        cluster_id = new_cluster_id()
        directory.mkdir(parents=True, exist_ok=True)
        content = json.dumps({"cluster_id": cluster_id, "brokers": brokers})
        write_atomically(directory / _FILE, content)
        return cluster_id
    cluster_id, known_brokers = known
    if known_brokers != brokers:
        raise StackError(
            f"the data in {directory} is of {_counted(known_brokers)}, not of "
            f"{_counted(brokers)}: start with `streamflow up --brokers {known_brokers}`, remove "
            "the data with `streamflow down --purge`, or choose another folder with "
            "STREAMFLOW_STATE_DIR"
        )
    return cluster_id


def _known(directory: Path) -> tuple[str, int] | None:
    try:
        content = json.loads((directory / _FILE).read_text())
        return str(content["cluster_id"]), int(content["brokers"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    # Earlier releases had one node, which kept the id itself.
    try:
        return (directory / "1" / "formatted").read_text().strip(), 1
    except OSError:
        return None


def _counted(brokers: int) -> str:
    return "one broker" if brokers == 1 else f"{brokers} brokers"
