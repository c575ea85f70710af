"""Whether two loaders have stored the same: the rows of a table, as a number and a hash."""

from typing import Final

from streamflow.postgres.connections import session
from streamflow.settings import Settings
from streamflow_bench.results import Rows

# Whatever the order of the rows; `numeric`, since the sum leaves 64 bits.
_ROWS: Final = """
SELECT count(*), coalesce(sum(hashtextextended(
           ROW(id, type, "user", user_email, "timestamp",
               origin_topic, origin_partition, origin_offset)::text, 0)::numeric), 0)
  FROM events
"""


def rows_of(settings: Settings) -> Rows:
    """Of the table ``events``."""
    with session(settings, "bench") as connection:
        connection.execute("SET timezone = 'UTC'")
        count, digest = connection.execute(_ROWS).fetchone() or (0, 0)
    return Rows(int(count), int(digest))
