"""Names of topics and tables that are taken, and those that Kafka, PostgreSQL and Dagster accept. Pure."""

import re
from typing import Final

POSITIONS_TOPIC: Final = "streamflow-positions"
VERSION_TABLE: Final = "streamflow_schema_version"
# What the migrations make. A test compares them with a database.
OWN_TABLES: Final = frozenset(
    (
        VERSION_TABLE, "audit_ledger", "contract_names", "daily_active_users", "dead_letter_counts",
        "dead_letters", "dead_letters_by_cause", "dropped_days", "duplicate_counts", "duplicates",
        "erased_records", "erasures", "gaps", "hourly_events", "ignored_records", "ingest_batches",
        "ingest_requests", "judged_conditions",
        "loader_positions", "notifications", "quality_scans", "refused_events", "replay_plan_letters",
        "replay_plans", "replay_records", "replayed_events", "replays", "rollup_progress", "row_counts",
        "signing_key", "topics", "window_counts", "window_differences", "window_rows", "window_tables",
    )
)  # fmt: skip

_LONGEST_TOPIC: Final = 249
_TOPIC: Final = re.compile(r"[A-Za-z0-9._-]+")
LONGEST_TABLE: Final = 50  # characters: a partition's index adds more, and PostgreSQL cuts at 63
_TABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# A stream's partitions and indexes, without the table's name.
_DERIVED: Final = re.compile(r"_(default|[0-9]{8}|time|loaded|pkey)(_.*)?")


def topic_fault(name: str) -> str | None:
    """Why Kafka does not take a topic of this name; None if it does."""
    if len(name) > _LONGEST_TOPIC:
        return f"is {len(name)} characters long, and Kafka takes {_LONGEST_TOPIC}"
    if not _TOPIC.fullmatch(name) or name in (".", ".."):
        return "is no name of a topic: Kafka takes letters, digits, dots, _ and -"
    if name.startswith("__"):
        return "looks like one of Kafka's own: begin it with something other than __"
    return None


def table_fault(name: str) -> str | None:
    """Why a stream cannot have a table of this name; None if it can."""
    if len(name) > LONGEST_TABLE:
        return f"is {len(name)} characters long, and there is room for {LONGEST_TABLE}"
    if not _TABLE.fullmatch(name):
        return "is no plain name: use letters, digits and _, and no digit at its beginning"
    if name.startswith("pg_"):
        return "looks like one of PostgreSQL's own: begin it with something other than pg_"
    if name in OWN_TABLES:
        return "is one of StreamFlow's own"
    return None


def totals_name(table: str) -> str:
    """The name of the view with the totals of windows whose parts are in a table."""
    return f"{table}_totals"


def collide(one: str, other: str) -> bool:
    """Whether Kafka refuses the one topic where the other exists: in its metrics, a dot is a _."""
    return one != other and one.replace(".", "_") == other.replace(".", "_")


def asset_name(name: str) -> str:
    """A topic or table as Dagster accepts it in an asset key."""
    return re.sub(r"[^A-Za-z0-9_]", "_", name)


def derives(table: str, name: str) -> bool:
    """Whether a stream's table has a partition or an index of this name, or may get one."""
    return name.startswith(table) and _DERIVED.fullmatch(name, len(table)) is not None
