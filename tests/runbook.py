"""Runs the commands that a page of the docs shows."""

import re
import subprocess
import sys
from collections.abc import Container, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]


def commands(page: str, heading: str) -> list[list[str]]:
    """The commands under a heading, block by block."""
    text = (ROOT / page).read_text()
    section = re.search(rf"(?ms)^## {re.escape(heading)}$(.*?)(?=^## |\Z)", text)
    assert section is not None, f"{page} has no heading {heading}"
    blocks = re.findall(r"(?ms)^```console$(.*?)^```$", section[1])
    return [re.findall(r"(?m)^\$ (.*)$", block) for block in blocks]


def run_commands(
    lines: list[str],
    folder: Path,
    environment: Mapping[str, str],
    seconds: float = 600,
    *,
    codes: Container[int] = (0,),
) -> str:
    """In one shell that stops at the first failure, and ends with one of these codes; returns what they
    print."""
    own = Path(sys.executable).parent
    done = subprocess.run(
        ["/bin/bash", "-euo", "pipefail", "-c", "\n".join(lines)],
        cwd=folder,
        env={**environment, "PATH": f"{own}:{environment['PATH']}"},
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert done.returncode in codes, f"{lines}\n{done.stdout}\n{done.stderr}"
    return done.stdout
