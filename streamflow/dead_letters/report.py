"""The result of a plan or a replay, and its options."""

import math
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, Self

from streamflow.dead_letters.store import Outcome, Sample
from streamflow.errors import UsageError
from streamflow.units import counted

PASSED = frozenset({Outcome.PASSES, Outcome.STORED, Outcome.DUPLICATE})
FAILED = frozenset({Outcome.FAILS, Outcome.REJECTED})
# Dead letters of a plan are neither; those that a killed replay gave back are `not_sent`.
SENT = frozenset({Outcome.SENT, Outcome.STORED, Outcome.DUPLICATE, Outcome.REJECTED})

_FIGURES = (
    "dry_run", "plan_id", "replay_id", "state", "note", "selected", "passed", "failed",
    "unrepaired", "sent", "quarantined", "pending", "recovered", "skipped",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayOptions:
    """How to replay.

    Attributes:
        repairs: names, applied in this order.
        canary: dead letters to send first and see stored before sending the rest; 0 for none.
        rate: dead letters per second, at most.
        max_attempts: a dead letter with so many attempts is quarantined instead.
        force: replay quarantined dead letters too, whatever the limit; they must be named by id.
        patience: seconds to wait until what was sent is stored.
    """

    repairs: tuple[str, ...] = ()
    canary: int = 10
    rate: float = 500.0
    max_attempts: int = 3
    force: bool = False
    patience: float = 60.0

    def __post_init__(self) -> None:
        if self.canary < 0:
            raise UsageError("the canary size must not be negative; 0 means no canary")
        if not (self.rate > 0 and math.isfinite(self.rate)):
            raise UsageError("the rate must be more than 0 dead letters per second")
        if self.max_attempts < 1:
            raise UsageError("the limit of attempts must be at least 1")
        if not (self.patience >= 0 and math.isfinite(self.patience)):
            raise UsageError("the seconds to wait must not be negative")

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> Self:
        """The inverse of `as_dict`."""
        return cls(**{**saved, "repairs": tuple(saved["repairs"])})

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "repairs": list(self.repairs)}


class CodeCounts(NamedTuple):
    """The dead letters of one error code; `reasons` why they failed or were quarantined, by code."""

    error_code: str
    selected: int
    passed: int
    failed: int
    quarantined: int
    pending: int
    reasons: dict[str, int]


@dataclass(slots=True, kw_only=True)
class ReplayReport:
    """What became, or would become, of the selected dead letters.

    Attributes:
        dry_run: whether it is a plan.
        replay_id: None for a plan.
        state: planned; finished, or stopped before all were sent.
        note: why it was stopped, and what to do.
        recovered: killed replays that were ended first.
        skipped: dead letters that were left out, by reason: in a plan those named by id that cannot be
            replayed, by status; in a replay those of the plan that have changed since.
        tally: number of dead letters by error code, outcome, and reason.
        unrepaired: of a plan's dead letters that would be rejected, those that no chosen repair changes.
    """

    dry_run: bool
    plan_id: int | None = None
    replay_id: int | None = None
    state: str = "planned"
    note: str = ""
    recovered: list[int] = field(default_factory=list)
    skipped: dict[str, int] = field(default_factory=dict)
    tally: Counter[tuple[str, Outcome, str]] = field(default_factory=Counter)
    unrepaired: int = 0
    samples: list[Sample] = field(default_factory=list)

    def number(self, outcomes: Collection[Outcome]) -> int:
        return sum(number for (_, outcome, _), number in self.tally.items() if outcome in outcomes)

    @property
    def selected(self) -> int:
        return self.tally.total()

    @property
    def passed(self) -> int:
        """Those that pass; in a replay, those whose event is stored."""
        return self.number(PASSED)

    @property
    def failed(self) -> int:
        """Those that were not sent because they would fail, or were sent and rejected again."""
        return self.number(FAILED)

    @property
    def sent(self) -> int:
        return self.number(SENT)

    @property
    def quarantined(self) -> int:
        return self.number({Outcome.QUARANTINED})

    @property
    def pending(self) -> int:
        """Those that were sent and are not loaded yet."""
        return self.number({Outcome.SENT})

    @property
    def good(self) -> bool:
        """Whether every selected dead letter passes, or is stored."""
        return self.state in ("planned", "finished") and self.passed == self.selected

    def lines(self) -> list[CodeCounts]:
        lines = []
        for code in sorted({code for code, _, _ in self.tally}):
            tally = Counter({key: number for key, number in self.tally.items() if key[0] == code})
            own = ReplayReport(dry_run=self.dry_run, tally=tally)
            reasons = Counter[str]()
            for (_, _, reason), number in tally.items():
                if reason:
                    reasons[reason] += number
            counts = (own.selected, own.passed, own.failed, own.quarantined, own.pending)
            lines.append(CodeCounts(code, *counts, dict(sorted(reasons.items()))))
        return lines

    def as_dict(self) -> dict[str, Any]:
        return {
            **{name: getattr(self, name) for name in _FIGURES},
            "codes": [line._asdict() for line in self.lines()],
            "samples": [sample._asdict() for sample in self.samples],
        }

    def summary(self) -> str:
        """One line for the user."""
        if self.dry_run:
            text = (
                f"plan {self.plan_id}: of {counted(self.selected, 'dead letter')} {self.passed:,} "
                "would pass, "
                f"{self.failed:,} would fail"
            )
            if self.unrepaired:
                text += (
                    f" ({self.unrepaired:,} of them as before: no repair changes anything in them)"
                )
            if self.quarantined:
                text += f", {self.quarantined:,} at the limit of attempts"
        else:
            text = (
                f"replay {self.replay_id} of plan {self.plan_id} {self.state}: "
                f"of {counted(self.selected, 'dead letter')} {self.sent:,} sent, {self.passed:,} stored, "
                f"{self.number({Outcome.REJECTED}):,} rejected again"
            )
            if failing := self.number({Outcome.FAILS}):
                text += f", {failing:,} not sent because they would fail"
            if self.quarantined:
                text += f", {self.quarantined:,} quarantined"
            if self.pending:
                text += (
                    f", {self.pending:,} not loaded yet (they are in the topic; `streamflow dlq list "
                    "--status replaying` shows them until they are loaded)"
                )
        if self.skipped:
            text += "; left out: " + ", ".join(
                f"{number:,} {status}" for status, number in sorted(self.skipped.items())
            )
        for replay in self.recovered:
            text += f"; killed replay {replay} was recovered"
        return text + (f". {self.note}" if self.note else "")
