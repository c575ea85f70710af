"""Results of checks that stand until the next ones, though workers report new rows all the time.

Dagster shows a check as not evaluated once its asset was materialized after it. Tables that are loaded
without end would never show any result. A result that is also reported outside of its run counts for
what was reported outside of runs, which the workers' reports are.
"""

from collections.abc import Iterable, Iterator
from typing import Final

import dagster as dg

# In the metadata of what is reported outside of its run: which run it was.
RUN: Final = "run"


def report_runless(
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
                metadata={**result.metadata, RUN: dg.MetadataValue.dagster_run(context.run.run_id)},
            )
        )
