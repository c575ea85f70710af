"""What a team imports to declare its streams and repairs, and to read results.

Streams: `Stream`, `Topics`, `Notification`; optionally `Simulated` records and a `DailyRollup`.
Windows: `TumblingWindow`, `HoppingWindow`, `SessionWindow`, and the aggregates `Count`, `Sum`, `Mean`, `Min`,
`Max`, `First`, `Last`, `Distinct` and `Quantiles`.
Contracts: `Event`, the base of all models; `Timestamp`, a time in RFC 3339 with a zone; `EpochSeconds`,
`EpochMillis` and `EpochMicros`, times as numbers; `Hashed`, a text that our producer hashes
(`HashedAddress` is the same); `NotNull`, a field that may be absent but not null.
Formats other than JSON, for `decode=`: `CloudEvents`, `Debezium`, and with a schema registry
(`SchemaRegistry`) `Avro`, `Protobuf` and `JsonSchema`; for functions of one's own `Rejection`, `Tombstone`
and `IGNORED`.
Private values beside e-mail addresses: `PhoneNumber`, `CardNumber`, `PrivatePattern`.
Repairs: `repair`, `Repair`, `Hasher`.
Sending: `Producer`, `AsyncProducer`; `Delivery`, a future of an event's `Origin`, its place in the topic;
`InvalidEvent` with its `EventFault`s, and `DeliveryFailed`.
Results: `load_settings`, `load_streams`, `run_audit`, `AuditReport` with its `Verdict` and `Problem`s.
Errors: `StreamFlowError` and its subclasses.

Names are imported on first use, so that ``streamflow --help`` waits for none of them.

"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from streamflow.aggregates.distinct import Distinct
    from streamflow.aggregates.extremes import First, Last, Max, Min
    from streamflow.aggregates.quantiles import Quantiles
    from streamflow.aggregates.sums import Count, Mean, Sum
    from streamflow.audit.ledger import run_audit
    from streamflow.audit.problems import Problem, ProblemKind
    from streamflow.audit.report import AuditReport, Verdict
    from streamflow.contract import (
        EpochMicros,
        EpochMillis,
        EpochSeconds,
        Event,
        Hashed,
        HashedAddress,
        NotNull,
        Timestamp,
    )
    from streamflow.daily_rollup import DailyRollup
    from streamflow.dead_letters.repairs import Repair, repair
    from streamflow.errors import (
        CircuitOpen,
        ConfigurationError,
        DeliveryFailed,
        ErrorCode,
        EventFault,
        Fenced,
        InvalidEvent,
        StackError,
        StreamFlowError,
        Unavailable,
        UsageError,
    )
    from streamflow.formats.avro import Avro
    from streamflow.formats.cloudevents import CloudEvents
    from streamflow.formats.debezium import Debezium
    from streamflow.formats.documents import IGNORED, Tombstone
    from streamflow.formats.json_schema import JsonSchema
    from streamflow.formats.protobuf import Protobuf
    from streamflow.formats.schema_registry import SchemaRegistry
    from streamflow.notifications import Notification
    from streamflow.privacy import Hasher
    from streamflow.private_values import CardNumber, PhoneNumber, PrivatePattern
    from streamflow.producer.asynchronous import AsyncProducer
    from streamflow.producer.outbox import Delivery
    from streamflow.producer.producer import Producer
    from streamflow.records import Origin, Rejection
    from streamflow.registry import load_streams
    from streamflow.settings import Settings, load_settings
    from streamflow.stream import Simulated, Stream
    from streamflow.stream_topics import Topics
    from streamflow.windows.specs import HoppingWindow, SessionWindow, TumblingWindow

__all__ = [
    "IGNORED",
    "AsyncProducer",
    "AuditReport",
    "Avro",
    "CardNumber",
    "CircuitOpen",
    "CloudEvents",
    "ConfigurationError",
    "Count",
    "DailyRollup",
    "Debezium",
    "Delivery",
    "DeliveryFailed",
    "Distinct",
    "EpochMicros",
    "EpochMillis",
    "EpochSeconds",
    "ErrorCode",
    "Event",
    "EventFault",
    "Fenced",
    "First",
    "Hashed",
    "HashedAddress",
    "Hasher",
    "HoppingWindow",
    "InvalidEvent",
    "JsonSchema",
    "Last",
    "Max",
    "Mean",
    "Min",
    "NotNull",
    "Notification",
    "Origin",
    "PhoneNumber",
    "PrivatePattern",
    "Problem",
    "ProblemKind",
    "Producer",
    "Protobuf",
    "Quantiles",
    "Rejection",
    "Repair",
    "SchemaRegistry",
    "SessionWindow",
    "Settings",
    "Simulated",
    "StackError",
    "Stream",
    "StreamFlowError",
    "Sum",
    "Timestamp",
    "Tombstone",
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

_NAMES: Final = {
    "aggregates.distinct": "Distinct",
    "aggregates.extremes": "First Last Max Min",
    "aggregates.quantiles": "Quantiles",
    "aggregates.sums": "Count Mean Sum",
    "audit.ledger": "run_audit",
    "audit.problems": "Problem ProblemKind",
    "audit.report": "AuditReport Verdict",
    "contract": "EpochMicros EpochMillis EpochSeconds Event Hashed HashedAddress NotNull Timestamp",
    "daily_rollup": "DailyRollup",
    "dead_letters.repairs": "Repair repair",
    "errors": "CircuitOpen ConfigurationError DeliveryFailed ErrorCode EventFault Fenced InvalidEvent"
    " StackError StreamFlowError Unavailable UsageError",
    "formats.avro": "Avro",
    "formats.cloudevents": "CloudEvents",
    "formats.debezium": "Debezium",
    "formats.documents": "IGNORED Tombstone",
    "formats.json_schema": "JsonSchema",
    "formats.protobuf": "Protobuf",
    "formats.schema_registry": "SchemaRegistry",
    "privacy": "Hasher",
    "private_values": "CardNumber PhoneNumber PrivatePattern",
    "notifications": "Notification",
    "producer.asynchronous": "AsyncProducer",
    "producer.outbox": "Delivery",
    "producer.producer": "Producer",
    "records": "Origin Rejection",
    "registry": "load_streams",
    "settings": "Settings load_settings",
    "stream": "Simulated Stream",
    "stream_topics": "Topics",
    "windows.specs": "HoppingWindow SessionWindow TumblingWindow",
}
_MODULE_OF: Final = {name: module for module, names in _NAMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"streamflow.{_MODULE_OF[name]}"), name)
