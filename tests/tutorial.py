"""Follows a page of the docs as a reader does: saves its files, types its commands, compares the output."""

import re
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, Self

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
# What only reads may be typed again until it shows what the page shows.
_READS = ("psql ", "streamflow status", "streamflow dlq list")
_PATIENCE = 60.0  # seconds
_DONE = "--- done: "
ANYTHING = "…"


class File(NamedTuple):
    name: str
    text: str


class Command(NamedTuple):
    line: str
    shown: str


def steps(page: str) -> Iterator[File | Command]:
    """The files and commands of a page, in order. A file's name is the last one before its block."""
    for block in _BLOCK.finditer(page):
        if block[1] == "console":
            for each in re.split(r"^\$ ", block[2], flags=re.MULTILINE)[1:]:
                line, _, shown = each.partition("\n")
                yield Command(line, shown)
        else:
            names = re.findall(r"`([\w-]+\.\w+)`", page[: block.start()])
            yield File(names[-1], block[2])


def matches(shown: str, printed: str) -> bool:
    """Whether it printed what the page shows, but for blanks. `…` is any text, on a line of its own any
    lines."""
    pattern = "".join(
        r"(?:.*\n)*?" if line == ANYTHING else f"{_pattern_of(line)}\n" for line in _lines(shown)
    )
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in _lines(printed))) is not None


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _pattern_of(line: str) -> str:
    words = (re.escape(word).replace(ANYTHING, ".*") for word in line.split())
    return r"\s+".join(words)


class Reader:
    """One shell, in one folder."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder = folder
        self._shell = subprocess.Popen(
            ["/bin/bash"],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._shell.communicate(timeout=10)

    def follow(self, step: File | Command) -> None:
        if isinstance(step, File):
            (self.folder / step.name).write_text(step.text)
            return
        end = time.monotonic() + _PATIENCE
        while True:
            code, printed = self.type(step.line)
            if code == 0 and (not step.shown or matches(step.shown, printed)):
                return
            again = step.line.startswith(_READS) and time.monotonic() < end
            assert again, f"$ {step.line}\n{printed}\n(exit code {code}) is not\n{step.shown}"

    def type(self, line: str) -> tuple[int, str]:
        """The command's exit code, and what it prints."""
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        self._shell.stdin.write(f"{{ {line}\n}} </dev/null; echo; echo '{_DONE}'$?\n")
        self._shell.stdin.flush()
        printed = []
        for each in self._shell.stdout:
            if each.startswith(_DONE):
                return int(each.removeprefix(_DONE)), "".join(printed)
            printed.append(each)
        raise AssertionError(f"the shell ended at: {line}")
