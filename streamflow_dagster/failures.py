"""StreamFlow's errors as failures of Dagster's steps, and the retries of steps."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import dagster as dg
import psycopg

from streamflow.errors import StreamFlowError, Unavailable
from streamflow.postgres.connections import faulty_statement
from streamflow.stream import Stream

_T = TypeVar("_T")

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


def each_stream(
    streams: Iterable[Stream], work: Callable[[Stream], _T]
) -> tuple[list[_T], list[str]]:
    """Does something for each stream. Returns the results, and for which streams PostgreSQL refuses it
    because of what they declare."""
    done: list[_T] = []
    refused: list[str] = []
    for stream in streams:
        try:
            done.append(work(stream))
        except psycopg.Error as error:
            reason = faulty_statement(error)
            if reason is None:
                raise
            refused.append(f"stream {stream.name} ({reason})")
    return done, refused


def retrying() -> dg.RetryPolicy:
    """The retry policy of every step."""
    return dg.RetryPolicy(_RETRIES, 2, dg.Backoff.EXPONENTIAL, dg.Jitter.PLUS_MINUS)
