"""Which changes of a topic are made at once, and what the others cost."""

import pytest

from streamflow.kafka.ownership import Drift
from streamflow.kafka.topic_changes import postponed, risk


@pytest.mark.parametrize(
    ("what", "found", "declared", "says"),
    [
        ("topic", None, "exists", None),
        ("partitions", "6", "3", None),  # Kafka cannot remove any
        ("partitions", "3", "6", "about 50 % of the keys move to another partition"),
        ("partitions", "3", "5", "about 80 % of the keys move"),
        ("retention.ms", "1000", "604800000", None),
        ("retention.ms", "604800000", "-1", None),
        ("retention.ms", "-1", "604800000", "records older than 7 days are removed"),
        ("retention.ms", "604800000", "3600000", "records older than 60 min are removed"),
        ("cleanup.policy", "compact", "delete", "the last record of each key is no longer kept"),
        ("cleanup.policy", "compact,delete", "delete", "the last record of each key is no longer"),
        ("cleanup.policy", "delete", "compact", "of each key only the last record is kept"),
        ("max.message.bytes", "100", "2000", None),
        (
            "max.message.bytes",
            "2000",
            "1500",
            "records of more than 1,500 bytes are no longer accepted",
        ),
        ("message.timestamp.type", "CreateTime", "LogAppendTime", None),
        ("min.insync.replicas", "1", "2", None),
    ],
)
def test_what_a_change_costs(what: str, found: str | None, declared: str, says: str | None) -> None:
    drift = Drift("orders", what, declared, found)
    cost = risk(drift)
    assert (cost or "").startswith(says or "")
    assert (cost is None) == (says is None)
    said = postponed([drift])
    assert len(said) == (says is not None)
    if says:
        assert said[0].startswith(
            f"topic orders: {what} stays {found}, though {declared} is declared"
        )
        assert "`streamflow topics --apply` asks" in said[0]
