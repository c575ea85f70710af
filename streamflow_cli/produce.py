import signal
import threading
import time
from contextlib import closing, nullcontext
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streamflow_cli.configured import settings_and_streams
from streamflow_cli.options import given_options, refuse_options

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from streamflow.errors import UsageError
    from streamflow.privacy import Hasher
    from streamflow.records import Rejection
    from streamflow.registry import Streams
    from streamflow.settings import Settings
    from streamflow.stream import Simulated, Stream
    from streaming_workers.producer.file import Pace, Sent
    from streaming_workers.producer.source import Source
    from streaming_workers.tracing import Traces

_SHOWN = 20  # invalid lines that are reported one by one
_EVENTS_A_SECOND = 1 / 3  # simulated, of all streams together
_OF_FILES = ("on_invalid", "pace", "speed", "resume", "complete")
_OF_SIMULATION = ("every", "rate", "count", "invalid_ratio", "seed", "health_port")


class OnInvalid(StrEnum):
    STOP = "stop"
    SKIP = "skip"
    SEND = "send"


class PaceBy(StrEnum):
    FULL = "full"
    EVENT_TIME = "event-time"


def produce(
    context: typer.Context,
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="File to send, or - for stdin; else simulated events. One JSON object a line, JSON arrays, "
            "CSV or Parquet, each also compressed.",
        ),
    ] = None,
    stream: Annotated[
        str | None,
        typer.Option(
            "--stream", metavar="NAME", help="Of this stream; needed if there are several."
        ),
    ] = None,
    every: Annotated[
        bool,
        typer.Option(
            "--all", help="Simulate all streams, but for those with another owner's topic."
        ),
    ] = False,
    not_ours: Annotated[
        bool,
        typer.Option(
            "--not-ours",
            help="Send also to a topic of another owner, Topics(managed=False), who allows it.",
        ),
    ] = False,
    rate: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            help="Simulated events of each stream a second. [default: STREAMFLOW_SIMULATED_RATE, else "
            "one every 3 s, in turn over the streams]",
        ),
    ] = None,
    count: Annotated[
        int | None,
        typer.Option(min=0, help="Stop after that many simulated events of each stream."),
    ] = None,
    invalid_ratio: Annotated[
        float, typer.Option(min=0, max=1, help="Share of simulated events that break the contract.")
    ] = 0.0,
    seed: Annotated[
        int | None, typer.Option(help="Same seed, same events and mistakes, but for their times.")
    ] = None,
    on_invalid: Annotated[
        OnInvalid,
        typer.Option(
            help="A line that breaks the contract: stop there, skip it and exit 1 at the end, or "
            "send it with its private values hashed. If nothing else was wrong it is a valid event then, "
            "else it becomes a dead letter."
        ),
    ] = OnInvalid.SKIP,
    pace: Annotated[
        PaceBy, typer.Option(help="A file at full speed, or as fast as its events' own times.")
    ] = PaceBy.FULL,
    speed: Annotated[
        float, typer.Option(min=0.001, help="With --pace event-time: so many times faster.")
    ] = 1.0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on after what an earlier run of the file sent.")
    ] = False,
    complete: Annotated[
        bool,
        typer.Option(
            "--complete",
            help="The file is complete: send its last line even if it has no newline. Without this such "
            "a line waits, and the exit code is 1.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
    health_port: Annotated[
        int | None, typer.Option(help="Serve /health, /ready and /metrics; 0 takes any free port.")
    ] = None,
) -> None:
    """Sends events of a stream: simulated ones, or those of a file.

    Example: streamflow produce --stream user-events --from logins.ndjson
    """
    from streamflow.errors import UsageError
    from streamflow.monitoring import configure_logging
    from streamflow.producer.lines import LineReader
    from streamflow.registry import hasher_for
    from streamflow_cli.produce_summary import print_json, print_summary
    from streaming_workers.runtime.process import freeze_gc
    from streaming_workers.runtime.watchdog import no_endless_call
    from streaming_workers.tracing import traces_of

    _refuse_ignored(context, is_file=source is not None, paced=pace is PaceBy.EVENT_TIME)
    settings, streams = settings_and_streams()
    hasher = hasher_for(settings, streams)
    chosen = list(streams) if every else [_chosen(streams, stream, is_file=source is not None)]
    if not (every or not_ours):
        _require_ours(chosen)
    if source is not None and chosen[0].decode is not None:
        raise UsageError(
            f"stream {chosen[0].name} holds records of another format (decode=), and --from sends JSON: "
            "send them with a client of that format"
        )
    opened = None if source is None else _open(source, chosen[0], resume=resume, complete=complete)
    sources: list[tuple[Stream, Iterable[Simulated]]] = []
    if opened is None:
        sources = _sources(chosen, hasher, seed, invalid_ratio, not_ours=not_ours)
        chosen = [each for each, _ in sources]
    if not hasher.keyed:
        typer.echo(
            "addresses are hashed with bare SHA-256, which can be guessed: set STREAMFLOW_PII_KEY "
            "to a secret to prevent that",
            err=True,
        )
    configure_logging(settings)
    stop = _stop_on_signal()
    missing = _without_topic(settings, chosen)
    sources = [source for source in sources if source[0] not in missing]
    freeze_gc()
    began = time.monotonic()
    resumable = opened is not None and opened.resumable
    advice = (
        "nothing is lost: --resume continues after what was sent" if resumable else "start it again"
    )
    traces = traces_of(settings, "streamflow-producer")
    ended: UsageError | None = None
    with closing(traces), no_endless_call(settings.stall_seconds, "produce", advice):
        if opened is None:
            sent = _simulate(settings, sources, stop, rate, count, health_port, traces)
        else:
            [target] = chosen
            # Of this stream only: another one's private field may be a plain one here.
            reader = LineReader(target, hasher_for(settings, chosen))
            pacing = _pacing(speed, target) if pace is PaceBy.EVENT_TIME else None
            sent, ended = _send_file(
                settings, target, reader, opened, on_invalid, stop, resume, pacing, traces
            )
    if as_json:
        print_json(sent, time.monotonic() - began)
    else:
        print_summary(sent, time.monotonic() - began, opened, resume=resume)
    if ended is not None:
        raise ended
    raise typer.Exit(1 if sent.skipped or sent.skipped_before or sent.waiting else 0)


def _refuse_ignored(context: typer.Context, *, is_file: bool, paced: bool) -> None:
    """Raises UsageError if an option was given that means nothing beside the others."""
    from streamflow.errors import UsageError

    if "resume" in given_options(context) and not is_file:
        raise UsageError("--resume needs a file: name one with --from FILE")
    if is_file:
        refuse_options(context, _OF_SIMULATION, "is for simulated events, and --from sends a file")
    else:
        refuse_options(context, _OF_FILES, "is for files: name one with --from FILE")
    if not paced:
        refuse_options(context, ["speed"], "needs --pace event-time")
    if "every" in given_options(context):
        refuse_options(
            context, ["stream"], "and --all cannot be combined: --all means every stream"
        )


def _open(name: str, stream: "Stream", *, resume: bool, complete: bool) -> "Source":
    from streamflow.errors import UsageError
    from streaming_workers.producer.source import open_source

    if resume and name == "-":
        raise UsageError("--resume needs a file: name one with --from FILE")
    opened = open_source(name, stream, complete=complete)
    if resume and not opened.resumable:
        raise UsageError(f"--resume needs a file, and {name} is read only once")
    return opened


def _stop_on_signal() -> threading.Event:
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    return stop


def _chosen(streams: "Streams", name: str | None, *, is_file: bool) -> "Stream":
    """The stream to send to. Raises UsageError if it is not clear which, also where only one of several
    starts: what is meant for another one must not go there."""
    from streamflow.errors import UsageError
    from streamflow.registry import stream_named

    if name is not None:
        return stream_named(streams, name)
    configured = [stream.name for stream in streams]
    configured += [failed.name or failed.path for failed in streams.failed]
    if len(configured) > 1:
        names = ", ".join(configured)
        more = "" if is_file else ", or simulate all with --all"
        raise UsageError(
            f"there are several streams ({names}): choose one with --stream NAME{more}"
        )
    return streams[0]


def _require_ours(streams: "Sequence[Stream]") -> None:
    """Raises UsageError if a stream's topic has another owner."""
    from streamflow.errors import UsageError

    for stream in streams:
        if not stream.topics.managed:
            raise UsageError(
                f"topic {stream.topic} of stream {stream.name} belongs to another owner, and everyone who "
                "reads it would get what is sent: if the owner allows it, add --not-ours"
            )


def _sources(
    streams: "Sequence[Stream]",
    hasher: "Hasher",
    seed: int | None,
    invalid_ratio: float,
    *,
    not_ours: bool,
) -> "list[tuple[Stream, Iterable[Simulated]]]":
    """The records of each stream that can be simulated; the others are named."""
    from streamflow.errors import ConfigurationError
    from streamflow.samples.simulation import sources_of

    sources, without = sources_of(
        streams, hasher, seed=seed, invalid_ratio=invalid_ratio, not_ours=not_ours
    )
    if not sources:
        raise ConfigurationError("; ".join(without))
    for reason in without:
        typer.echo(f"warning: {reason}", err=True)
    return sources


def _without_topic(settings: "Settings", streams: "Sequence[Stream]") -> "list[Stream]":
    """The streams whose topic does not exist. Warns of them, and of those that the running stack does not
    know. Raises ConfigurationError if no topic exists."""
    from streamflow.errors import ConfigurationError, Unavailable
    from streamflow.kafka.clients import admin
    from streamflow.kafka.offsets import partitions_of
    from streamflow_stack.known_streams import unknown_note, unknown_streams

    try:
        found = partitions_of(admin(settings), [stream.topic for stream in streams])
    except Unavailable as error:
        raise Unavailable(
            f"the broker at {settings.bootstrap} does not answer: start it (`streamflow up`), or "
            "set KAFKA_BOOTSTRAP_SERVERS"
        ) from error
    topics = {topic for topic, _ in found}
    missing = [stream for stream in streams if stream.topic not in topics]
    names = [stream.name for stream in streams]
    unknown = unknown_streams(settings, names)
    reasons = [
        f"topic {stream.topic} does not exist: run `streamflow init`"
        for stream in missing
        if stream.name not in unknown
    ]
    reasons += filter(None, [unknown_note(settings, names)])
    if len(missing) == len(streams):
        raise ConfigurationError(reasons[0])
    for reason in reasons:
        typer.echo(f"warning: {reason}", err=True)
    return missing


def _simulate(
    settings: "Settings",
    sources: "Sequence[tuple[Stream, Iterable[Simulated]]]",
    stop: threading.Event,
    rate: float | None,
    count: int | None,
    health_port: int | None,
    traces: "Traces",
) -> "Sent":
    from streamflow.monitoring import RECORDS_OUT, HealthServer
    from streaming_workers.producer.file import simulate
    from streaming_workers.reporting import Reporter, producer_asset, topic_asset

    assets = {
        stream.topic: [
            asset(stream.topic, settings.prefix) for asset in (producer_asset, topic_asset)
        ]
        for stream, _ in sources
    }
    reporter = Reporter.of(settings, "producer")

    def ready() -> tuple[bool, str]:
        return True, "ready"

    server = (
        nullcontext() if health_port is None else HealthServer(settings, health_port, ready, ready)
    )
    produced = {topic: RECORDS_OUT.labels(topic) for topic in assets}

    def on_record(stream: "Stream") -> None:
        produced[stream.topic].inc()
        for asset in assets[stream.topic]:
            reporter.note(asset, 1)

    rate = rate or settings.simulated_rate or _EVENTS_A_SECOND / len(sources)
    with server, reporter:
        return simulate(
            settings, sources, stop, rate=rate, count=count, on_record=on_record, traces=traces
        )


def _send_file(
    settings: "Settings",
    stream: "Stream",
    reader: Any,
    source: "Source",
    on_invalid: OnInvalid,
    stop: threading.Event,
    resume: bool,
    pace: "Pace | None",
    traces: "Traces",
) -> "tuple[Sent, UsageError | None]":
    """What was sent, and what has ended the run before the end of the file. Raises UsageError if nothing of
    it was looked at."""
    from rich.console import Console
    from rich.progress import Progress

    from streamflow.errors import UsageError
    from streaming_workers.producer.file import FileRun

    shown = 0

    def report(number: int, rejection: "Rejection") -> None:
        nonlocal shown
        shown += 1
        if shown <= _SHOWN:
            typer.echo(f"{source.unit} {number}: {rejection.code}: {rejection.message}", err=True)
        elif shown == _SHOWN + 1:
            typer.echo(f"more invalid {source.unit}s follow; they are counted below", err=True)

    run = FileRun(settings, stream, reader, source, on_invalid.value, report, traces)
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(source.path.name, total=source.size or None)
        try:
            run.run(stop, resume=resume, pace=pace, on_bytes=partial(bar.advance, task))
        except UsageError as error:
            if run.sent.line == 0:
                raise
            return run.sent, error
        return run.sent, None


def _pacing(speed: float, stream: "Stream") -> "Pace":
    """Spaces events as their times are spaced, divided by `speed`."""
    began: float | None = None

    def wait(event: Any) -> float:
        nonlocal began
        due: float = stream.time_of(event).timestamp() / speed
        now = time.monotonic()
        if began is None:
            began = now - due
        return max(0.0, began + due - now)

    return wait
