from importlib.resources import as_file, files
from pathlib import Path
from typing import Annotated, Final

import typer

from streamflow.errors import UsageError

_FILES: Final = ("my_streams.py", "test_my_streams.py", "streamflow.toml", "README.md")
# What `streamflow up` writes: data, logs and passwords.
_IGNORED: Final = ".streamflow/\n"


def new(
    name: Annotated[Path, typer.Argument(metavar="NAME", help="The folder to create.")],
) -> None:
    """Write a small project: a stream with windows, its test, settings and a README.

    Example: streamflow new shop && cd shop && streamflow up
    """
    try:
        if name.exists() and (not name.is_dir() or any(name.iterdir())):
            raise UsageError(f"{name} exists and is not empty: choose another name")
        name.mkdir(parents=True, exist_ok=True)
        with as_file(files("streamflow_cli").joinpath("project")) as project:
            for file in _FILES:
                text = (project / file).read_text("utf-8")
                (name / file).write_text(text.replace("PROJECT", name.resolve().name), "utf-8")
        (name / ".gitignore").write_text(_IGNORED)
    except OSError as error:
        raise UsageError(f"{error.filename or name} cannot be written: {error.strerror}") from error
    typer.echo(
        f"created {name}: {', '.join(_FILES)}\n\n"
        f"next      cd {name}\n"
        "          streamflow check --offline     tries the stream\n"
        "          pytest               tests it, with a real Kafka and PostgreSQL\n"
        "          streamflow up        starts everything"
    )
