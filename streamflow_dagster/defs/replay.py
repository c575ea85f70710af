"""The job ``replay_dead_letters``: the same as `streamflow dlq replay`, from Dagster's launchpad."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import dagster as dg
from pydantic import Field

from streamflow.dead_letters.apply import apply, plan_after_recovery, plan_and_apply
from streamflow.dead_letters.report import ReplayOptions, ReplayReport
from streamflow.dead_letters.selection_parser import make_selection
from streamflow.errors import UsageError
from streamflow.registry import hasher_for, load_streams, stream_named
from streamflow.settings import load_process_settings
from streaming_workers.runtime.watchdog import no_endless_call

_FIGURES: Final = (
    "state", "selected", "passed", "failed", "sent", "quarantined", "pending",
)  # fmt: skip
_FILTERS: Final = {"since", "until", "ids", "text", "texts", "loaded_until", "limit"}
DEAD_LETTERS: Final = dg.AssetKey(["postgres", "dead_letters"])


class ReplayConfig(dg.Config):
    """What to replay, and how. All filters that are set must match; without any, every open dead letter
    is selected. With `plan_id`, set only `dry_run` and `requested_by`. Dagster stores this configuration:
    do not write clear-text addresses into it."""

    plan_id: int | None = Field(
        default=None,
        description="Apply this plan, with its dead letters and options. A dry run reports the id. "
        "Needs `dry_run: false`, and no filters or options.",
    )
    error_codes: list[str] = Field(
        default=[],
        description="Only dead letters with one of these codes, such as SCHEMA_VIOLATION.",
    )
    since: str | None = Field(
        default=None,
        description="Only what failed at or after this time: 2026-03-01T12:00:00Z, or an age such as "
        "15m, 2h or 7d.",
    )
    until: str | None = Field(
        default=None, description="Only what failed before this time; written as `since`."
    )
    ids: list[str] = Field(
        default=[],
        description="Only these dead letters, by topic/partition/offset of the failed record, such as "
        "user-events/0/17.",
    )
    stream: str | None = Field(
        default=None,
        description="Only dead letters of records of the stream with this name, or made from them.",
    )
    text: str | None = Field(
        default=None,
        description="Only dead letters with this text in the value or the message, case-sensitive. "
        "Values hold addresses as hashes: give the hash.",
    )
    texts: list[str] = Field(
        default=[],
        description="As `text`, with any of these; the dashboard gives the hashes of one address under "
        "all keys.",
    )
    loaded_until: str | None = Field(
        default=None,
        description="Only what was loaded by this time; written as `since`. The dashboard uses it to "
        "plan exactly what its list shows.",
    )
    limit: int | None = Field(
        default=None, description="At most so many dead letters, by partition and offset."
    )
    dry_run: bool = Field(
        default=True,
        description="Only make a plan: report what would pass and what would fail. Set it to false to "
        "send what would pass, of the plan in `plan_id` or of a new one.",
    )
    repairs: list[str] = Field(
        default=[],
        description="Repairs to apply to each dead letter first, in this order: hash_address, "
        "coerce_numbers, add_zone, or your own from the modules in STREAMFLOW_REPAIRS.",
    )
    canary: int = Field(
        default=10,
        description="Dead letters to send first; the rest is sent once these are stored. 0 for none. "
        "If one fails, the replay stops.",
    )
    rate: float = Field(default=500.0, description="Dead letters per second, at most.")
    max_attempts: int = Field(
        default=3, description="Quarantine dead letters that were replayed so often."
    )
    force: bool = Field(
        default=False,
        description="Replay quarantined dead letters too; they must be named in `ids`.",
    )
    requested_by: str | None = Field(
        default=None, description="Who requested it, for the history; this run by default."
    )

    def options(self) -> ReplayOptions:
        options = self.model_dump(include={"canary", "rate", "max_attempts", "force"})
        return ReplayOptions(repairs=tuple(self.repairs), **options)

    def require_plan_alone(self) -> None:
        """Raises UsageError if `plan_id` is combined with a filter, an option or a dry run."""
        if self.dry_run:
            raise UsageError("plan_id needs dry_run: false; leave plan_id out to make a plan")
        with_plan = {"plan_id", "dry_run", "requested_by"}
        for name, field in type(self).model_fields.items():
            if name not in with_plan and getattr(self, name) != field.default:
                raise UsageError(
                    f"{name} cannot be combined with plan_id: a plan has its own dead letters and "
                    "options; make a new plan for others"
                )


@dg.op(
    name="replay",
    description="Plans a replay of dead letters, or applies it.",
    out=dg.Out(dict, description="The plan, or the result of the replay."),
)
def replay_op(
    context: dg.OpExecutionContext, config: ReplayConfig
) -> Iterator[dg.AssetObservation | dg.Output[dict[str, Any]]]:
    """Replays, reports on the dead letters' asset, and fails if a dead letter does. If the run is
    terminated, the replay ends with what Kafka has committed; launch it again for the rest."""
    settings = load_process_settings()
    streams = load_streams(settings)
    by = config.requested_by or f"dagster run {context.run_id}"
    with no_endless_call(
        settings.stall_seconds, "replay", "launch it again: nothing is sent twice"
    ):
        if config.plan_id is not None:
            config.require_plan_alone()
            report = apply(
                settings,
                streams,
                config.plan_id,
                requested_by=by,
                on_progress=_logged(context),
                run_id=context.run_id,
            )
        else:
            filters = config.model_dump(include=_FILTERS)
            hasher = hasher_for(settings, streams)
            stream = None if config.stream is None else stream_named(streams, config.stream)
            selection = make_selection(hasher, codes=config.error_codes, stream=stream, **filters)
            options = config.options()
            if config.dry_run:
                report = plan_after_recovery(settings, streams, selection, options, requested_by=by)
            else:
                report = plan_and_apply(
                    settings,
                    streams,
                    selection,
                    options,
                    requested_by=by,
                    on_plan=lambda planned: context.log.info(planned.summary()),
                    on_progress=_logged(context),
                    run_id=context.run_id,
                )
    context.log.info(report.summary())
    metadata = _metadata(report)
    # Yielded, because an event that is only logged is lost when the op fails.
    yield dg.AssetObservation(DEAD_LETTERS, description=report.summary(), metadata=metadata)
    if not report.dry_run and not report.good:
        raise dg.Failure(report.summary(), metadata=metadata, allow_retries=False)
    yield dg.Output(report.as_dict(), metadata=metadata)


@dg.job(
    name="replay_dead_letters",
    executor_def=dg.in_process_executor,
    description="Replays dead letters. By default it only makes a plan of what would pass and what "
    "would fail now. With `dry_run: false` and `plan_id` it sends what passes, each exactly once.",
)
def replay_dead_letters() -> None:
    replay_op()


def _metadata(report: ReplayReport) -> Mapping[str, Any]:
    """Numbers, which Dagster plots, and tables."""
    metadata: dict[str, Any] = {
        "dry_run": dg.MetadataValue.bool(report.dry_run),
        **{name: getattr(report, name) for name in _FIGURES},
        "by_code": dg.MetadataValue.md(_by_code(report)),
        "samples": dg.MetadataValue.md(_samples(report)),
    }
    ids = {"plan_id": report.plan_id, "replay_id": report.replay_id}
    return metadata | {name: id_ for name, id_ in ids.items() if id_ is not None}


def _by_code(report: ReplayReport) -> str:
    passed, failed = ("would pass", "would fail") if report.dry_run else ("stored", "failed")
    rows = [
        (*line[:5], ", ".join(f"{why} {number}" for why, number in line.reasons.items()))
        for line in report.lines()
    ]
    head = f"| code | selected | {passed} | {failed} | at the limit | reasons |"
    return _table([head, "|---|--:|--:|--:|--:|---|"], rows) or "No dead letter was selected."


def _samples(report: ReplayReport) -> str:
    head = ["| dead letter | code | reason | message |", "|---|---|---|---|"]
    return _table(head, report.samples) or "None."


def _table(head: list[str], rows: Sequence[tuple[object, ...]]) -> str:
    """In Markdown; empty without rows."""
    cells = [[str(cell).replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    return "\n".join([*head, *(f"| {' | '.join(row)} |" for row in cells)]) if rows else ""


def _logged(context: dg.OpExecutionContext) -> Any:
    logged = 0

    def on_progress(done: int, total: int) -> None:
        nonlocal logged
        tenth = 10 * done // total if total else 10
        if tenth > logged:
            logged = tenth
            context.log.info("%d of %d dead letters handled", done, total)

    return on_progress
