"""Results of checks that stay valid though workers report new rows all the time.

Dagster shows a check as not evaluated once its asset was materialized after it, so tables that are
loaded continuously would never show a result. A result that is also reported outside of its run (as
the workers' materializations are) counts for these.
"""

from collections.abc import Iterable, Iterator
from typing import Final

import dagster as dg

# Metadata of a result that is reported outside of its run: which run it was.
RUN: Final = "run"


def report_runless(
    context: dg.AssetCheckExecutionContext, results: Iterable[dg.AssetCheckResult]
) -> Iterator[dg.AssetCheckResult]:
    """Yields the results, and reports each outside of the run."""
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
