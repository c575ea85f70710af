"""The names in JSON by which a table's rows were read: columns do not show that one is gone."""

from collections.abc import Iterator, Mapping
from typing import Final

from psycopg.types.json import Jsonb

from streamflow.field_names import paths_of
from streamflow.postgres.connections import Connection
from streamflow.postgres.evolution import Change, Level
from streamflow.postgres.partitions import table_exists
from streamflow.stream import Stream

_KEEP: Final = """
INSERT INTO contract_names (table_name, names) VALUES (%s, %s)
    ON CONFLICT (table_name) DO UPDATE SET names = excluded.names
 WHERE contract_names.names <> excluded.names
"""

# By field, in Python: as paths like ``address.zip``.
Names = Mapping[str, list[str]]


def names_in_json(stream: Stream) -> dict[str, list[str]]:
    """The names that each field of an event is read from, in any of the models."""
    names: dict[str, set[str]] = {}
    for model in stream.decoder.models:
        for name, field in model.model_fields.items():
            paths = (".".join(map(str, path)) for path in paths_of(name, field))
            names.setdefault(name, set()).update(paths)
    return {name: sorted(paths) for name, paths in names.items()}


def keep_names(connection: Connection, stream: Stream) -> None:
    """Notes the names of the contract that is deployed."""
    connection.execute(_KEEP, [stream.event_table, Jsonb(names_in_json(stream))])


def kept_names(connection: Connection, stream: Stream) -> Names:
    """Those of the contract that was deployed last; none if it is not known."""
    if not table_exists(connection, "contract_names"):
        return {}
    query = "SELECT names FROM contract_names WHERE table_name = %s"
    row = connection.execute(query, [stream.event_table]).fetchone()
    return {} if row is None else row[0]


def lost_names(deployed: Names, stream: Stream) -> Iterator[Change]:
    """The names by which a field is not read any more."""
    for field, now in names_in_json(stream).items():
        lost = [f"`{name}`" for name in deployed.get(field, ()) if name not in now]
        if lost:
            yield Change(
                Level.STEP,
                f"`{field}` is no longer read from {' or '.join(lost)}: events that have it under that name "
                "become dead letters, or lack it",
                f"accept both names first (AliasChoices), then let the producers send `{now[0]}`, and drop "
                "the old name when the workers have read what came before",
                field,
            )
