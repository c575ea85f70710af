"""Datasets and jobs as lineage sees them. Pure.

Names are those of OpenLineage's naming specification (https://openlineage.io/docs/spec/naming), so that other
tools which read the same topics and tables name them alike: ``kafka://host:port`` and the topic,
``postgres://host:port`` and ``database.schema.table``. No user, no password.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Final, NamedTuple

from psycopg.conninfo import conninfo_to_dict

from streamflow.settings import Settings

_SCHEMA: Final = "public"
_PORT: Final = "5432"


class How(StrEnum):
    """What becomes of a field in a column: subtypes of OpenLineage's transformations."""

    IDENTITY = "IDENTITY"  # its value
    TRANSFORMATION = "TRANSFORMATION"  # what follows from its value
    AGGREGATION = "AGGREGATION"  # what follows from many values
    GROUP_BY = "GROUP_BY"  # it says which values belong together
    WINDOW = "WINDOW"  # so does its time

    @property
    def is_direct(self) -> bool:
        return self not in (How.GROUP_BY, How.WINDOW)


class DatasetName(NamedTuple):
    namespace: str
    name: str


class Source(NamedTuple):
    """A field that a column comes from."""

    dataset: DatasetName
    field: str
    how: How


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A topic or a table.

    Attributes:
        title: what StreamFlow calls it: the topic or the table.
        columns: types by name, in PostgreSQL's words; empty if they are not known.
        sources: where columns come from, as far as that is known.
    """

    title: str
    name: DatasetName
    columns: Mapping[str, str] = field(default_factory=dict)
    sources: Mapping[str, Sequence[Source]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Job:
    """What makes datasets of datasets.

    Attributes:
        is_streaming: whether a run lasts as long as its process.
        query: the SQL that it runs, as it was declared.
    """

    name: str
    inputs: Sequence[Dataset]
    outputs: Sequence[Dataset]
    is_streaming: bool = False
    query: str | None = None


class Names:
    """The names of a broker's topics and a database's tables."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @cached_property
    def _kafka(self) -> str:
        # Several servers are one cluster: its first one stands for it.
        return f"kafka://{self._settings.bootstrap.split(',')[0].strip()}"

    @cached_property
    def _postgres(self) -> tuple[str, str]:
        """The namespace, and what comes before the name of a table. Raises ConfigurationError if no database
        is known: some workers do without."""
        found = conninfo_to_dict(self._settings.database)
        parts = {name: str(value) for name, value in found.items()}
        host = parts.get("host", "").split(",")[0] or "localhost"
        port = parts.get("port", "").split(",")[0] or _PORT
        database = parts.get("dbname") or parts.get("user") or "postgres"
        return f"postgres://{host}:{port}", f"{database}.{_SCHEMA}"

    def topic(self, name: str) -> DatasetName:
        return DatasetName(self._kafka, name)

    def table(self, name: str) -> DatasetName:
        namespace, schema = self._postgres
        return DatasetName(namespace, f"{schema}.{name}")
