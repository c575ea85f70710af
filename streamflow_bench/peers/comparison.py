"""StreamFlow, the hand loop and every peer in turn, on the same events, and what they come to."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Final

from streamflow.errors import StreamFlowError
from streamflow.extras import DISTRIBUTION
from streamflow_bench.figures import PATHS, PathName
from streamflow_bench.paths import Paths
from streamflow_bench.peers.catalog import HAND_LOOP, hand_loop, others
from streamflow_bench.peers.programs import NotInstalled
from streamflow_bench.peers.running import PeerRun
from streamflow_bench.results import Result, Run, Spread, named, quotient, rounded, spread

STREAMFLOW: Final = "StreamFlow"
_GUARANTEES: Final = {
    PathName.PRODUCE: "exactly once, and validated; goes on where a killed run stopped",
    PathName.LOADER: "exactly once, with fencing; invalid records are the validator's dead letters",
    PathName.ANALYTICS: "exactly once; late events are counted",
    PathName.VALIDATOR: "exactly once, signed; dead letters with reason, addresses redacted",
}


@dataclass(slots=True, kw_only=True)
class Contender:
    """One program on one path, over all rounds."""

    name: str
    guarantee: str
    settings: str
    versions: Mapping[str, str] = field(default_factory=dict)
    runs: list[PeerRun] = field(default_factory=list)
    hands: list[float | None] = field(
        default_factory=list
    )  # processor time of each round's hand loop
    equal: bool | None = (
        None  # whether all rounds stored what StreamFlow stored; None without a table
    )
    failure: str | None = None  # why it was not measured

    def add(self, run: PeerRun, beside: Run) -> None:
        """Adds a run, and what StreamFlow's run of the same round was."""
        self.runs.append(run)
        self.hands.append(beside.hand and beside.hand.cpu)
        if run.rows is not None and beside.rows is not None:
            self.equal = self.equal is not False and run.rows == beside.rows

    @property
    def cpu(self) -> Spread | None:
        """Seconds of processor time for a million events."""
        return spread([run.course.cpu for run in self.runs])

    @property
    def rate(self) -> Spread | None:
        return spread([run.course.rate for run in self.runs])

    @property
    def cpu_of_hand(self) -> Spread | None:
        pairs = zip(self.runs, self.hands, strict=True)
        return spread([quotient(run.course.cpu, hand) for run, hand in pairs])

    @property
    def cores(self) -> Spread | None:
        return spread([run.course.cores for run in self.runs])

    @property
    def peak_mb(self) -> Spread | None:
        return spread([run.course.memory.peak_mb for run in self.runs])

    def as_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "not_measured": self.failure,
            "cpu_s_per_million": named(self.cpu),
            "cpu_of_hand_loop": named(self.cpu_of_hand),
            "events_per_s": named(self.rate),
            "cores_busy": named(self.cores),
            "memory_peak_mb": named(self.peak_mb),
            "rows_equal": self.equal,
            "versions": dict(self.versions),
            "settings": self.settings,
            "guarantee": self.guarantee,
            "runs": [
                run.course.as_dict() | {"load_before": rounded(run.load_before, 2)}
                for run in self.runs
            ],
        }


@dataclass(frozen=True, slots=True)
class PeerComparison:
    """All contenders of one path; `result` judges StreamFlow."""

    result: Result
    contenders: list[Contender]

    def as_dict(self) -> dict[str, Any]:
        return {
            "path": self.result.path.name.value,
            "raw": named(self.result.raw),
            "raw_ratio": named(self.result.ratio),
            "contenders": [each.as_dict() for each in self.contenders],
        }


def compare(
    paths: Paths, name: PathName, rounds: int, say: Callable[[str], None]
) -> PeerComparison:
    """Measures all contenders of a path once in each round. One that fails is not tried again."""
    result = Result(PATHS[name], [])
    ours = Contender(name=STREAMFLOW, guarantee=_GUARANTEES[name], settings="as it comes")
    peers = [hand_loop(name), *others(name)]
    with suppress(NotInstalled):
        # The same client libraries.
        same = hand_loop(name).program.versions()
        ours.versions = {"streamflow": version(DISTRIBUTION), **same}
    contenders = [
        Contender(name=peer.name, guarantee=peer.guarantee, settings=peer.settings)
        for peer in peers
    ]
    for number in range(1, rounds + 1):
        run = paths.measure(name)
        result.runs.append(run)
        if run.course is not None:
            ours.add(PeerRun(run.course, run.load_before, run.rows), run)
        for peer, contender in zip(peers, contenders, strict=True):
            if contender.failure is not None:
                continue
            try:
                contender.versions = peer.program.versions()
                if peer.name != HAND_LOOP:
                    contender.add(paths.peers.run(peer, paths.filled), run)
                elif run.hand is not None:
                    # It has run beside StreamFlow's own worker.
                    contender.add(PeerRun(run.hand, run.load_before, run.hand_rows), run)
            except NotInstalled as error:
                contender.failure = str(error)
            except StreamFlowError as error:
                contender.failure = f"it failed: {error}"
        for contender in (ours, *contenders):
            say(f"{name}, round {number} of {rounds}: {_describe(contender, number)}")
    return PeerComparison(result, [ours, *contenders])


def _describe(contender: Contender, number: int) -> str:
    if contender.failure is not None:
        return f"{contender.name} not measured: {contender.failure}"
    course = contender.runs[number - 1].course
    if course.cpu is None or course.rate is None:
        return f"{contender.name} did all in one step"
    return f"{contender.name} {course.cpu:.1f} CPU s per million, {course.rate:,.0f} events/s"
