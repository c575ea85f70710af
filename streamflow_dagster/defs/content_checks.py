"""Checks of the tables' contents: no clear-text address, and the contract of each column.

Both check only the rows that were loaded since they last passed; what failed fails again until it is
fixed.
"""

import json
from base64 import b64decode
from collections.abc import Iterator, Mapping
from typing import Any, Final

import dagster as dg

from streamflow.postgres.connections import Connection
from streamflow.postgres.contract_changes import judged_from
from streamflow.postgres.evolution import ExistingColumn
from streamflow.postgres.existing_tables import existing_columns
from streamflow.postgres.rows.read_back import event_of
from streamflow.postgres.tables import DELETED
from streamflow.postgres.windows.naming import private_columns
from streamflow.privacy import Hasher, is_hashed
from streamflow.records import Rejection
from streamflow.registry import private_values_of
from streamflow.settings.orchestration import OrchestrationSettings
from streamflow.stream import Stream
from streamflow_dagster.catalog import Catalog, TableEntry
from streamflow_dagster.checks import TableChecks, define_checks, isolated
from streamflow_dagster.defs import quality_sql as quality
from streamflow_dagster.resources import Platform
from streamflow_dagster.verdicts import CheckResult, judge_clear_text, judge_contract

CLEAR_TEXT: Final = "no_clear_text_address"
CONTRACT: Final = "columns_keep_contract"

_DESCRIPTIONS: Final = {
    CLEAR_TEXT: "No e-mail address is in clear text (G7). Checks the rows loaded since it last passed, "
    "and all rows after the contract has changed.",
    CONTRACT: "The table has the declared columns; rows of events keep the stream's contract. Checks up "
    "to STREAMFLOW_CONTRACT_ROWS of the rows loaded since it last passed, and since the contract changed.",
}
_SCANNED: Final = ("text", "bytea", "jsonb")
_MOST_NAMED: Final = 1000


def content_checks(catalog: Catalog) -> list[dg.AssetChecksDefinition]:
    names = {name for stream in catalog.streams for name in stream.decoder.private_fields}
    values = private_values_of(catalog.streams)
    hasher = Hasher(private_fields=names, private_values=values)

    def clear_text(
        platform: Platform, settings: OrchestrationSettings, checks: TableChecks
    ) -> Iterator[CheckResult]:
        with platform.database(settings) as connection:
            for entry, _ in checks:
                yield isolated(
                    _look_for_addresses, connection, entry, hasher, all_rows=bool(values)
                )

    return [
        define_checks(step, [(entry, name) for entry in catalog.tables], _DESCRIPTIONS, judge)
        for step, name, judge in (
            ("clear_text", CLEAR_TEXT, clear_text),
            ("contract", CONTRACT, _contract),
        )
    ]


def _look_for_addresses(
    connection: Connection, entry: TableEntry, hasher: Hasher, *, all_rows: bool
) -> CheckResult:
    table = entry.table.name
    # Topics are named by the operator, and so are no private data.
    topics = {entry.table.identity[0], entry.table.position[0], "origin_topic"}
    columns = {
        name: kind.removesuffix(" not null")
        for name, kind in entry.columns.items()
        if kind.removesuffix(" not null") in _SCANNED and name not in topics
    }
    began, since = quality.begin_scan(connection, CLEAR_TEXT, table)
    if entry.owner is not None and judged_from(connection, entry.owner) > since:
        # What became private may be in any row.
        since = quality.EVER
    addresses: list[str] = []
    checked = 0
    for where, values in quality.suspects(
        connection, table, entry.table.identity, columns, since, all_rows=all_rows
    ):
        checked += 1
        addresses += [
            f"{where}: {name}"
            for name, value in values.items()
            if len(addresses) < _MOST_NAMED and _holds_address(name, value, columns[name], hasher)
        ]
    addresses += _unhashed(connection, entry, since)
    if not addresses:
        quality.note_scan(connection, CLEAR_TEXT, table, began)
    return judge_clear_text(table, addresses, checked)


def _holds_address(name: str, value: bytes, kind: str, hasher: Hasher) -> bool:
    """Redaction changes exactly the values that contain an address."""
    if kind == "jsonb" and name == "headers":
        pairs: list[tuple[str, str | None]] = json.loads(value)
        parts = [part for key, text in pairs for part in (key.encode(), b64decode(text or ""))]
        return any(hasher.redact(part) != part for part in parts)
    return hasher.redact(value) != value


def _unhashed(connection: Connection, entry: TableEntry, since: Any) -> list[str]:
    """Private columns that contain anything but a hash."""
    if entry.owner is None:
        return []
    private = (
        [name for name in entry.owner.decoder.private_fields if name in entry.columns]
        if entry.windows is None
        else private_columns(entry.owner, entry.windows.spec)
    )
    return [
        f"{'/'.join(str(row[column]) for column in entry.table.identity)}: {name}"
        for row in quality.unhashed(connection, entry.table.name, private, since)
        for name in private
        if row[name] is not None and not is_hashed(str(row[name]))
    ]


def _contract(
    platform: Platform, settings: OrchestrationSettings, checks: TableChecks
) -> Iterator[CheckResult]:
    with platform.database(settings) as connection:
        for entry, _ in checks:
            yield isolated(_compare, connection, entry, settings.contract_rows)


def _compare(connection: Connection, entry: TableEntry, most: int) -> CheckResult:
    table = entry.table.name
    drifted = column_drifts(entry, existing_columns(connection, table))
    if entry.stream is None or drifted:
        return judge_contract(table, drifted, [], 0, 0)
    began, since = quality.begin_scan(connection, CONTRACT, table)
    # Rows from before were accepted under another contract.
    since = max(since, judged_from(connection, entry.stream))
    rows = quality.loaded_since(connection, table, since)
    share = most / rows if rows > most else 1.0
    checked = 0
    broken: list[str] = []
    for row in quality.some_rows(connection, table, since, share, most):
        checked += 1
        if entry.table.deletes and row[DELETED]:
            continue  # a tombstone is no event
        rejection = rejection_of(entry.stream, row)
        if rejection is not None and len(broken) < _MOST_NAMED:
            where = "/".join(str(row[column]) for column in entry.table.identity)
            broken.append(f"{where}: {rejection.code}: {rejection.message}")
    if not broken:
        quality.note_scan(connection, CONTRACT, table, began)
    return judge_contract(table, drifted, broken, checked, rows)


def column_drifts(entry: TableEntry, actual: Mapping[str, ExistingColumn]) -> list[str]:
    """How the columns differ from those declared. Whether they may be null is no drift: the shared tables
    are declared without their constraints, and a field that became required has no value in older rows. A
    stream's table may have columns of a newer release that was rolled back."""
    drifts = []
    for name, declared in entry.columns.items():
        kind = actual[name].type if name in actual else "missing"
        wanted = declared.removesuffix(" not null")
        if kind != wanted:
            drifts.append(f"column {name}: {kind}, {wanted} is declared")
    drifts += [
        f"column {name}: not declared"
        for name, column in actual.items()
        if name not in entry.columns and (entry.stream is None or not column.may_be_left_out)
    ]
    return drifts


def rejection_of(stream: Stream, row: dict[str, Any]) -> Rejection | None:
    """Why a stored row is no longer a valid event; None where it is one."""
    event = event_of(stream, row)
    return event if isinstance(event, Rejection) else None
