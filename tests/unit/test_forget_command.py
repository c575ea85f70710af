"""`streamflow forget` without a database, and what its question shares with `topics --accept-recreated`."""

import io
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import streaming_workers.acceptance
from streamflow.erasure import erase
from streamflow.erasure.certificate import Certificate
from streamflow.erasure.erase import Subject
from streamflow.postgres.forgotten import Kind
from streamflow_cli.app import main
from streamflow_cli.forget import _show

A, B, C = (digit * 64 for digit in "abc")
CERTIFICATE = Certificate(
    erasure=1,
    kind="address",
    hashes=[A, B],
    requested_by="tests",
    requested_at="2026-03-01T12:00:00Z",
    erased={},
    positions={},
    finished_at="2026-03-01T12:00:01Z",
)

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command; returns its exit code and what it says on standard error."""

    def call(*arguments: str, given: str = "") -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["streamflow", *arguments])
        monkeypatch.setattr(sys, "stdin", io.StringIO(given))
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), capsys.readouterr().err

    return call


@pytest.fixture
def erased(monkeypatch: pytest.MonkeyPatch) -> list[Subject]:
    """Who is erased."""
    subjects: list[Subject] = []
    planned = replace(CERTIFICATE, finished_at=None)
    monkeypatch.setattr(erase, "plan", lambda *_, **__: planned)
    monkeypatch.setattr(
        erase, "apply", lambda *given, **_: [CERTIFICATE, subjects.append(given[2])][0]
    )
    return subjects


class Recreated:
    """A topic that was recreated; it can be looked at."""

    def __init__(self, *_: Any) -> None:
        pass

    def look(self) -> Any:
        return SimpleNamespace(reuse=None, rows={})


@pytest.mark.parametrize(
    ("answer", "hint"),
    [("n\n", ""), ("\n", ""), ("", "; without a terminal, add --yes")],
)
@pytest.mark.parametrize(
    ("command", "nothing"),
    [
        (("forget", "ann@example.com", "--apply"), "nothing was erased"),
        (("topics", "--accept-recreated", "user-events"), "nothing was changed"),
    ],
)
def test_without_a_yes_nothing_is_changed(
    run: Run,
    erased: list[Subject],
    monkeypatch: pytest.MonkeyPatch,
    command: tuple[str, ...],
    nothing: str,
    answer: str,
    hint: str,
) -> None:
    monkeypatch.setattr(streaming_workers.acceptance, "Acceptance", Recreated)
    code, said = run(*command, given=answer)
    assert (code, said.strip()) == (1, f"error: not confirmed: {nothing}{hint}")
    assert erased == []


@pytest.mark.parametrize(
    ("new", "before", "begins"),
    [
        ({"events": 0}, {"events": 0}, ["nothing is stored of this subject"]),
        (
            {"events": 0},
            {"events": 8},
            [
                "nothing more is stored of this subject",
                "table   to be erased  already erased",
                "events             0               8",
            ],
        ),
        (
            {"events": 2, "replays": 0},
            {"events": 6},
            [
                "to be erased (nothing has been changed):",
                "table   to be erased  already erased",
                "events             2               6",
            ],
        ),
    ],
)
def test_what_is_erased_already_is_not_shown_as_still_to_erase(
    capsys: pytest.CaptureFixture[str],
    new: dict[str, int],
    before: dict[str, int],
    begins: list[str],
) -> None:
    planned = replace(CERTIFICATE, finished_at=None, erased=new, already_erased=before)
    _show(planned, as_json=False)
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines[: len(begins)] == begins
    assert lines[len(begins)].startswith("not reached: ")


def test_certificates_are_all_that_is_needed(
    run: Run, erased: list[Subject], tmp_path: Path
) -> None:
    user = replace(CERTIFICATE, kind="user", hashes=[C])
    file = tmp_path / "certificates.json"
    file.write_text(
        json.dumps(CERTIFICATE.as_dict()) + "\n" + json.dumps(user.as_dict(), indent=2) + "\n"
    )
    assert run("forget", "--certificate", str(file), "--apply", "--yes") == (0, "")
    assert erased == [Subject(Kind.ADDRESS, (A, B)), Subject(Kind.USER, (C,))]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"[" * 100_000,
        b"[]",
        b'{"kind": "address", "hashes": []}',
        json.dumps(CERTIFICATE.as_dict() | {"kind": "friend"}).encode(),
        json.dumps(CERTIFICATE.as_dict() | {"hashes": []}).encode(),
        json.dumps(CERTIFICATE.as_dict() | {"hashes": [A, ".*"]}).encode(),
        json.dumps(CERTIFICATE.as_dict() | {"finished_at": None}).encode(),
        json.dumps(CERTIFICATE.as_dict()).encode() + b"\n{",
    ],
)
def test_what_is_no_certificate_is_refused(
    run: Run, erased: list[Subject], tmp_path: Path, content: bytes
) -> None:
    file = tmp_path / "certificates.json"
    file.write_bytes(content)
    code, said = run("forget", "--certificate", str(file), "--apply", "--yes")
    assert code == 2
    assert said.startswith(f"error: {file} does not hold certificates")
    assert len(said.splitlines()) == 1
    assert erased == []
