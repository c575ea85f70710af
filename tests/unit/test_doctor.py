"""What the doctor concludes of what it has found."""

import pytest

from streamflow_stack.doctor import _exposed


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
