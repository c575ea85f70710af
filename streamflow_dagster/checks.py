"""One step that checks many assets. Each result is also reported outside of its run.

Dagster shows a check as not evaluated once its asset was materialized after it, so tables that are
loaded continuously would never show a result. A result that is also reported outside of its run (as
the workers' materializations are) counts for these.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, ParamSpec, Protocol, TypeVar

import dagster as dg
import psycopg

from streamflow.postgres.connections import faulty_statement
from streamflow.settings.orchestration import OrchestrationSettings
from streamflow_dagster.catalog import TableEntry, TopicEntry
from streamflow_dagster.failures import as_dagster_failure
from streamflow_dagster.resources import Platform
from streamflow_dagster.verdicts import CheckResult

_P = ParamSpec("_P")


class _Checked(Protocol):
    """What is known of an asset, with its key."""

    @property
    def key(self) -> dg.AssetKey: ...


_Entry = TypeVar("_Entry", bound=_Checked)

# The checked assets, each with the name of a check.
TopicChecks = Sequence[tuple[TopicEntry, str]]
TableChecks = Sequence[tuple[TableEntry, str]]

_RUN: Final = "run"  # metadata of a result that is reported outside of its run: which run it was


def isolated(
    judge: Callable[_P, CheckResult], *arguments: _P.args, **more: _P.kwargs
) -> CheckResult:
    """What `judge` says; if PostgreSQL refuses its query because of what a stream declares, that check
    fails, and the others of the step are evaluated."""
    try:
        return judge(*arguments, **more)
    except psycopg.Error as error:
        reason = faulty_statement(error)
        if reason is None:
            raise
        return CheckResult(
            passed=False,
            says=f"cannot be checked: PostgreSQL refuses the query ({reason}). Compare the stream's "
            "declaration with its table, and run `streamflow db upgrade`",
        )


def define_checks(
    step: str,
    checks: Sequence[tuple[_Entry, str]],
    descriptions: Mapping[str, str],
    judge: Callable[
        [Platform, OrchestrationSettings, Sequence[tuple[_Entry, str]]], Iterable[CheckResult]
    ],
    *,
    blocking: bool = True,
) -> dg.AssetChecksDefinition:
    """Defines checks that are evaluated together.

    Args:
        step: name of the step.
        checks: the checked asset and the name of each check.
        descriptions: by the check's name.
        judge: gets the checks that are to be evaluated now; yields their results in the same order.
        blocking: whether a failure of severity ERROR stops the assets that follow.
    """
    specs = [
        dg.AssetCheckSpec(name, asset=entry.key, blocking=blocking, description=descriptions[name])
        for entry, name in checks
    ]

    @dg.multi_asset_check(specs=specs, can_subset=True, name=step)
    def check(
        context: dg.AssetCheckExecutionContext, platform: dg.ResourceParam[Platform]
    ) -> Iterator[dg.AssetCheckResult]:
        selected = [
            (entry, name)
            for entry, name in checks
            if dg.AssetCheckKey(entry.key, name) in context.selected_asset_check_keys
        ]
        settings = platform.settings()
        with as_dagster_failure():
            results = judge(platform, settings, selected)
            for (entry, name), judged in zip(selected, results, strict=True):
                result = judged.as_dagster(entry.key, name)
                yield result
                context.instance.report_runless_asset_event(
                    dg.AssetCheckEvaluation(
                        asset_key=entry.key,
                        check_name=name,
                        passed=result.passed,
                        severity=result.severity,
                        description=result.description,
                        metadata={
                            **result.metadata,
                            _RUN: dg.MetadataValue.dagster_run(context.run.run_id),
                        },
                    )
                )

    return check
