"""What checks conclude from what they measured. Pure."""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from statistics import median
from typing import Any, Final

import dagster as dg

from streamflow import units
from streamflow.alerting.rules import Thresholds
from streamflow.audit.problems import GAPS, Problem, ProblemKind
from streamflow.audit.report import AuditReport, PartitionAudit
from streamflow_dagster.defs.quality_sql import Rate

_SHOWN: Final = 10


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """The result of a check."""

    passed: bool
    says: str  # what, where, how many; with a sample if it failed
    severe: bool = True  # what follows would be wrong
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def as_dagster(self, key: dg.AssetKey, name: str) -> dg.AssetCheckResult:
        return dg.AssetCheckResult(
            passed=self.passed,
            asset_key=key,
            check_name=name,
            severity=dg.AssetCheckSeverity.ERROR if self.severe else dg.AssetCheckSeverity.WARN,
            description=self.says,
            metadata=dict(self.metadata),
        )


def _sample(lines: Sequence[object]) -> dict[str, Any]:
    """Metadata with some of the lines; empty if there are none."""
    text = "\n".join(f"- {line}" for line in lines[:_SHOWN])
    return {"sample": dg.MetadataValue.md(text)} if lines else {}


def _judge_audit(
    report: AuditReport, metadata: Mapping[str, Any], *, wrong: str | None, closed: str
) -> CheckResult:
    """Wrong as soon as one thing is; closed only once everything was audited."""
    if wrong is not None:
        return CheckResult(passed=False, says=wrong, metadata=metadata)
    if report.caught_up:
        return CheckResult(passed=True, says=closed, metadata=metadata)
    return CheckResult(
        passed=False,
        severe=False,
        says=f"not yet: {report.waits_for}",
        metadata={**metadata, "pending": len(report.pending)},
    )


def _also_late(report: AuditReport) -> str:
    return "" if report.caught_up else f" (and not yet: {report.waits_for})"


def judge_gaps(report: AuditReport, topics: Sequence[str]) -> CheckResult:
    """Whether every record of these topics is accounted for, and none was removed before."""
    own = report.of(topics)
    missing, records = sum(each.missing for each in own), sum(each.records for each in own)
    problems = [problem for problem in report.topics if problem.topic.partition("@")[0] in topics]
    problems += _problems(own, {*GAPS, ProblemKind.MISSING})
    wrong = None
    if problems:
        where = ", ".join(dict.fromkeys(problem.place for problem in problems))
        wrong = (
            f"{missing:,} of {units.counted(records, 'record')} "
            f"{units.either(missing, 'is', 'are')} not accounted for, in {where}"
            if missing
            else f"gaps in {where}"
        )
        wrong += f": first {problems[0]}{_also_late(report)}"
    metadata = {"missing": missing, "records": records, **_sample(problems)}
    return _judge_audit(
        report, metadata, wrong=wrong, closed=f"no gap in {units.counted(records, 'record')}"
    )


def judge_duplicates(report: AuditReport, topics: Sequence[str]) -> CheckResult:
    """Whether no record of these topics is accounted for twice."""
    own = report.of(topics)
    twice, records = sum(each.twice for each in own), sum(each.records for each in own)
    problems = _problems(own, {ProblemKind.TWICE})
    wrong = None
    if twice:
        where = ", ".join(f"{each.topic}[{each.partition}]" for each in own if each.twice)
        first = problems[0] if problems else "unknown"
        wrong = (
            f"{twice:,} of {units.counted(records, 'record')} {units.either(twice, 'is', 'are')} "
            f"accounted for twice, in {where}: "
            f"first {first}"
        )
    metadata = {
        "twice": twice,
        "duplicates_avoided": sum(each.duplicate for each in own),
        "records": records,
        **_sample(problems),
    }
    closed = f"no duplicate in {units.counted(records, 'record')}"
    return _judge_audit(report, metadata, wrong=wrong, closed=closed)


