"""Until when Kafka holds what was erased."""

from datetime import UTC, datetime

import pytest

from streamflow.erasure.certificate import _until

AT = datetime(2026, 11, 1, tzinfo=UTC)
EVER = str(2**63 - 1)


@pytest.mark.parametrize(
    ("retention", "segment", "until"),
    [
        ("86400000", "3600000", "2026-11-02T01:00:00Z"),
        ("-1", "3600000", None),
        (EVER, "3600000", None),
        ("86400000", EVER, None),
        (str(8_000 * 366 * 86_400_000), "1", None),
    ],
)
def test_retention_of_any_length_has_an_end_or_none(
    retention: str, segment: str, until: str | None
) -> None:
    config = {"cleanup.policy": "delete", "retention.ms": retention, "segment.ms": segment}
    assert _until(config, [AT]) == until
