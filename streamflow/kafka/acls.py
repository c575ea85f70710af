"""The least rights that each part needs in a Kafka cluster with ACLs.

Names are those of ``kafka-acls.sh``. Read and Write imply Describe, AlterConfigs implies DescribeConfigs.
"""

import shlex
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from streamflow.kafka import kept_positions
from streamflow.settings import GROUPS, Settings
from streamflow.stream import Stream, reads, writes

# The topic of the dashboard's end-to-end probe, and what makes `produce --from`'s and the replays' names.
_PROBE: Final = "streamflow-probe"
_FILES: Final = "produce-"
_REPLAYS: Final = "replay-"
_INGEST: Final = "ingest-"
# Who reads without being a member: the client asks for the coordinator of a group all the same.
_SCANS: Final = "streamflow-"


class Right(NamedTuple):
    part: str
    resource: str  # topic, group or transactional-id
    name: str
    operations: tuple[str, ...]
    prefixed: bool = False  # `name` is the beginning of the names

    def command(self, principal: str, bootstrap: str, config: str | None = None) -> str:
        """As a line for a shell that grants it. `config` is the file that says how an administrator
        connects."""
        words = ["kafka-acls.sh", "--bootstrap-server", bootstrap]
        words += [] if config is None else ["--command-config", config]
        words += ["--add", "--allow-principal", principal]
        for operation in self.operations:
            words += ["--operation", operation]
        words += [f"--{self.resource}", self.name]
        if self.prefixed:
            words += ["--resource-pattern-type", "prefixed"]
        return shlex.join(words)


def least_rights(settings: Settings, streams: Sequence[Stream]) -> list[Right]:
    """What each part needs: ``setup`` (`init`, `topics --apply`), ``producer``, the workers, ``ingest`` (by
    HTTP), ``replay`` (`dlq`, in addition to ``reader``), ``reader`` (`audit`, `status`, `doctor`, `forget`),
    ``dashboard`` (in addition to ``reader``)."""
    prefix = settings.prefix
    events = [stream.topic for stream in streams]
    derived = [name for stream in streams for name in stream.topic_names if name not in events]
    managed = [stream.topic for stream in streams if stream.topics.managed]
    setup = ("Create", "Alter", "AlterConfigs")
    positions = kept_positions.topic_of(settings)
    rights = [
        *_topics("setup", [*managed, *derived, positions], setup),
        *_topics("setup", set(events) - set(managed), ("Describe", "DescribeConfigs")),
        *_topics("producer", events, ("Write",)),
        *_topics("producer", [positions], ("Read", "Write")),
        _scans("producer", prefix),
        Right("producer", "group", prefix + _FILES, ("Read",), prefixed=True),
        Right("producer", "transactional-id", prefix + _FILES, ("Write",), prefixed=True),
    ]
    for worker in GROUPS:
        group = settings.group(worker)
        written = [topic for stream in streams for topic in writes(worker, stream)]
        rights += _topics(worker, reads(worker, streams), ("Read",))
        rights += _topics(worker, written, ("Write",))
        rights += [Right(worker, "group", group, ("Read",)), _scans(worker, prefix)]
        if worker in {"validator", "analytics"}:
            own = Right(worker, "transactional-id", f"{group}-", ("Write",), prefixed=True)
            rights += [own, *_topics(worker, [positions], ("Read", "Write"))]
    return [
        *rights,
        *_topics(
            "replay",
            (stream.topic for stream in streams if stream.topics.takes_replays),
            ("Write",),
        ),
        Right("replay", "transactional-id", prefix + _REPLAYS, ("Write",), prefixed=True),
        *_topics("ingest", managed, ("Read", "Write")),
        Right("ingest", "transactional-id", prefix + _INGEST, ("Write",), prefixed=True),
        _scans("ingest", prefix),
        *_topics("reader", [*events, *derived, positions], ("Read", "DescribeConfigs")),
        *(Right("reader", "group", settings.group(name), ("Describe",)) for name in GROUPS),
        _scans("reader", prefix),
        Right("dashboard", "topic", prefix + _PROBE, ("Create", "Read", "Write")),
    ]


def _topics(part: str, topics: Iterable[str], operations: tuple[str, ...]) -> list[Right]:
    return [Right(part, "topic", name, operations) for name in dict.fromkeys(topics)]


def _scans(part: str, prefix: str) -> Right:
    return Right(part, "group", prefix + _SCANS, ("Describe",), prefixed=True)