def _problems(own: Iterable[PartitionAudit], kinds: Container[ProblemKind]) -> list[Problem]:
    return [problem for each in own for problem in each.problems if problem.kind in kinds]


def judge_ledger(report: AuditReport) -> CheckResult:
    """Whether the ledger closes: the audit of G5."""
    problems = [problem.nameless for problem in report.problems]
    records = sum(partition.records for partition in report.partitions)
    metadata = {
        "problems": report.problem_count,
        "records": records,
        "stored": sum(partition.stored for partition in report.partitions),
        "dead_lettered": sum(partition.dead_lettered for partition in report.partitions),
        "duplicates": sum(partition.duplicate for partition in report.partitions),
        "lost": report.lost,
        "in_open_windows": report.in_open_windows,
        "seconds": round(report.seconds, 3),
        **_sample(problems),
    }
    wrong = None
    if problems:
        count = f"{units.counted(report.problem_count, 'problem')}{_also_late(report)}"
        wrong = f"the ledger does not close, {count}: first {problems[0]}; see `streamflow audit`"
    closed = (
        f"the ledger closes: {units.counted(records, 'record')}, each accounted for exactly once"
    )
    return _judge_audit(report, metadata, wrong=wrong, closed=closed)


def judge_windows(report: AuditReport) -> CheckResult:
    """Whether window totals equal events, by window and type."""
    windows = report.windows.values()
    # Dagster keeps what it is told: no groups, which may be names.
    differences = [window.differences[0].nameless for window in windows if window.differing]
    partitions = {key[:2] for key, window in report.windows.items() if window.differing}
    cells = sum(window.cells for window in windows)
    metadata = {
        "cells": cells,
        "partitions_differing": len(partitions),
        "events": sum(sum(window.events.values()) for window in windows),
        "counted": sum(sum(window.counted.values()) for window in windows),
        "in_open_windows": report.in_open_windows,
        **_sample(differences),
    }
    wrong = None
    if differences:
        count = f"{units.counted(len(partitions), 'partition')}{_also_late(report)}"
        wrong = f"windows differ from events in {count}: first {differences[0]}"
    equal = units.either(cells, "equals its", "equal their")
    closed = f"{units.counted(cells, 'cell')} of windows {equal} events"
    return _judge_audit(report, metadata, wrong=wrong, closed=closed)


def judge_clear_text(table: str, addresses: Sequence[str], checked: int) -> CheckResult:
    """Whether there is no address in clear text. `addresses` names rows and columns, never contents."""
    found = units.counted(len(addresses), "clear-text address")
    return CheckResult(
        passed=not addresses,
        says=f"{found} in {table}: first {addresses[0]}. Replace what is in clear by its hash, and "
        "find out what "
        "wrote it past the contract"
        if addresses
        else f"no clear-text address in {table}",
        metadata={
            "found": len(addresses),
            "rows_looked_at_closely": checked,
            **_sample(addresses),
        },
    )


def judge_contract(
    table: str, drifted: Sequence[str], broken: Sequence[str], checked: int, rows: int
) -> CheckResult:
    """Whether columns and rows are what the contract says."""
    problems = [*drifted, *broken]
    where = [units.counted(len(drifted), "column")] if drifted else []
    if broken:
        where.append(f"{len(broken):,} of {units.counted(checked, 'row')}")
    return CheckResult(
        passed=not problems,
        says=f"{table} breaks the contract in {' and '.join(where)}: first {problems[0]}"
        if problems
        else f"columns of {table} keep the contract, {checked:,} of {units.counted(rows, 'new row')} "
        f"{units.either(checked, 'was', 'were')} checked",
        metadata={
            "columns_differing": len(drifted),
            "rows_broken": len(broken),
            "rows_looked_at": checked,
            "rows_new": rows,
            **_sample(problems),
        },
    )


