"""Where exported files are put: a file takes the place of an earlier one as a whole, or not at all."""

import os
import resource
import signal
import tempfile
from datetime import date
from pathlib import Path

import pytest

from streamflow.errors import UsageError
from streamflow.export.destination import Destination

DAY = date(2026, 11, 28)


def write(destination: Destination, text: bytes) -> Path:
    with destination.replacing("events", DAY, "csv") as new:
        new.file.write(text)
        new.beside = text
    return Path(new.path)


def write_too_much(destination: Destination) -> None:
    """The limit of the process stands for a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limits[1]))
    try:
        write(destination, bytes(1 << 20))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("out", ["{}", "{}/", "{}/a folder", "file://{}"])
def test_a_file_is_replaced(tmp_path: Path, out: str) -> None:
    destination = Destination(out.format(tmp_path))
    write(destination, b"one")
    path = write(destination, b"two")
    assert path.read_bytes() == b"two"
    assert len(list(path.parent.iterdir())) == 2


def test_an_earlier_file_stays_if_writing_fails(tmp_path: Path) -> None:
    destination = Destination(str(tmp_path))
    path = write(destination, b"one")
    before = {each: each.read_bytes() for each in path.parent.iterdir()}
    with pytest.raises(UsageError, match="cannot be written: File too large"):
        write_too_much(destination)
    assert {each: each.read_bytes() for each in path.parent.iterdir()} == before


def test_a_file_is_written_beside_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From another file system it would be copied there: a full disk would leave half of it."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    assert write(Destination(str(tmp_path)), b"one").read_bytes() == b"one"


def test_an_exported_file_has_the_rights_of_any_new_file(tmp_path: Path) -> None:
    mask = os.umask(0o022)
    try:
        path = write(Destination(str(tmp_path)), b"one")
    finally:
        os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/exports", "zip://{}"])
def test_a_place_that_cannot_be_written_to_is_named(tmp_path: Path, url: str) -> None:
    with pytest.raises(UsageError, match="cannot be written"):
        write(Destination(url.format(tmp_path)), b"one")
