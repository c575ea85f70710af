"""What an erasure has done, and what it could not reach: said in a certificate, kept with the erasure."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from confluent_kafka.admin import AdminClient
from psycopg.types.json import Jsonb

from streamflow.audit.gap_ledger import Range, append_offset
from streamflow.flow import Partition
from streamflow.kafka.clients import admin, retrying
from streamflow.kafka.offsets import bounds, partitions_of
from streamflow.kafka.topics import configs_of
from streamflow.lag.measure import loader_lags
from streamflow.pii_keys import PiiKeys
from streamflow.postgres.connections import Connection
from streamflow.postgres.forgotten import Kind
from streamflow.postgres.windows.naming import erased_place
from streamflow.settings import Settings
from streamflow.stream import Stream, reads

_MOST_RANGES: Final = 1000
_PATIENCE: Final = 30.0  # seconds for the broker to answer
_ROWS: Final = ("events", "notifications", "dead_letters")
_WINDOWS: Final = erased_place("")
_SPELLINGS: Final = (
    "other spellings of the address: under no key, or one without an id, each has a hash of its own "
    "(docs/privacy.md: one address, one hash)"
)
_ELSEWHERE: Final = (
    "backups of PostgreSQL, replicas and archived WAL from before (docs/privacy.md: restoring one)",
    "Dagster's runs of replays: what was searched for and who requested it, until Dagster prunes them",
    "what others have copied: consumers of the topics, exports, files that events were produced from",
)


class Held(NamedTuple):
    """Records that Kafka still holds, at most until a time; None for as long as the topic exists."""

    topic: str
    partition: int
    records: int
    offsets: list[Range]  # ends are exclusive
    until: str | None


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """What was erased, by table, and what is left of it in Kafka and elsewhere.

    Attributes:
        erased: rows since the last certificate, by runs that were killed as well.
        already_erased: rows before that, and those that the loader emptied before it stored them.
        not_loaded: records that the loader has not read yet; theirs are emptied when it does.
    """

    erasure: int
    kind: str
    hashes: list[str]
    requested_by: str
    requested_at: str
    erased: dict[str, int]
    already_erased: dict[str, int] = field(default_factory=dict)
    positions: dict[Partition, list[tuple[int, datetime | None]]] = field(repr=False)
    finished_at: str | None = None
    kafka: list[Held] = field(default_factory=list)
    not_loaded: int = 0
    elsewhere: tuple[str, ...] = _ELSEWHERE

    def as_dict(self) -> dict[str, Any]:
        known = asdict(replace(self, positions={}))
        del known["positions"]
        return known | {"kafka": [held._asdict() for held in self.kafka]}

    def keep(self, connection: Connection) -> "Certificate":
        """Stores it, as finished now."""
        done = replace(self, finished_at=_text(datetime.now(UTC)))
        connection.execute(
            "UPDATE erasures SET certificate = %s, finished_at = %s WHERE id = %s",
            [Jsonb(done.as_dict()), done.finished_at, self.erasure],
        )
        return done


def read_certificate(connection: Connection, erasure_id: int, keys: PiiKeys) -> Certificate:
    """As far as the database knows."""
    [(kind, hashes, by, at, changed, last)] = connection.execute(
        "SELECT kind, hashes, requested_by, requested_at, others, certificate FROM erasures"
        " WHERE id = %s",
        [erasure_id],
    )
    noted = dict(
        connection.execute(
            "SELECT place, count(*) FROM erased_records WHERE erasure_id = %s GROUP BY 1",
            [erasure_id],
        ).fetchall()
    )
    erased = dict.fromkeys(_ROWS, 0) | changed
    already = {place: max(0, noted.get(place, 0) - erased[place]) for place in _ROWS}
    # No record is behind some rows, and behind those of windows records of several persons.
    before: Counter[str] = Counter((last or {}).get("erased")) + Counter(
        (last or {}).get("already_erased")
    )
    already |= {table: number for table, number in before.items() if table not in _ROWS}
    for place, number in noted.items():
        if place.startswith(_WINDOWS):
            table = place.removeprefix(_WINDOWS)
            left = number - erased.get(table, 0)
            already[table] = max(0, left, already.get(table, 0))
    positions: dict[Partition, list[tuple[int, datetime | None]]] = {}
    for topic, partition, offset, appended in connection.execute(
        'SELECT topic, partition, "offset", max(appended_at) FROM erased_records'
        " WHERE erasure_id = %s GROUP BY 1, 2, 3 ORDER BY 1, 2, 3",
        [erasure_id],
    ):
        positions.setdefault((topic, partition), []).append((offset, appended))
    return Certificate(
        erasure=erasure_id,
        kind=kind,
        hashes=hashes,
        requested_by=by,
        requested_at=_text(at),
        erased=erased,
        already_erased=already,
        positions=positions,
        elsewhere=(
            (_SPELLINGS, *_ELSEWHERE) if kind == Kind.ADDRESS and keys.has_legacy else _ELSEWHERE
        ),
    )


def with_kafka(
    settings: Settings, connection: Connection, streams: Sequence[Stream], found: Certificate
) -> Certificate:
    """With what Kafka still holds. Raises Unavailable if the broker does not answer in time."""
    topics = reads("loader", streams)
    client = admin(settings)
    for attempt in retrying(_PATIENCE):
        with attempt:
            held = _held(client, found)
            lags = loader_lags(client, connection, settings.group("loader"), topics)
    return replace(found, kafka=held, not_loaded=sum(lags.values()))


def _held(client: AdminClient, found: Certificate) -> list[Held]:
    topics = sorted({topic for topic, _ in found.positions})
    present = bounds(client, partitions_of(client, topics))
    configs = configs_of(client, {topic for topic, _ in present})
    held = []
    for partition, records in sorted(found.positions.items()):
        first = present[partition][0] if partition in present else None
        left = [record for record in records if first is not None and record[0] >= first]
        if left:
            ranges: list[Range] = []
            for offset, _ in left:
                append_offset(ranges, offset, _MOST_RANGES)
            until = _until(configs[partition[0]], [appended for _, appended in left])
            held.append(Held(*partition, len(left), ranges, until))
    return held


def _until(config: Mapping[str, str | None], appended: Sequence[datetime | None]) -> str | None:
    """When retention has removed the last of some records: Kafka removes whole segments, so by then also
    those that were appended to the same one have to be old."""
    retention, segment = (int(config.get(name) or -1) for name in ("retention.ms", "segment.ms"))
    if retention < 0 or segment < 0 or "delete" not in (config.get("cleanup.policy") or ""):
        return None
    last = max(at or datetime.now(UTC) for at in appended)
    try:
        return _text(last + timedelta(milliseconds=retention + segment))
    except OverflowError:  # behind the year 9999; many write "for ever" as 2^63 - 1
        return None


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
