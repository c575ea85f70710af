"""What the doctor concludes of what it has found."""

import pytest

from streamflow.settings import Settings
from streamflow_stack.doctor import Mark, _exposed, unkeyed
from streamflow_stack.parts import started_last


@pytest.mark.parametrize(
    ("mode", "address", "warned"),
    [
        ("disable", "192.0.2.7", True),
        ("prefer", "192.0.2.7", True),
        ("require", "2001:db8::7", True),
        ("verify-ca", "192.0.2.7", True),
        ("verify-full", "192.0.2.7", False),
        ("prefer", "127.0.0.1", False),
        ("prefer", "::1", False),
        ("prefer", "", False),  # a socket
    ],
)
def test_a_distant_database_that_is_not_verified_is_warned_of(
    mode: str, address: str, warned: bool
) -> None:
    said = _exposed("db.example", address, mode)
    assert bool(said) == warned
    assert ("sslmode=verify-full" in said) == warned


@pytest.mark.parametrize(
    ("key", "noted"),
    [
        (None, True),
        ('{"legacy": null}', True),
        ("a key", False),
        ('{"2026a": "a key", "legacy": null}', False),
    ],
)
def test_hashes_that_can_be_guessed_are_noted(key: str | None, noted: bool) -> None:
    found = list(unkeyed(Settings(STREAMFLOW_PII_KEY=key)))
    assert [finding.mark for finding in found] == [Mark.NOTE] * noted


def test_up_names_only_what_it_starts() -> None:
    without = ("dagster", "producer", "bridge", "dashboard")
    names = ["validator", "analytics", "loader"]
    assert started_last(Settings(), without) == names
    with_ingest = Settings(STREAMFLOW_INGEST_ENABLED=True)
    assert started_last(with_ingest, without) == [*names, "ingest"]
    assert started_last(with_ingest, (*without, "ingest")) == names
