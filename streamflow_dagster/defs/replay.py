"""The job ``replay_dead_letters``: the same replay as `streamflow dlq replay`, from the launchpad."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import dagster as dg
from pydantic import Field

from streamflow.dead_letters.apply import apply, plan_after_recovery, plan_and_apply
from streamflow.dead_letters.report import Options, Report
from streamflow.dead_letters.selection_parser import make_selection
from streamflow.errors import UsageError
from streamflow.registry import hasher_for, load_streams
from streamflow.settings import load_settings

DEAD_LETTERS: Final = dg.AssetKey(["postgres", "dead_letters"])


class ReplayConfig(dg.Config):
    """What to replay, and how. Filters that are set must all hold; without any, it is every open
    dead letter. With `plan_id` only `dry_run` and `requested_by` count. Dagster keeps this
    configuration: write no clear-text address into it."""

    plan_id: int | None = Field(
        default=None,
        description="Apply this plan, as a dry run has told its id: just its dead letters, with its "
        "options. It goes with `dry_run: false`, and with no filter or option.",
    )
    error_codes: list[str] = Field(
        default=[],
        description="Only letters with one of these codes, such as SCHEMA_VIOLATION.",
    )
    since: str | None = Field(
        default=None,
        description="Only what failed then or later: a time such as 2026-03-01T12:00:00Z, or so long "
        "ago as 15m, 2h or 7d.",
    )
    until: str | None = Field(
        default=None, description="Only what failed before then; written as `since`."
    )
    ids: list[str] = Field(
        default=[],
        description="Only these letters, by topic/partition/offset of the failed record, such as "
        "user-events/0/17.",
    )
    text: str | None = Field(
        default=None,
        description="Only letters whose payload or message contains this text, as it is written. "
        "Payloads hold addresses as hashes: give the hash.",
    )
    loaded_until: str | None = Field(
        default=None,
        description="Only what the loader had loaded by then; written as `since`. The dashboard "
        "plans by it what its list has shown.",
    )
    limit: int | None = Field(
        default=None, description="The first so many letters, by partition and offset."
    )
    dry_run: bool = Field(
        default=True,
        description="Only make a plan: tell what would pass and what would fail, and its id. Set it "
        "to false to send what would pass, of the plan in `plan_id` or of a new one.",
    )
    repairs: list[str] = Field(
        default=[],
        description="Functions that mend each letter first, in this order: hash_address, "
        "coerce_numbers, add_zone, or your own from the modules in STREAMFLOW_REPAIRS.",
    )
    canary: int = Field(
        default=10,
        description="Letters to send first, and to see stored before any other; 0 for none. One "
        "that fails stops the replay.",
    )
    rate: float = Field(default=500.0, description="Letters a second, at most.")
    max_attempts: int = Field(
        default=3, description="A letter that was replayed so often is quarantined instead."
    )
    force: bool = Field(
        default=False,
        description="Replay quarantined letters as well; they must be named in `ids`.",
    )
    requested_by: str | None = Field(
        default=None, description="Who wants it, for the record; this run by default."
    )

    def options(self) -> Options:
        """How to replay."""
        return Options(
            repairs=tuple(self.repairs),
            canary=self.canary,
            rate=self.rate,
            max_attempts=self.max_attempts,
            force=self.force,
        )

    def require_plan_alone(self) -> None:
        """Checks that nothing beside a plan says what to replay, or how.

        Raises:
            UsageError: something does, or it is to be a dry run.
        """
        if self.dry_run:
            raise UsageError("a plan is applied with dry_run: false; without plan_id one is made")
        with_plan = {"plan_id", "dry_run", "requested_by"}
        for name, field in type(self).model_fields.items():
            if name not in with_plan and getattr(self, name) != field.default:
                raise UsageError(
                    f"{name} cannot go with plan_id: a plan has its dead letters and options; for "
                    "others make a new plan"
                )


@dg.op(
    name="replay",
    description="Plans a replay of dead letters, or applies it.",
    out=dg.Out(dict, description="The plan, or what the replay came to."),
)
def replay_op(
    context: dg.OpExecutionContext, config: ReplayConfig
) -> Iterator[dg.AssetObservation | dg.Output[dict[str, Any]]]:
    """Replays, reports on the asset of the dead letters, and fails where letters do.

    Ended from Dagster half-way, it is taken back to where Kafka and the database agree; launch it
    again for what is left.
    """
    settings = load_settings()
    streams = load_streams(settings)
    by = config.requested_by or f"dagster run {context.run_id}"
    if config.plan_id is not None:
        config.require_plan_alone()
        report = apply(
            settings, streams, config.plan_id, requested_by=by, on_progress=_logged(context)
        )
    else:
        selection = make_selection(
            hasher_for(settings, streams),
            codes=config.error_codes,
            since=config.since,
            until=config.until,
            ids=config.ids,
            text=config.text,
            loaded_until=config.loaded_until,
            limit=config.limit,
        )
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
            )
    context.log.info(report.summary())
    metadata = metadata_of(report)
    # Yielded, since an event that is only logged is lost when the op fails.
    yield dg.AssetObservation(DEAD_LETTERS, description=report.summary(), metadata=metadata)
    if not report.dry_run and not report.good:
        raise dg.Failure(report.summary(), metadata=metadata, allow_retries=False)
    yield dg.Output(report.as_dict(), metadata=metadata)


@dg.job(
    name="replay_dead_letters",
    executor_def=dg.in_process_executor,
    description="Replays dead letters: by default it only makes a plan, what would pass and what "
    "would fail today. With `dry_run: false` and `plan_id` it sends what that plan let pass, each "
    "exactly once.",
)
def replay_dead_letters() -> None:
    """One op, configured in the launchpad."""
    replay_op()


def metadata_of(report: Report) -> Mapping[str, Any]:
    """Numbers, which Dagster plots, and tables for the eye."""
    found: dict[str, Any] = {
        "dry_run": dg.MetadataValue.bool(report.dry_run),
        "state": report.state,
        "selected": report.selected,
        "passed": report.passed,
        "failed": report.failed,
        "sent": report.sent,
        "quarantined": report.quarantined,
        "pending": report.pending,
        "by_code": dg.MetadataValue.md(_by_code(report)),
        "samples": dg.MetadataValue.md(_samples(report)),
    }
    if report.plan_id is not None:
        found["plan_id"] = report.plan_id
    if report.replay_id is not None:
        found["replay_id"] = report.replay_id
    return found


def _by_code(report: Report) -> str:
    passed, failed = ("would pass", "would fail") if report.dry_run else ("seen stored", "failed")
    rows = [
        f"| {line.error_code} | {line.selected} | {line.passed} | {line.failed} "
        f"| {line.quarantined} | {', '.join(f'{why} {n}' for why, n in line.reasons.items())} |"
        for line in report.lines()
    ]
    if not rows:
        return "No dead letter was selected."
    head = f"| code | selected | {passed} | {failed} | at the cap | reasons |"
    return "\n".join([head, "|---|--:|--:|--:|--:|---|", *rows])


def _samples(report: Report) -> str:
    rows = [
        f"| {each.id} | {each.error_code} | {each.reason} | {_cell(each.message)} |"
        for each in report.samples
    ]
    if not rows:
        return "None."
    return "\n".join(["| letter | code | reason now | message |", "|---|---|---|---|", *rows])


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _logged(context: dg.OpExecutionContext) -> Any:
    """Tells of the progress at each tenth."""
    told = 0

    def on_progress(done: int, total: int) -> None:
        nonlocal told
        tenth = 10 * done // total if total else 10
        if tenth > told:
            told = tenth
            context.log.info("%d of %d dead letters handled", done, total)

    return on_progress
