"""What users import, and nothing by accident."""

import inspect
import subprocess
import sys

import pytest

import streamflow

PUBLIC = [
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


def test_the_names_are_pinned() -> None:
    assert streamflow.__all__ == PUBLIC


@pytest.mark.parametrize("name", PUBLIC)
def test_each_name_is_documented(name: str) -> None:
    found = getattr(streamflow, name)
    own = found.__doc__ if inspect.isclass(found) or inspect.isfunction(found) else None
    # A type alias has no docstring of its own.
    assert own or f"`{name}`" in (streamflow.__doc__ or "")


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Steam'"):
        _ = streamflow.Steam  # type: ignore[attr-defined]
    with pytest.raises(ImportError, match="Steam"):
        exec("from streamflow import Steam", {})  # noqa: S102


def test_a_stream_is_declared_from_the_public_names_alone() -> None:
    code = """
from typing import Literal
from streamflow import Event, Stream, Timestamp, TumblingWindow
from datetime import timedelta
class Order(Event):
    type: Literal["PLACED"]
    customer: str
    timestamp: Timestamp
stream = Stream(name="orders", contract=Order, table="orders", key=lambda order: order.customer,
                windows=TumblingWindow(size=timedelta(seconds=10)))
print(stream.topic)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.stdout, done.stderr) == ("orders\n", "")


def test_the_package_runs_as_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "streamflow", "--version"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
