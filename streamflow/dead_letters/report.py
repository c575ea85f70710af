"""What a plan or a replay has come to, and what was asked of it."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

from streamflow.dead_letters.store import Outcome
from streamflow.errors import UsageError

PASSED = frozenset({Outcome.PASSES, Outcome.STORED, Outcome.DUPLICATE})
FAILED = frozenset({Outcome.FAILS, Outcome.REJECTED})
# A plan's letters are neither; `not_sent` is what an interrupted replay gave back.
SENT = frozenset({Outcome.SENT, Outcome.STORED, Outcome.DUPLICATE, Outcome.REJECTED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to replay.

    Attributes:
        repairs: names, applied in this order.
        canary: letters to send first, and to see stored before any other; 0 for none.
        rate: letters a second, at most.
        max_attempts: a letter that was replayed so often is quarantined instead.
        force: takes quarantined letters as well, whatever the cap; they must be named by id.
        patience: seconds to wait until what was sent is seen stored.
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
            raise UsageError("the rate must be more than 0 letters a second")
        if self.max_attempts < 1:
            raise UsageError("the cap on attempts must be at least 1")
        if not (self.patience >= 0 and math.isfinite(self.patience)):
            raise UsageError("the seconds to wait must not be negative")

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Self:
        """Options from what `as_dict` made of them."""
        return cls(**{**found, "repairs": tuple(found["repairs"])})

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "repairs": list(self.repairs),
            "canary": self.canary,
            "rate": self.rate,
            "max_attempts": self.max_attempts,
            "force": self.force,
            "patience": self.patience,
        }


class Sample(NamedTuple):
    """A letter that does not pass: its id, its code, and the reason now."""

    id: str
    error_code: str
    reason: str
    message: str


class Line(NamedTuple):
    """The numbers of the letters of one error code.

    Attributes:
        reasons: why letters failed or were quarantined, by code.
        pending: sent, and not yet seen stored.
    """

    error_code: str
    selected: int
    passed: int
    failed: int
    quarantined: int
    pending: int
    reasons: dict[str, int]


@dataclass(slots=True, kw_only=True)
class Report:
    """What became, or would become, of the selected letters.

    Attributes:
        dry_run: whether it is a plan.
        plan_id: of the plan, or of the one that was applied.
        replay_id: None for a plan.
        state: planned; finished, or stopped before all were sent.
        note: why it was stopped, and what to do.
        recovered: replays whose process had been killed, and that this one has settled.
        skipped: dead letters that were left out, by reason: those named by id that cannot be
            replayed, by their status; once applied, those of the plan that changed since.
        tally: number of letters by their code, outcome, and reason.
        samples: some of those that do not pass.
    """

    dry_run: bool
    plan_id: int | None = None
    replay_id: int | None = None
    state: str = "planned"
    note: str = ""
    recovered: list[int] = field(default_factory=list)
    skipped: dict[str, int] = field(default_factory=dict)
    tally: Counter[tuple[str, Outcome, str]] = field(default_factory=Counter)
    samples: list[Sample] = field(default_factory=list)

    def number(self, outcomes: Iterable[Outcome]) -> int:
        """How many letters have one of these outcomes."""
        wanted = set(outcomes)
        return sum(number for (_, each, _), number in self.tally.items() if each in wanted)

    @property
    def selected(self) -> int:
        """Letters looked at."""
        return self.tally.total()

    @property
    def passed(self) -> int:
        """Letters that pass; once applied, those whose event is seen stored."""
        return self.number(PASSED)

    @property
    def failed(self) -> int:
        """Letters that were not sent, since they would fail, or were sent and failed again."""
        return self.number(FAILED)

    @property
    def sent(self) -> int:
        """Letters sent."""
        return self.number(SENT)

    @property
    def quarantined(self) -> int:
        """Letters at the cap of attempts."""
        return self.number({Outcome.QUARANTINED})

    @property
    def pending(self) -> int:
        """Letters sent whose end is not known yet."""
        return self.number({Outcome.SENT})

    @property
    def good(self) -> bool:
        """Whether every selected letter passes, or is seen stored."""
        return self.state in ("planned", "finished") and self.passed == self.selected

    def lines(self) -> list[Line]:
        """The numbers by error code."""
        found = []
        for code in sorted({code for code, _, _ in self.tally}):
            own = Report(dry_run=self.dry_run, tally=self._of(code))
            reasons: Counter[str] = Counter()
            for (_, _, reason), number in own.tally.items():
                if reason:
                    reasons[reason] += number
            found.append(
                Line(
                    code,
                    own.selected,
                    own.passed,
                    own.failed,
                    own.quarantined,
                    own.pending,
                    dict(sorted(reasons.items())),
                )
            )
        return found

    def _of(self, code: str) -> Counter[tuple[str, Outcome, str]]:
        return Counter({key: number for key, number in self.tally.items() if key[0] == code})

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "dry_run": self.dry_run,
            "plan_id": self.plan_id,
            "replay_id": self.replay_id,
            "state": self.state,
            "note": self.note,
            "selected": self.selected,
            "passed": self.passed,
            "failed": self.failed,
            "sent": self.sent,
            "quarantined": self.quarantined,
            "pending": self.pending,
            "recovered": self.recovered,
            "skipped": self.skipped,
            "codes": [line._asdict() for line in self.lines()],
            "samples": [sample._asdict() for sample in self.samples],
        }

    def summary(self) -> str:
        """One line for the user."""
        if self.dry_run:
            text = (
                f"plan {self.plan_id}: of {self.selected:,} dead letters {self.passed:,} would pass, "
                f"{self.failed:,} would fail"
            )
            if self.quarantined:
                text += f", {self.quarantined:,} are at the cap of attempts"
        else:
            text = (
                f"replay {self.replay_id} of plan {self.plan_id} {self.state}: "
                f"of {self.selected:,} dead letters {self.sent:,} sent, {self.passed:,} seen stored, "
                f"{self.number({Outcome.REJECTED}):,} refused again"
            )
            if self.number({Outcome.FAILS}):
                text += f", {self.number({Outcome.FAILS}):,} not sent since they would fail"
            if self.quarantined:
                text += f", {self.quarantined:,} quarantined"
            if self.pending:
                text += (
                    f", {self.pending:,} not seen yet (they are in the topic: `streamflow dlq list "
                    "--status replaying` shows them until the loader has them)"
                )
        if self.skipped:
            text += "; left out: " + ", ".join(
                f"{number:,} {status}" for status, number in sorted(self.skipped.items())
            )
        for replay in self.recovered:
            text += f"; replay {replay}, which had been killed, is settled"
        return text + (f". {self.note}" if self.note else "")
