"""What a comparison with other programs reports, and what a missed bar does."""

import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from streamflow.errors import StreamFlowError, UsageError
from streamflow_bench.benchmark import Findings
from streamflow_bench.figures import OF_WORK, PATHS, PathName
from streamflow_bench.peers import comparison, documents, programs
from streamflow_bench.peers.catalog import HAND_LOOP, PEERS, hand_loop, others
from streamflow_bench.peers.comparison import STREAMFLOW, Contender, PeerComparison
from streamflow_bench.peers.place import FOLDER
from streamflow_bench.peers.programs import NotInstalled, Script
from streamflow_bench.peers.running import PeerRun
from streamflow_bench.results import Course, MemorySamples, Result, Rows, Run
from streamflow_cli.app import app

MEMORY = MemorySamples([(0.0, 100_000_000)])


def course(cpu: float) -> Course:
    return Course(1_000_000, 10.0, cpu, 0.0, MEMORY)


class Measured:
    """Stands in for what is measured: StreamFlow in half of the hand loop's time."""

    filled = None

    def __init__(self, *, rows: Rows, failing: str = "") -> None:
        self.peers = self
        self._rows = rows
        self._failing = failing
        self.asked: list[str] = []

    def measure(self, _name: PathName) -> Run:
        self.asked.append(STREAMFLOW)
        return Run(
            figure=100_000.0,
            raw=200_000.0,
            load_before=1.0,
            course=course(4.0),
            hand=course(8.0),
            rows=Rows(10, 7),
            hand_rows=Rows(10, 7),
        )

    def run(self, peer: programs.Program, _filled: object) -> PeerRun:
        name = getattr(peer, "name", "")
        self.asked.append(name)
        if name == self._failing:
            raise StreamFlowError("it ended with code 1")
        return PeerRun(course(16.0), 1.0, self._rows)