def judge_load_age(last: datetime | None, now: datetime, lag: int, limit: timedelta) -> CheckResult:
    """Whether rows are still being loaded. Nothing to load is no delay."""
    if last is None:
        return _warning(
            lag == 0,
            "nothing has been loaded yet"
            + (f", {units.counted(lag, 'offset', 'waits', 'wait')}" if lag else ""),
            remaining_lag=lag,
        )
    age = now - last
    passed = age <= limit or lag == 0
    says = f"last loaded {_duration(age)} ago, {units.counted(lag, 'offset', 'waits', 'wait')}"
    if not passed:
        says += f"; at most {_duration(limit)} is allowed: is the loader running?"
    return _warning(passed, says, age_seconds=round(age.total_seconds(), 1), remaining_lag=lag)


def judge_event_age(last: datetime | None, now: datetime, limit: timedelta) -> CheckResult:
    """Whether there are recent events."""
    if last is None:
        return _warning(False, "there is no event yet")
    age = now - last
    says = f"the latest event happened {_duration(age)} ago"
    if age > limit:
        says += f"; at most {_duration(limit)} is usual: do producers send?"
    return _warning(age <= limit, says, age_seconds=round(age.total_seconds(), 1))


def _duration(span: timedelta) -> str:
    return units.duration(span.total_seconds())


def _warning(passed: bool, says: str, **metadata: Any) -> CheckResult:
    return CheckResult(passed=passed, severe=False, says=says, metadata=metadata)


def judge_rate(rate: Rate, thresholds: Thresholds) -> CheckResult:
    """Whether dead letters are few. The share among a handful of records says nothing."""
    limit, minutes = thresholds.dead_letter_ratio, thresholds.dead_letter_minutes
    records = rate.rows + rate.dead_letters
    ratio = rate.dead_letters / records if records else 0.0
    passed = ratio <= limit or records < thresholds.dead_letter_records
    says = (
        f"{rate.dead_letters:,} of {units.counted(records, 'record')} of the last "
        f"{units.counted(minutes, 'minute')} "
        f"{units.either(rate.dead_letters, 'is a dead letter', 'are dead letters')} "
        f"({ratio:.1%})"
    )
    metadata = {"dead_letters": rate.dead_letters, "records": records, "ratio": round(ratio, 6)}
    if passed:
        if ratio > limit:
            says += (
                f"; fewer than {units.counted(thresholds.dead_letter_records, 'record')} are not judged "
                "(STREAMFLOW_ALERT_DEAD_LETTER_RECORDS)"
            )
        return _warning(passed, says, **metadata)
    codes = ", ".join(f"{number:,} {code}" for code, number in rate.codes[:_SHOWN])
    says += f", {limit:.1%} are allowed: {codes}"
    return _warning(passed, says, **metadata, **_sample(rate.sample))


def judge_volume(
    hours: Sequence[tuple[datetime, int]], factor: float, fewest_hours: int
) -> CheckResult:
    """Whether the last whole hour had about as many events as those before it. What is not known yet is
    not passed."""
    before = [number for _, number in hours[:-1]]
    filled = sum(number > 0 for number in before)
    if filled < fewest_hours:
        says = (
            f"not yet: {units.counted(filled, 'hour')} of the day before "
            f"{units.either(filled, 'has', 'have')} events, {fewest_hours} are needed to know what is usual"
        )
        return _warning(False, says, hours=len(hours))
    hour, last = hours[-1]
    usual = median(before)
    low, high = usual / factor, usual * factor
    # Where there is usually nothing, anything is usual.
    return _warning(
        usual == 0 or low <= last <= high,
        f"{units.counted(last, 'event')} in the hour from {hour:%Y-%m-%d %H:%M} UTC; usual are {low:,.0f} to "
        f"{high:,.0f} (median {usual:,.0f} of {units.counted(len(before), 'hour')})",
        events=last,
        usual=float(usual),
        hours=len(hours),
    )
