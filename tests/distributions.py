"""The distribution, built from the sources, and installed with its extras as a user installs it."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from streamflow.extras import EXTRAS

ROOT = Path(__file__).parents[1]
PACKAGES = sorted(file.parent.name for file in ROOT.glob("stream*/__init__.py"))
UV = Path(sys.executable).with_name("uv")
# Of the developer's own environment, which an installation must not need.
_FOREIGN = ("PYTHON", "STREAMFLOW_", "VIRTUAL_ENV")
_OURS = {"KAFKA_BOOTSTRAP_SERVERS", "DATABASE_URL"}


def environment(**more: str) -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if name == "STREAMFLOW_CACHE_DIR" or not (name.startswith(_FOREIGN) or name in _OURS)
    }
    return kept | more


def run(*command: Path | str, cwd: Path, timeout: float = 300) -> str:
    """What a command prints; it must succeed."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def sources() -> list[Path]:
    """Every file of our packages, relative to the root."""
    return [
        file.relative_to(ROOT)
        for package in PACKAGES
        for file in sorted((ROOT / package).rglob("*"))
        if file.is_file() and file.suffix != ".pyc"
    ]


def build(folder: Path) -> tuple[Path, Path]:
    """The sdist, and the wheel that is built from it. Needs no network."""
    tree = folder / "sources"
    for file in (*sources(), *map(Path, ("pyproject.toml", "README.md", "LICENSE"))):
        (tree / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, tree / file)
    python = ("--python", sys.executable)
    run(UV, "build", "--offline", "--no-build-isolation", *python, "--out-dir", folder, cwd=tree)
    [sdist], [wheel] = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return sdist, wheel


class Installation:
    """A virtual environment with the wheel and some extras, and nothing else.

    Args:
        more: packages, or options of uv. Without ``--compile-bytecode`` it is smaller than with pip.
    """

    def __init__(self, folder: Path, wheel: Path, extras: str, *more: str) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        requirement = f"{wheel}[{extras}]" if extras else str(wheel)
        run(UV, "venv", "--quiet", "--python", sys.executable, folder, cwd=folder.parent)
        run(
            *(UV, "pip", "install", "--quiet", "--python", self.bin / "python"),
            *("--constraint", ROOT / "constraints.txt", requirement, *more),
            cwd=folder.parent,
        )

    @property
    def megabytes(self) -> float:
        [libraries] = self.folder.glob("lib/*/site-packages")
        return sum(file.stat().st_size for file in libraries.rglob("*") if file.is_file()) / 1e6


def main(folder: Path) -> None:
    """Leaves the distribution in a folder, and prints what each extra takes when pip installs it."""
    with tempfile.TemporaryDirectory() as temporary:
        built = build(Path(temporary))
        for extra in ("", *EXTRAS, "all"):
            venv = Path(temporary) / f"venv-{extra}"
            size = Installation(venv, built[1], extra, "--compile-bytecode").megabytes
            print(f"{extra or 'the core'}: {size:.0f} MB", flush=True)  # noqa: T201 (for the user)
            shutil.rmtree(venv)
        folder.mkdir(exist_ok=True)
        for file in built:
            shutil.copy(file, folder)
            print(folder / file.name)  # noqa: T201 (as above)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
