"""The loader reads the list of forgotten subjects again when it has changed, and only then."""

import psycopg
import pytest

from streamflow.postgres.connections import Connection
from streamflow.postgres.sink.forgetting import Forgetting
from streamflow.privacy import Hasher
from streamflow.settings import Settings

pytestmark = pytest.mark.integration

_ADD = "INSERT INTO erasures (kind, hashes, requested_by) VALUES ('address', ARRAY[%s], 'tests')"
_CHANGE = "UPDATE erasures SET hashes = ARRAY[%s] WHERE hashes = ARRAY[%s]"
ANN, BOB, CID, DAN = (letter * 64 for letter in "abcd")


def test_every_change_of_the_list_is_seen(database: Settings, connection: Connection) -> None:
    forgetting = Forgetting((), Hasher())

    def listed() -> str:
        with connection.transaction():
            known = forgetting._read(connection)
        return "".join(one[0] for one in (ANN, BOB, CID, DAN) if known.of_hash(one.encode()))

    with (
        psycopg.connect(database.database) as early,
        psycopg.connect(database.database) as late,
    ):
        assert listed() == ""
        early.execute(_ADD, [ANN])
        late.execute(_ADD, [BOB])
        late.commit()
        assert listed() == "b"
        # The older transaction commits last.
        early.commit()
        assert listed() == "ab"
        early.execute(_CHANGE, [CID, ANN])
        late.execute(_CHANGE, [DAN, BOB])
        late.commit()
        assert listed() == "ad"
        early.commit()
        assert listed() == "cd"
        known = forgetting._read(connection)
        assert forgetting._read(connection) is known
        late.execute("CREATE TEMPORARY TABLE kept AS TABLE erasures")
        late.execute("TRUNCATE erasures CASCADE")
        late.commit()
        assert listed() == ""
        late.execute("INSERT INTO erasures OVERRIDING SYSTEM VALUE TABLE kept")
        late.commit()
        assert listed() == "cd"
        late.execute("UPDATE erasures SET hashes = '{}'")
        late.commit()
        assert listed() == ""