@pytest.fixture
def two_peers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytewax and Pathway, which need not be installed."""
    monkeypatch.setattr(programs, "PEERS_PYTHON", Path(sys.executable))
    monkeypatch.setattr(Script, "versions", lambda _self: {"python": "3.11"})
    loaders = [peer for peer in others(PathName.LOADER) if peer.name in {"Bytewax", "Pathway"}]
    monkeypatch.setattr(comparison, "others", lambda _path: loaders)


def compared(measured: Measured, rounds: int = 2) -> PeerComparison:
    return comparison.compare(measured, PathName.LOADER, rounds, lambda _text: None)  # type: ignore[arg-type]


@pytest.mark.usefixtures("two_peers")
def test_all_take_turns_in_each_round() -> None:
    measured = Measured(rows=Rows(10, 7))
    found = compared(measured)
    assert measured.asked == [STREAMFLOW, "Bytewax", "Pathway"] * 2
    assert [each.name for each in found.contenders] == [
        *(STREAMFLOW, HAND_LOOP, "Bytewax", "Pathway")
    ]
    ratios = [each.cpu_of_hand and each.cpu_of_hand.median for each in found.contenders]
    assert ratios == [0.5, 1.0, 2.0, 2.0]
    assert [each.equal for each in found.contenders] == [True] * 4
    assert found.result.missed == ["loader: 0.50 x raw limit, bar ≥ 0.8", *found.result.missed[1:]]


@pytest.mark.usefixtures("two_peers")
def test_other_rows_are_said_to_be_others() -> None:
    found = compared(Measured(rows=Rows(10, 8)), rounds=1).as_dict()
    assert [each["rows_equal"] for each in found["contenders"]] == [True, True, False, False]


@pytest.mark.usefixtures("two_peers")
def test_a_peer_that_fails_is_named_and_not_tried_again() -> None:
    measured = Measured(rows=Rows(10, 7), failing="Bytewax")
    found = compared(measured).as_dict()
    assert measured.asked == [STREAMFLOW, "Bytewax", "Pathway", STREAMFLOW, "Pathway"]
    bytewax = found["contenders"][2]
    assert bytewax["not_measured"] == "it failed: it ended with code 1"
    assert (bytewax["cpu_s_per_million"], bytewax["runs"]) == (None, [])


def test_a_peer_that_is_not_installed_says_what_installs_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bytewax = others(PathName.LOADER)[0].program
    monkeypatch.setattr(programs, "PEERS_PYTHON", tmp_path / "python")
    with pytest.raises(NotInstalled, match="bytewax not installed: run `make peers`"):
        bytewax.versions()
    monkeypatch.setattr(programs, "PEERS_PYTHON", Path(sys.executable))
    with pytest.raises(NotInstalled, match="surely-not-there not installed: run `make peers`"):
        Script("hand_loader.py", ("surely-not-there",)).versions()


def test_every_peer_has_its_program_and_every_path_its_hand_loop() -> None:
    scripts = [peer.program for peer in PEERS if isinstance(peer.program, Script)]
    assert all((FOLDER / script.name).exists() for script in scripts)
    assert len({(peer.name, peer.path) for peer in PEERS}) == len(PEERS)
    for path in OF_WORK:
        assert hand_loop(path).program.versions()["pydantic"]


def a_report() -> dict[str, object]:
    result = Result(PATHS[PathName.LOADER], [Measured(rows=Rows(0, 0)).measure(PathName.LOADER)])
    ours = Contender(name=STREAMFLOW, guarantee="exactly once", settings="as it comes")
    ours.add(PeerRun(course(4.0), 1.0, None), result.runs[0])
    missing = Contender(
        name="Other", guarantee="none", settings="a|b", failure="it is not installed"
    )
    return {
        "date": "2026-11-27T12:00:00Z",
        "events": 1_000_000,
        "runs": 1,
        "machine": {"cores": 2, "cpu": "a processor", "memory_mb": 8_000},
        "peers": [PeerComparison(result, [ours, missing]).as_dict()],
    }


def test_the_page_is_renewed_between_its_marks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # This environment has matplotlib as well.
    monkeypatch.setattr(documents, "PEERS_PYTHON", Path(sys.executable))
    page, chart = tmp_path / "performance.md", tmp_path / "peers.png"
    page.write_text(f"before\n\n{documents.BEGIN}\nold\n{documents.END}\n\nafter\n")
    documents.write_documents(a_report(), page, chart)
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert "| StreamFlow | 4.0 | 0.50 | 100,000 | 0.40 | 100 |  |" in text
    assert "| Other | not measured: it is not installed |" in text
    assert "| a/b |" in text
    assert "Raw limit: bare COPY of the same rows, 200,000 events/s" in text
    assert chart.read_bytes().startswith(b"\x89PNG")
    documents.write_documents(a_report(), page, chart)
    assert page.read_text() == text


def test_a_page_without_marks_is_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text("by hand\n")
    with pytest.raises(StreamFlowError, match="has no lines"):
        documents.write_documents(a_report(), page, tmp_path / "peers.png")
    assert page.read_text() == "by hand\n"


@pytest.mark.parametrize(("arguments", "code"), [((), 1), (("--no-judge",), 0)])
def test_a_missed_bar_is_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], code: int
) -> None:
    result = Result(PATHS[PathName.LOADER], [Measured(rows=Rows(0, 0)).measure(PathName.LOADER)])
    findings = Findings([result], [], [], {"missed": result.missed})
    monkeypatch.setattr("streamflow_bench.benchmark.run_benchmark", lambda *_: findings)
    done = CliRunner().invoke(app, ["bench", *arguments], env={"COLUMNS": "200"})
    assert done.exit_code == code
    assert "bar missed: loader: 0.50 x raw limit, bar ≥ 0.8" in done.stderr
    assert "CPU 0.50" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--peers", "--only", "latency"), "there are no peers of latency: with --peers"),
        (("--peers", "--workers", "2"), "leave out --workers"),
        (("--write-docs",), "--write-docs needs --peers"),
    ],
)
def test_what_cannot_be_compared_is_said_before(arguments: tuple[str, ...], message: str) -> None:
    done = CliRunner().invoke(app, ["bench", *arguments])
    assert isinstance(done.exception, UsageError)
    assert message in str(done.exception)
