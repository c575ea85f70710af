"""Results of checks that stand until the next ones, though workers report new rows all the time.

Dagster shows a check as not evaluated once its asset was materialized after it. Tables that are loaded
without end would never show any result. A result that is also reported outside of its run counts for
what was reported outside of runs, which the workers' reports are.
"""

from collections.abc import Iterable, Iterator

import dagster as dg


def standing(
    context: dg.AssetCheckExecutionContext, results: Iterable[dg.AssetCheckResult]
) -> Iterator[dg.AssetCheckResult]:
    """Passes results on, and reports each."""
    for result in results:
        yield result
        context.instance.report_runless_asset_event(
            dg.AssetCheckEvaluation(
                asset_key=result.asset_key or dg.AssetKey([]),
                check_name=result.check_name or "",
                passed=result.passed,
                severity=result.severity,
                description=result.description,
                metadata=dict(result.metadata),
            )
        )
