"""StreamFlow's errors as Dagster shows them: one sentence that says what to do."""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from streamflow.errors import StreamFlowError, Unavailable

_TRIES = 3


@contextmanager
def as_dagster_failure() -> Iterator[None]:
    """Fails a step with the error's own words. Only an outage is worth another attempt."""
    try:
        yield
    except StreamFlowError as error:
        raise dg.Failure(
            description=str(error),
            metadata={"kind": type(error).__name__},
            allow_retries=isinstance(error, Unavailable),
        ) from error


def retrying() -> dg.RetryPolicy:
    """How often, and how far apart, a step is tried again."""
    return dg.RetryPolicy(
        max_retries=_TRIES,
        delay=2,
        backoff=dg.Backoff.EXPONENTIAL,
        jitter=dg.Jitter.PLUS_MINUS,
    )
