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


@pytest.mark.parametrize("answer", ["n\n", "\n", ""])
@pytest.mark.parametrize(
    "command",
    [
        ("forget", "ann@example.com", "--apply"),
        ("topics", "--accept-recreated", "user-events"),
    ],
)
def test_without_a_yes_nothing_is_changed(
    run: Run,
    erased: list[Subject],
    monkeypatch: pytest.MonkeyPatch,
    command: tuple[str, ...],
    answer: str,
) -> None:
    monkeypatch.setattr(streaming_workers.acceptance, "Acceptance", Recreated)
    code, said = run(*command, given=answer)
    assert (code, said.strip()) == (1, "error: not confirmed: without a terminal, add --yes")
    assert erased == []


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
