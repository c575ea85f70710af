"""Hashes stored rows under the newest key of STREAMFLOW_PII_KEY."""

import dagster as dg

from streamflow.errors import ConfigurationError
from streamflow.postgres.rehash import rehash
from streamflow_dagster.failures import as_dagster_failure, retrying
from streamflow_dagster.resources import Platform


@dg.op(retry_policy=retrying())
def rehash_tables(context: dg.OpExecutionContext, platform: dg.ResourceParam[Platform]) -> None:
    settings = platform.settings()
    streams = platform.streams(settings)
    with as_dagster_failure():
        if streams.failed:
            raise ConfigurationError("; ".join(map(str, streams.failed)))
        done = rehash(settings, streams, lambda table: context.log.info("done: %s", table))
    figures = {
        f"{column.table}.{column.column}": column.lifted for column in done if not column.is_sketch
    }
    for note in [note for column in done for note in column.notes()]:
        context.log.warning(note)
    problems = "; ".join(problem for column in done for problem in column.problems())
    if problems:
        raise dg.Failure(problems, metadata=figures, allow_retries=False)
    context.add_output_metadata(figures)


@dg.job(
    name="rehash_rows",
    description="Hashes stored rows that are under an older key of STREAMFLOW_PII_KEY under the newest "
    "one, in batches. Whatever ends it, launch it again: no row is hashed twice.",
)
def rehash_rows() -> None:
    rehash_tables()
