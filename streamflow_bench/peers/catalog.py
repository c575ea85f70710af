"""The peers: what else does the same work. One more is an entry, and its program in ``benchmarks/peers/``."""

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from streamflow_bench.figures import PathName
from streamflow_bench.peers.programs import JdbcSink, KafkaStreams, Program, Script

HAND_LOOP: Final = "hand loop"

_BYTEWAX: Final = ("bytewax",)
_PATHWAY: Final = ("pathway",)
_QUIX: Final = ("quixstreams",)


class Progress(Enum):
    """By what is known how many records a peer has done."""

    GROUP = auto()  # the offsets that its group has committed
    ROWS = auto()  # the rows that are in the table
    RECORDS = auto()  # the records that are in its topic


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    name: str
    path: PathName
    program: Program
    guarantee: str  # after a crash, and for invalid records
    settings: str  # that differ from the defaults, and from those of the hand loop
    progress: Progress = Progress.GROUP
    output_lags: bool = (
        False  # whether it commits what it has read before it has written what follows
    )


PEERS: Final = (
    Peer(
        name=HAND_LOOP,
        path=PathName.PRODUCE,
        program=Script("hand_produce.py"),
        guarantee="at least once; validates nothing, starts again at the first line",
        settings="idempotent, lz4, linger 5 ms",
        progress=Progress.RECORDS,
    ),
    Peer(
        name=HAND_LOOP,
        path=PathName.LOADER,
        program=Script("hand_loader.py"),
        guarantee="exactly once in one process; invalid records are skipped; nothing fences a second process",
        settings="batches of 10,000; COPY and offsets in one transaction",
        progress=Progress.ROWS,
    ),
    Peer(
        name="Bytewax",
        path=PathName.LOADER,
        program=Script("bytewax_loader.py", _BYTEWAX),
        guarantee="none without a recovery store, at least once with one; invalid records are skipped",
        settings="batches of 10,000; COPY; no recovery store",
        progress=Progress.ROWS,
    ),
    Peer(
        name="Pathway",
        path=PathName.LOADER,
        program=Script("pathway_loader.py", _PATHWAY),
        guarantee="at least once; checks types and event types only; invalid records are skipped",
        settings="one thread; commits every 200 ms; no persistence",
        progress=Progress.ROWS,
    ),
    Peer(
        name="Quix Streams",
        path=PathName.LOADER,
        program=Script("quix_loader.py", _QUIX),
        guarantee="rows once by ON CONFLICT DO NOTHING; invalid records are skipped",
        settings="commits every 10,000 records; its PostgreSQL sink",
        progress=Progress.ROWS,
    ),
    Peer(
        name="Debezium JDBC sink",
        path=PathName.LOADER,
        program=JdbcSink(),
        guarantee="rows once by upsert; invalid records are dead letters",
        settings="Kafka Connect, one task; batches of 10,000; reWriteBatchedInserts; heap 1 GB",
        progress=Progress.ROWS,
    ),
    Peer(
        name=HAND_LOOP,
        path=PathName.ANALYTICS,
        program=Script("hand_analytics.py"),
        guarantee="none: a crash loses the counts of open windows; late events are dropped",
        settings="batches of 50,000; windows of each partition in memory",
    ),
    Peer(
        name="Kafka Streams",
        path=PathName.ANALYTICS,
        program=KafkaStreams("analytics"),
        guarantee="exactly once; late events start a window again",
        settings="exactly_once_v2, commits every 200 ms; memory store with changelog; one thread; heap 1 GB",
    ),
    Peer(
        name="Bytewax",
        path=PathName.ANALYTICS,
        program=Script("bytewax_analytics.py", _BYTEWAX),
        guarantee="none without a recovery store, at least once with one; late events are dropped",
        settings="batches of 10,000; one worker; no recovery store; ends with the topic",
        output_lags=True,
    ),
    Peer(
        name="Pathway",
        path=PathName.ANALYTICS,
        program=Script("pathway_analytics.py", _PATHWAY),
        guarantee="at least once; late events are dropped",
        settings="one thread; commits every 200 ms; no persistence",
        output_lags=True,
    ),
    Peer(
        name="Quix Streams",
        path=PathName.ANALYTICS,
        program=Script("quix_analytics.py", _QUIX),
        guarantee="exactly once; late events are dropped",
        settings="exactly-once, commits every 10,000 records; RocksDB with changelog; grouped by a topic",
        output_lags=True,
    ),
    Peer(
        name=HAND_LOOP,
        path=PathName.VALIDATOR,
        program=Script("hand_validator.py"),
        guarantee="exactly once; dead letters without reason or redaction",
        settings="transactions of 10,000 records",
    ),
    Peer(
        name="Kafka Streams",
        path=PathName.VALIDATOR,
        program=KafkaStreams("validator"),
        guarantee="exactly once; dead letters without reason or redaction",
        settings="exactly_once_v2, commits every 200 ms; one thread; heap 1 GB",
    ),
    Peer(
        name="Quix Streams",
        path=PathName.VALIDATOR,
        program=Script("quix_validator.py", _QUIX),
        guarantee="exactly once; dead letters without reason or redaction",
        settings="exactly-once, commits every 10,000 records",
    ),
)


def hand_loop(path: PathName) -> Peer:
    [found] = [peer for peer in PEERS if peer.path is path and peer.name == HAND_LOOP]
    return found


def others(path: PathName) -> list[Peer]:
    """The peers of a path that are frameworks."""
    return [peer for peer in PEERS if peer.path is path and peer.name != HAND_LOOP]
