"""What sensors look at. They look and never consume, and are done in well under a second."""

from collections.abc import Mapping, Sequence

from streamflow.flow import Partition
from streamflow.kafka import offsets
from streamflow.kafka.offsets import member_counts
from streamflow.lag.loader import loader_lags
from streamflow.postgres.connections import Connection
from streamflow.postgres.sink.positions import loaded
from streamflow.settings.orchestration import OrchestrationSettings
from streamflow_dagster.catalog import Catalog
from streamflow_dagster.decisions import Seen, look_at
from streamflow_dagster.resources import Platform

STATEMENT_SECONDS = 5


def table_lags(
    platform: Platform,
    settings: OrchestrationSettings,
    connection: Connection,
    catalog: Catalog,
) -> dict[str, int]:
    """Offsets that wait for the loader, by table."""
    topics = [topic for entry in catalog.tables for topic in entry.topics]
    lags = loader_lags(platform.admin(settings), connection, settings.group("loader"), topics)
    return {
        entry.table.name: sum(lag for (topic, _), lag in lags.items() if topic in entry.topics)
        for entry in catalog.tables
    }


def loader_seen(
    platform: Platform,
    settings: OrchestrationSettings,
    connection: Connection,
    before: Seen | None,
    lag: int,
) -> Seen:
    """How the loader is: by its group's members, and by the positions in the database."""
    group = settings.group("loader")
    members = member_counts(platform.admin(settings), [group])[group]
    position = sum(each.next_offset for each in loaded(connection, group).values())
    return look_at(before, members=members, position=position, lag=lag)


def consumers_seen(
    platform: Platform,
    settings: OrchestrationSettings,
    workers: Mapping[str, Sequence[str]],
    before: Mapping[str, Seen],
) -> dict[str, Seen]:
    """How the workers are whose positions Kafka keeps.

    Args:
        platform: where to look.
        settings: as they are now.
        workers: the topics that each reads.
        before: what was seen of each the last time.
    """
    client = platform.admin(settings)
    groups = {worker: settings.group(worker) for worker in workers}
    members = member_counts(client, list(groups.values()))
    seen = {}
    for worker, group in groups.items():
        partitions = offsets.partitions_of(client, workers[worker])
        positions = platform.group_offsets(settings, group).read(partitions)
        ends = offsets.bounds(client, list(positions))
        read: dict[Partition, int] = {
            partition: offsets.read_position(position) for partition, position in positions.items()
        }
        lag = sum(max(0, ends[partition][1] - at) for partition, at in read.items())
        seen[worker] = look_at(
            before.get(worker), members=members[group], position=sum(read.values()), lag=lag
        )
    return seen


def letters_loaded(
    connection: Connection, settings: OrchestrationSettings, topics: Sequence[str]
) -> dict[str, int]:
    """How far the dead-letter topics were loaded, by ``topic/partition``. Rows and positions are of one
    transaction, so no letter is between two looks."""
    return {
        f"{topic}/{partition}": each.next_offset
        for (topic, partition), each in loaded(connection, settings.group("loader")).items()
        if topic in topics
    }


def letter_codes(connection: Connection, arrived: Mapping[str, tuple[int, int]]) -> dict[str, int]:
    """Causes of the letters in these offsets, the most frequent first."""
    codes: dict[str, int] = {}
    for place, (first, end) in arrived.items():
        topic, _, partition = place.rpartition("/")
        for code, number in connection.execute(
            "SELECT error_code, count(*) FROM dead_letters WHERE record_topic = %s"
            " AND record_partition = %s AND record_offset >= %s AND record_offset < %s GROUP BY 1",
            [topic, int(partition), first, end],
        ):
            codes[code] = codes.get(code, 0) + number
    return dict(sorted(codes.items(), key=lambda pair: -pair[1]))
