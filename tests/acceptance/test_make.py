"""`make setup`, which `make up` begins with: a line for each step, and errors in full."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

pytestmark = pytest.mark.acceptance

ROOT = Path(__file__).parents[2]
PROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]

[project]
name = "small"
version = "1"
dependencies = {dependencies}
[project.optional-dependencies]
all = []
"""
# Builds without anything that would have to be downloaded.
BACKEND = """
import tomllib, zipfile

def build_editable(directory, config_settings=None, metadata_directory=None):
    found = tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"]
    requires = "".join(f"Requires-Dist: {each}\\n" for each in found)
    name = "small-1-py3-none-any.whl"
    with zipfile.ZipFile(f"{directory}/{name}", "w") as wheel:
        wheel.writestr("small-1.dist-info/METADATA",
                       f"Metadata-Version: 2.1\\nName: small\\nVersion: 1\\nProvides-Extra: all\\n{requires}")
        wheel.writestr("small-1.dist-info/WHEEL",
                       "Wheel-Version: 1.0\\nGenerator: test\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr("small-1.dist-info/RECORD", "")
    return name
"""
STEPS = [
    "setup: creating .venv",
    "setup: installing StreamFlow and what it needs; the first time takes a minute or more",
]


def setup(folder: Path, dependencies: list[str]) -> "subprocess.CompletedProcess[str]":
    shutil.copy(ROOT / "Makefile", folder)
    (folder / "constraints.txt").touch()
    (folder / "pyproject.toml").write_text(PROJECT.format(dependencies=dependencies))
    (folder / "backend.py").write_text(BACKEND)
    return subprocess.run(
        [shutil.which("make") or "make", "setup", f"PYTHON={sys.executable}"],
        cwd=folder,
        # Also without a network.
        env={**_without_make(os.environ), "PIP_NO_INDEX": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def _without_make(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment as it is outside of `make test`, of which a make inside would tell."""
    return {
        name: value
        for name, value in environment.items()
        if not name.startswith(("MAKE", "MFLAGS"))
    }


def test_set_up_tells_its_steps_and_no_more(tmp_path: Path) -> None:
    done = setup(tmp_path, [])
    assert (done.returncode, done.stdout.splitlines(), done.stderr) == (0, STEPS, "")
    assert "small" in subprocess.check_output(
        [tmp_path / ".venv" / "bin" / "python", "-m", "pip", "list"], text=True
    )


def test_what_goes_wrong_is_told_in_full(tmp_path: Path) -> None:
    done = setup(tmp_path, ["there-is-no-such-package>=3"])
    assert done.returncode != 0
    assert done.stdout.splitlines() == STEPS
    assert "No matching distribution found for there-is-no-such-package>=3" in done.stderr
    assert "check network, proxy and free space, then run make again" in done.stderr
