"""Puts a worker together from settings: job, sink and runtime."""

import secrets
from collections.abc import Sequence
from contextlib import suppress

import structlog
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient

from streamflow.errors import StreamFlowError, StreamsRefused, Unavailable
from streamflow.flow import Limit
from streamflow.kafka import clients, topics
from streamflow.kafka.producing import produce_and_flush
from streamflow.kafka.transactions import KafkaSink
from streamflow.lineage.runs import WorkerLineage
from streamflow.monitoring import configure_logging
from streamflow.postgres import schema
from streamflow.postgres.connections import ping
from streamflow.postgres.signing_key import SigningKey
from streamflow.postgres.sink.sink import PostgresSink
from streamflow.registry import hasher_for, load_streams, log_failed
from streamflow.settings import Settings
from streamflow.stream import Stream
from streaming_workers.analytics import Analytics
from streaming_workers.loader import Loader
from streaming_workers.runtime.job import LeftOut
from streaming_workers.runtime.process import bound_arenas, freeze_gc
from streaming_workers.runtime.runtime import Worker
from streaming_workers.validator import Validator

log = structlog.get_logger()


def make_worker(
    settings: Settings,
    streams: Sequence[Stream],
    name: str,
    *,
    instance: str | None = None,
    accept_rejects: bool = False,
) -> Worker:
    """The validator, the analytics worker or the loader.

    Args:
        settings: all settings.
        streams: whose records it processes.
        name: of the worker.
        instance: stable name of this instance; a unique one by default, since two running
            instances with one name would fence each other.
        accept_rejects: no circuit breaker.
    """
    hasher, key = hasher_for(settings, streams), SigningKey(settings)
    lineage = WorkerLineage(settings, streams, name)
    transactional_id = f"{settings.group(name)}-{instance or secrets.token_hex(4)}"

    def kafka_sink(consumer: Consumer, limit: Limit | None) -> KafkaSink:
        return KafkaSink(
            settings, consumer, settings.group(name), transactional_id, key.signer(), limit
        )

    if name == "validator":
        return Worker(
            settings,
            Validator(settings, streams, hasher),
            kafka_sink,
            accept_rejects=accept_rejects,
            lineage=lineage,
            left_out=lambda client: without_topics(client, streams, name),
        )
    if name == "analytics":
        analytics = Analytics(settings, streams)
        return Worker(
            settings,
            analytics,
            kafka_sink,
            accept_rejects=accept_rejects,
            lineage=lineage,
            left_out=lambda client: not_counted(settings, client, streams, analytics),
        )
    loader = Loader(settings, streams, hasher, key.signer)
    dead_letters = clients.producer(settings)

    def sink(_consumer: Consumer, limit: Limit | None) -> PostgresSink:
        return loader_sink(settings, loader, dead_letters, limit)

    def not_loaded(client: AdminClient) -> LeftOut:
        lacking = without_topics(client, streams, name)
        refused = not_loadable(settings, streams)
        loader.unfit_windows = unfit_windows(settings, streams)
        return LeftOut(lacking.missing, refused.unloadable, lacking.reasons + refused.reasons)

    return Worker(
        settings,
        loader,
        sink,
        accept_rejects=accept_rejects,
        ping=ping(settings),
        lineage=lineage,
        left_out=not_loaded,
    )


def without_topics(client: AdminClient, streams: Sequence[Stream], worker: str) -> LeftOut:
    """The topics of streams that lack one, but for those that others have, too. Raises Unavailable if
    every stream lacks one, or the broker does not answer."""
    lacking = topics.without_topics(client, streams, worker)
    complete = [stream for stream in streams if stream.name not in lacking]
    if not complete:
        raise Unavailable("; ".join(dict.fromkeys(lacking.values())))
    used = {topic for stream in complete for topic in stream.topic_names}
    unused = {topic for stream in streams for topic in stream.topic_names} - used
    reasons = (("stream not running", stream, why) for stream, why in lacking.items())
    return LeftOut(missing=frozenset(unused), reasons=tuple(reasons))


def not_loadable(settings: Settings, streams: Sequence[Stream]) -> LeftOut:
    """The topics whose events have no table that can hold them. They stay there, and the loader's
    position stays in front of them (G14).

    Raises:
        StreamsRefused: no stream has one.
        Unavailable: the database does not answer.
    """
    refused = schema.not_loadable(settings, streams)
    if len(refused) == len(streams):
        raise StreamsRefused(refused)
    unloadable = {stream.topic for stream in streams if stream.name in refused}
    reasons = (("stream not loaded", stream, why) for stream, why in refused.items())
    return LeftOut(unloadable=frozenset(unloadable), reasons=tuple(reasons))


def unfit_windows(settings: Settings, streams: Sequence[Stream]) -> dict[str, str]:
    """As `schema.unfit_windows`, by table."""
    found = schema.unfit_windows(settings, streams)
    return {table: why for tables in found.values() for table, why in tables.items()}


def not_counted(
    settings: Settings, client: AdminClient, streams: Sequence[Stream], analytics: Analytics
) -> LeftOut:
    """As `without_topics` of analytics; and the topics whose windows have tables that take no rows of what is
    declared: each would be a dead letter. Tells analytics which tables have rows. Without an answer of the
    database all are counted."""
    lacking = without_topics(client, streams, "analytics")
    unfit: dict[str, dict[str, str]] = {}
    with suppress(StreamFlowError):
        unfit = schema.unfit_windows(settings, streams)
        analytics.windows_with_parts = schema.windows_with_parts(settings, streams)
    topics_left = {stream.topic for stream in streams if stream.name in unfit}
    reasons = [
        ("stream not counted", stream, "; ".join(tables.values()))
        for stream, tables in unfit.items()
    ]
    return LeftOut(lacking.missing, frozenset(topics_left), (*lacking.reasons, *reasons))


def loader_sink(
    settings: Settings, loader: Loader, dead_letters: Producer, limit: Limit | None
) -> PostgresSink:
    """The sink of a loader, whose dead letters another client produces. No `limit` means none.

    Raises:
        Unavailable: the database that holds the signing key does not answer.
    """
    sign = loader.signer().sign
    return PostgresSink(
        settings,
        loader.group,
        loader.tables,
        lambda records: produce_and_flush(dead_letters, list(map(sign, records))),
        loader.refuse,
        loader.forgetting,
        limit,
        loader.upserts,
    )


def run_worker(
    settings: Settings,
    name: str,
    *,
    instance: str | None,
    health_port: int,
    accept_rejects: bool,
) -> None:
    """Runs a worker until SIGTERM or SIGINT. Raises ConfigurationError for what only a user can fix."""
    bound_arenas()
    configure_logging(settings)
    structlog.contextvars.bind_contextvars(worker=name)
    streams = load_streams(settings)
    log_failed(streams)
    worker = make_worker(settings, streams, name, instance=instance, accept_rejects=accept_rejects)
    freeze_gc()
    worker.run(health_port)
