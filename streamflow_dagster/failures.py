"""StreamFlow's errors as failures of Dagster's steps, and the retries of steps."""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from streamflow.errors import StreamFlowError, Unavailable

_RETRIES = 3


@contextmanager
def as_dagster_failure() -> Iterator[None]:
    """Fails the step with the error's message. Only an outage is retried."""
    try:
        yield
    except StreamFlowError as error:
        raise dg.Failure(
            description=str(error),
            metadata={"kind": type(error).__name__},
            allow_retries=isinstance(error, Unavailable),
        ) from error


def retrying() -> dg.RetryPolicy:
    """The retry policy of every step."""
    return dg.RetryPolicy(_RETRIES, 2, dg.Backoff.EXPONENTIAL, dg.Jitter.PLUS_MINUS)
