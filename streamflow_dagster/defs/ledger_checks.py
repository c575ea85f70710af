"""Checks by the audit: one pass over Kafka and PostgreSQL answers for all tables."""

from collections.abc import Iterator, Sequence
from typing import Final

import dagster as dg

from streamflow.audit.ledger import run_audit
from streamflow.postgres.tables import WINDOW_COUNTS
from streamflow.settings.orchestration import OrchestrationSettings
from streamflow_dagster.catalog import Catalog, TableEntry
from streamflow_dagster.checks import define_checks
from streamflow_dagster.resources import Platform
from streamflow_dagster.verdicts import (
    CheckResult,
    judge_duplicates,
    judge_gaps,
    judge_ledger,
    judge_windows,
)

NO_GAPS: Final = "no_gaps"
NO_DUPLICATES: Final = "no_duplicates"
LEDGER: Final = "ledger_closes"
WINDOWS: Final = "windows_equal_events"

_DESCRIPTIONS: Final = {
    NO_GAPS: "Each record of each partition is stored, dead-lettered or known as a duplicate.",
    NO_DUPLICATES: "No record is accounted for twice.",
    LEDGER: "The audit (G5): what Kafka holds and what PostgreSQL holds add up, in all topics, and every "
    "event has its notification.",
    WINDOWS: "The totals of the windows equal the events, by window and type.",
}


def ledger_checks(catalog: Catalog) -> dg.AssetChecksDefinition:
    checks = [(entry, name) for entry in catalog.tables for name in _names(entry)]
    return define_checks("ledger", checks, _DESCRIPTIONS, _judge)


def _names(entry: TableEntry) -> tuple[str, ...]:
    names = (NO_GAPS, NO_DUPLICATES)
    if entry.stream is not None:
        return (*names, LEDGER)
    return (*names, WINDOWS) if entry.table == WINDOW_COUNTS else names


def _judge(
    platform: Platform, settings: OrchestrationSettings, checks: Sequence[tuple[TableEntry, str]]
) -> Iterator[CheckResult]:
    report = run_audit(
        settings,
        platform.streams(settings),
        patience=settings.audit_patience,
        most=settings.audit_records,
    )
    for entry, name in checks:
        if name == NO_GAPS:
            yield judge_gaps(report, entry.topics)
        elif name == NO_DUPLICATES:
            yield judge_duplicates(report, entry.topics)
        else:
            yield judge_ledger(report) if name == LEDGER else judge_windows(report)
