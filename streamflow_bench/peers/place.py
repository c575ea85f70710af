"""Where a peer reads and writes: its topics, its group and its table, as variables of its environment."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from streamflow.kafka.clients import common_config
from streamflow.settings import Settings

# Beside the packages, in the repository only: peers are no part of the product.
FOLDER: Final = Path(__file__).parents[2] / "benchmarks" / "peers"

# Of the clients' own process.
_NOT_FOR_OTHERS: Final = {"logger", "client.id"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    settings: Settings  # Kafka, and the database with a schema of its own
    topic: str  # of the events
    group: str
    output: str  # topic of windows or notifications
    dead_letters: str
    lines: Path  # the events as a file
    directory: Path  # for files of its own

    def environment(self) -> Mapping[str, str]:
        """All variables but those that `Sandbox.environment` gives every process."""
        kafka = {
            name: value
            for name, value in common_config(self.settings).items()
            if name not in _NOT_FOR_OTHERS
        }
        return {
            "PEER_KAFKA": json.dumps(kafka),
            "PEER_TOPIC": self.topic,
            "PEER_GROUP": self.group,
            "PEER_OUTPUT": self.output,
            "PEER_DEAD_LETTERS": self.dead_letters,
            "PEER_LINES": str(self.lines),
            "PEER_DIRECTORY": str(self.directory),
        }
