"""What a team imports to declare its streams and repairs, and to read results.

Streams: `Stream`, `Topics`, `TumblingWindow`, `Notification`, and what a stream may add: `Simulated`
records, a `DailyRollup`. Contracts: `Event`, the base of all models; `Timestamp`, a time in RFC 3339
with a zone; `HashedAddress`, an e-mail address that was hashed; `NotNull`, a field that may be absent but
not null. Repairs: `repair`, `Repair`, `Hasher`.
Results: `load_settings`, `load_streams`, `run_audit`, `AuditReport` with its `Verdict` and `Problem`s.
Errors: `StreamFlowError` and what is below it.

Names are imported when they are first used, so that ``streamflow --help`` waits for none of them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from streamflow.audit.ledger import run_audit
    from streamflow.audit.problems import Problem, ProblemKind
    from streamflow.audit.report import AuditReport, Verdict
    from streamflow.contract import Event, HashedAddress, NotNull, Timestamp
    from streamflow.dead_letters.repairs import Repair, repair
    from streamflow.errors import (
        CircuitOpen,
        ConfigurationError,
        ErrorCode,
        Fenced,
        StackError,
        StreamFlowError,
        Unavailable,
        UsageError,
    )
    from streamflow.privacy import Hasher
    from streamflow.registry import load_streams
    from streamflow.settings import Settings, load_settings
    from streamflow.stream import DailyRollup, Notification, Simulated, Stream, Topics
    from streamflow.windows import TumblingWindow

__all__ = [
    "AuditReport",
    "CircuitOpen",
    "ConfigurationError",
    "DailyRollup",
    "ErrorCode",
    "Event",
    "Fenced",
    "HashedAddress",
    "Hasher",
    "NotNull",
    "Notification",
    "Problem",
    "ProblemKind",
    "Repair",
    "Settings",
    "Simulated",
    "StackError",
    "Stream",
    "StreamFlowError",
    "Timestamp",
    "Topics",
    "TumblingWindow",
    "Unavailable",
    "UsageError",
    "Verdict",
    "load_settings",
    "load_streams",
    "repair",
    "run_audit",
]

_MODULES: Final = {
    "streamflow.audit.ledger": ("run_audit",),
    "streamflow.audit.report": ("AuditReport", "Verdict"),
    "streamflow.contract": ("Event", "HashedAddress", "NotNull", "Timestamp"),
    "streamflow.errors": (
        "CircuitOpen",
        "ConfigurationError",
        "ErrorCode",
        "Fenced",
        "StackError",
        "StreamFlowError",
        "Unavailable",
        "UsageError",
    ),
    "streamflow.privacy": ("Hasher",),
    "streamflow.audit.problems": ("Problem", "ProblemKind"),
    "streamflow.registry": ("load_streams",),
    "streamflow.dead_letters.repairs": ("Repair", "repair"),
    "streamflow.settings": ("Settings", "load_settings"),
    "streamflow.stream": ("DailyRollup", "Notification", "Simulated", "Stream", "Topics"),
    "streamflow.windows": ("TumblingWindow",),
}
_MODULE_OF: Final = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    try:
        module = _MODULE_OF[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    return getattr(import_module(module), name)
