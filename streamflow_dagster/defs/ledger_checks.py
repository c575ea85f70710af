"""Checks by the audit: one pass over Kafka and PostgreSQL answers for all tables."""

from collections.abc import Iterator
from typing import Final

import dagster as dg

from streamflow.audit.ledger import run_audit
from streamflow.audit.report import AuditReport
from streamflow.postgres.tables import WINDOW_COUNTS
from streamflow_dagster.catalog import Catalog, TableEntry
from streamflow_dagster.failures import as_dagster_failure
from streamflow_dagster.resources import Platform
from streamflow_dagster.runless import report_runless
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


def ledger_checks(catalog: Catalog) -> list[dg.AssetChecksDefinition]:
    """Gaps and duplicates of every table, the ledger, and the windows."""
    specs = [
        dg.AssetCheckSpec(name, asset=entry.key, blocking=True, description=_DESCRIPTIONS[name])
        for entry in catalog.tables
        for name in _names(entry)
    ]

    @dg.multi_asset_check(specs=specs, can_subset=True, name="ledger")
    def check(
        context: dg.AssetCheckExecutionContext, platform: dg.ResourceParam[Platform]
    ) -> Iterator[dg.AssetCheckResult]:
        settings = platform.settings()
        with as_dagster_failure():
            report = run_audit(
                settings,
                platform.streams(settings),
                patience=settings.audit_patience,
                most=settings.audit_records,
            )
        yield from report_runless(
            context,
            [
                _judge(name, report, entry).as_dagster(entry.key, name)
                for entry in catalog.tables
                for name in _names(entry)
                if dg.AssetCheckKey(entry.key, name) in context.selected_asset_check_keys
            ],
        )

    return [check]


def _names(entry: TableEntry) -> tuple[str, ...]:
    names = (NO_GAPS, NO_DUPLICATES)
    if entry.stream is not None:
        return (*names, LEDGER)
    return (*names, WINDOWS) if entry.table == WINDOW_COUNTS else names


def _judge(name: str, report: AuditReport, entry: TableEntry) -> CheckResult:
    if name == NO_GAPS:
        return judge_gaps(report, entry.topics)
    if name == NO_DUPLICATES:
        return judge_duplicates(report, entry.topics)
    return judge_ledger(report) if name == LEDGER else judge_windows(report)
