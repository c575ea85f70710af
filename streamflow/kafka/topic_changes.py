"""What a change of a topic costs: some are made at once, the others only when a user has agreed. Pure."""

from collections.abc import Sequence
from math import lcm
from typing import Final

from streamflow.kafka.ownership import Drift
from streamflow.units import duration

_FOR_EVER: Final = -1


def risk(drift: Drift) -> str | None:
    """What is lost or moved if a topic is altered to what is declared; None if nothing is."""
    match drift.what:
        case "partitions":
            return None if drift.is_surplus else _moved_keys(int(drift.found or 0), drift.declared)
        case "cleanup.policy" if drift.declared == "delete":
            return (
                "the last record of each key is no longer kept, but removed by age like any other"
            )
        case "cleanup.policy":
            return "of each key only the last record is kept"
        case "retention.ms" if is_shortened(drift):
            return f"records older than {duration(int(drift.declared) / 1000)} are removed"
        case "max.message.bytes" if int(drift.declared) < int(drift.found or 0):
            return f"records of more than {int(drift.declared):,} bytes are no longer accepted"
    return None


def is_shortened(drift: Drift) -> bool:
    """Whether a topic would keep its records for less long."""
    found, declared = int(drift.found or 0), int(drift.declared)
    return declared != _FOR_EVER and (found == _FOR_EVER or declared < found)


def _moved_keys(found: int, declared: str) -> str:
    """Kafka's clients choose a partition by a key's hash modulo their number."""
    stay = found / lcm(found, int(declared))
    return (
        f"about {round(100 * (1 - stay))} % of the keys move to another partition, and what is "
        "produced of such a key from then on may be read before what was produced earlier"
    )


def postponed(differences: Sequence[Drift]) -> list[str]:
    """What is not changed without a question, in a sentence each."""
    return [
        f"topic {drift.topic}: {drift.what} stays {drift.found}, though {drift.declared} is declared, "
        f"since with the change {cost}: `streamflow topics --apply` asks, and makes it"
        for drift in differences
        if (cost := risk(drift)) is not None
    ]
