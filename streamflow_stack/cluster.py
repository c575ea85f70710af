"""The nodes of the embedded Kafka: one, or three of one cluster to try failover on one machine."""

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from streamflow.errors import StackError
from streamflow.settings import BROKERS, Settings
from streamflow_stack.broker import Broker, Node, new_cluster_id
from streamflow_stack.part import Part, StackReport, Stage
from streamflow_stack.state import StateDirectory, write_atomically

_FILE = "cluster.json"


@dataclass(frozen=True)
class Cluster:
    """What is kept of a cluster as a whole.

    Attributes:
        directory: holds a folder for each node, and the file that says what they have in common.
        brokers: how many nodes it is to have.
    """

    directory: Path
    brokers: int

    def claim(self) -> str:
        """The cluster's id; a new one for a new cluster.

        Raises:
            StackError: the data is of a cluster with another number of nodes.
        """
        found = self._known()
        if found is None:
            cluster_id = new_cluster_id()
            self.directory.mkdir(parents=True, exist_ok=True)
            content = json.dumps({"cluster_id": cluster_id, "brokers": self.brokers})
            write_atomically(self.directory / _FILE, content)
            return cluster_id
        cluster_id, brokers = found
        if brokers != self.brokers:
            raise StackError(
                f"the data in {self.directory} is of {_counted(brokers)}, not of "
                f"{_counted(self.brokers)}: start with `streamflow up --brokers {brokers}`, remove "
                "the data with `streamflow down --purge`, or choose another folder with "
                "STREAMFLOW_STATE_DIR"
            )
        return cluster_id

    def _known(self) -> tuple[str, int] | None:
        try:
            content = json.loads((self.directory / _FILE).read_text())
            return str(content["cluster_id"]), int(content["brokers"])
        except (OSError, ValueError, KeyError, TypeError):
            pass
        # Earlier releases had one node, which kept the id itself.
        try:
            return (self.directory / "1" / "formatted").read_text().strip(), 1
        except OSError:
            return None


def nodes_of(settings: Settings, directory: Path) -> tuple[Node, ...]:
    """The nodes that the settings ask for."""
    return tuple(
        Node(
            number,
            settings.port(name),
            settings.port(name.replace("kafka", "controller")),
            directory / str(number),
        )
        for number, name in enumerate(BROKERS[: settings.brokers], 1)
    )


def broker_parts(settings: Settings, state: StateDirectory) -> tuple[Part, ...]:
    """A part for each node: `kafka`, and for three of them `kafka-2` and `kafka-3`."""
    cluster = Cluster(state.directory / "kafka", settings.brokers)
    nodes = nodes_of(settings, cluster.directory)
    return tuple(
        _part(name, cluster, Broker(node, state.logs / f"{name}.log", nodes))
        for name, node in zip(BROKERS, nodes, strict=False)
    )


def _part(name: str, cluster: Cluster, broker: Broker) -> Part:
    return Part(
        name=name,
        stage=Stage.SERVICES,
        prepare=partial(_prepare, cluster, broker),
        launch=broker.launch,
        probe=broker.probe,
        ports=(broker.node.port, broker.node.controller_port),
        address=broker.address,
    )


def _prepare(cluster: Cluster, broker: Broker, report: StackReport) -> None:
    broker.cluster_id = cluster.claim()
    broker.prepare(report)


def _counted(brokers: int) -> str:
    return "one broker" if brokers == 1 else f"{brokers} brokers"
