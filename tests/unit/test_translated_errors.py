"""What an error of PostgreSQL means to a worker: an outage is waited for, a wrong setting ends it."""

import psycopg
import pytest

from streamflow.errors import ConfigurationError, Unavailable
from streamflow.postgres.connections import translate

HOST = "certificate.internal"


@pytest.mark.parametrize(
    "text",
    [
        f'connection failed: connection to server at "{HOST}", port 5432 failed: Connection refused',
        f"failed to resolve host '{HOST}': [Errno -3] Temporary failure in name resolution",
        f'could not translate host name "{HOST}" to address: Name or service not known',
        'connection to server on socket "/certificate/.s.PGSQL.5432" failed: No such file or directory',
        "",
    ],
)
def test_a_host_that_is_called_certificate_may_be_away(text: str) -> None:
    assert isinstance(translate(psycopg.OperationalError(text)), Unavailable)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            f'connection to server at "{HOST}", port 5432 failed: SSL error: certificate verify failed',
            "(SSL error: certificate verify failed)",
        ),
        (
            f'port 5432 failed: server certificate for "db" does not match host name "{HOST}"',
            f'match host name "{HOST}")',
        ),
        ('invalid sslmode value: "certificate"', '(invalid sslmode value: "certificate")'),
        (
            f'connection to server at "{HOST}", port 5432 failed: FATAL:  no pg_hba.conf entry for host',
            "no pg_hba.conf entry",
        ),
    ],
)
def test_what_is_not_trusted_is_a_setting(text: str, reason: str) -> None:
    error = translate(psycopg.OperationalError(text))
    assert isinstance(error, ConfigurationError)
    assert reason in str(error)


def test_rights_that_are_missing_are_granted_by_roles_and_not_by_an_upgrade() -> None:
    """As after an upgrade to a release whose workers write one more table."""
    error = translate(
        psycopg.errors.InsufficientPrivilege("permission denied for table row_counts")
    )
    assert isinstance(error, ConfigurationError)
    assert "permission denied for table row_counts" in str(error)
    assert "streamflow db roles --apply" in str(error)
    assert "db upgrade" not in str(error)
