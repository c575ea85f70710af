"""Checks by the audit: one pass over Kafka and PostgreSQL answers for all tables."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

import dagster as dg

from streamflow.audit.report import AuditReport
from streamflow.settings.orchestration import OrchestrationSettings
from streamflow_dagster.catalog import Catalog, TableEntry
from streamflow_dagster.checks import TableChecks, define_checks
from streamflow_dagster.resources import Platform
from streamflow_dagster.verdicts import (
    CheckResult,
    judge_duplicates,
    judge_gaps,
    judge_ledger,
    judge_windows,
)

_CHECKS: Final[dict[str, tuple[str, Callable[[AuditReport, TableEntry], CheckResult]]]] = {
    "no_gaps": (
        "Each record of each partition is stored, dead-lettered or known as a duplicate.",
        lambda report, entry: judge_gaps(report, entry.topics),
    ),
    "no_duplicates": (
        "No record is accounted for twice.",
        lambda report, entry: judge_duplicates(report, entry.topics),
    ),
    "ledger_closes": (
        "The stream's audit (G5): records and outcomes add up, and each event has its notification.",
        lambda report, _: judge_ledger(report),
    ),
    "windows_equal_events": (
        "The totals of the windows, of a stream or of one table, equal the events by window and group.",
        lambda report, entry: judge_windows(_of_windows(report, entry)),
    ),
}


def ledger_checks(catalog: Catalog) -> dg.AssetChecksDefinition:
    checks = [(entry, name) for entry in catalog.tables for name in _names(entry)]
    descriptions = {name: description for name, (description, _) in _CHECKS.items()}
    return define_checks("ledger", checks, descriptions, _judge)


def _names(entry: TableEntry) -> Iterator[str]:
    yield from ("no_gaps", "no_duplicates")
    if entry.stream is not None:
        yield "ledger_closes"
    if entry.windows is not None or (entry.stream is not None and entry.stream.counted):
        yield "windows_equal_events"


def _of_windows(report: AuditReport, entry: TableEntry) -> AuditReport:
    """The part of a stream's report that is about the windows of a table."""
    if entry.windows is None:
        return report
    own = {key: found for key, found in report.windows.items() if key[2] == entry.table.name}
    return replace(report, windows=own)


def _judge(
    platform: Platform, settings: OrchestrationSettings, checks: TableChecks
) -> Iterator[CheckResult]:
    report = platform.audit(settings)
    for entry, name in checks:
        # A table of a stream is judged by what is about that stream, a shared one by everything.
        part = report if entry.owner is None else report.of_stream(entry.owner.name)
        yield _CHECKS[name][1](part, entry)
