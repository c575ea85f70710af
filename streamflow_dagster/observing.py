"""What sensors measure. It only reads, in well under a second."""

from collections import Counter
from collections.abc import Mapping, Sequence

from streamflow.lag.measure import LagSample, loader_positions
from streamflow.postgres.connections import Connection
from streamflow.settings.orchestration import OrchestrationSettings
from streamflow_dagster.catalog import Catalog
from streamflow_dagster.resources import Platform


def measure_lag(
    platform: Platform, settings: OrchestrationSettings, connection: Connection
) -> LagSample:
    positions = loader_positions(connection, settings.group("loader"))
    return platform.lag(settings)(positions)


def table_lags(catalog: Catalog, sample: LagSample, loader_group: str) -> dict[str, int]:
    """Offsets that wait for the loader, by table; parts of windows are in the topics of `window_counts`."""
    lags = sample.lags(loader_group)
    return {
        entry.table.name: sum(lag for (topic, _), lag in lags.items() if topic in entry.topics)
        for entry in catalog.tables
        if entry.windows is None
    }


def dead_letters_loaded(
    connection: Connection, settings: OrchestrationSettings, topics: Sequence[str]
) -> dict[str, int]:
    """The loader's positions in the dead-letter topics, by ``topic/partition``. Rows and positions are
    committed together, so no dead letter is missed between two evaluations."""
    positions = loader_positions(connection, settings.group("loader"))
    return {
        f"{topic}/{partition}": position
        for (topic, partition), position in positions.items()
        if topic in topics
    }


def dead_letter_codes(
    connection: Connection, arrived: Mapping[str, tuple[int, int]]
) -> dict[str, int]:
    """Error codes of the dead letters in these offsets, the most frequent first."""
    codes: Counter[str] = Counter()
    for place, (first, end) in arrived.items():
        topic, _, partition = place.rpartition("/")
        for code, number in connection.execute(
            "SELECT error_code, count(*) FROM dead_letters WHERE record_topic = %s"
            " AND record_partition = %s AND record_offset >= %s AND record_offset < %s GROUP BY 1",
            [topic, int(partition), first, end],
        ):
            codes[code] += number
    return dict(codes.most_common())
