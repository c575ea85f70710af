"""Made-up lag samples and thresholds, for tests of verdicts, rules and sensors."""

from streamflow.alerting.rules import Thresholds
from streamflow.flow import Partition
from streamflow.lag.measure import ConsumerGroup, LagSample

THRESHOLDS = Thresholds(
    lag_offsets=1000,
    lag_seconds=60,
    rate_min=1.0,
    dead_letter_ratio=0.05,
    dead_letter_minutes=5,
    dead_letter_records=100,
    freshness=300,
)


def sample(*positions: int, members: int = 1, end: int = 100) -> LagSample:
    """Of one group whose positions are in the partitions 0, 1, … of topic t."""
    read: dict[Partition, int] = {("t", number): at for number, at in enumerate(positions)}
    group = ConsumerGroup(
        name="g",
        worker="loader",
        topics=frozenset({"t"}),
        members=members,
        owned=frozenset(read) if members else frozenset(),
        positions=read,
    )
    return LagSample(dict.fromkeys(read, (0, end)), {"g": group}, 1, ())
