"""Tables that Dagster computes from the rows of a stream."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, LiteralString

from streamflow.argument_types import FLAG, TEXT, function, instance_of, keeps_misnamed

if TYPE_CHECKING:
    from streamflow.settings import OrchestrationSettings


@keeps_misnamed
@dataclass(frozen=True, kw_only=True)
class DailyRollup:
    """A table that Dagster computes from the rows of a stream, day by day.

    A day is computed again when rows of it were loaded since the last time. Each row gets the columns
    ``stream``, ``day`` and ``computed_at`` besides its own. The table is created if it does not exist;
    streams may share it by declaring the same rollup.

    Args:
        table: name of the table and of the asset.
        description: of the asset.
        columns: PostgreSQL types by name, in the order of the query.
        query: SELECT of one day's rows. ``{table}`` stands for the stream's table, ``{time}`` for the
            column of its event time; its parameters are
            ``%(start)s`` and ``%(end)s`` of the day (UTC), and those that `parameters` returns.
        parameters: further parameters of the query, from Dagster's settings.
        neighbours: whether rows of a day change what is computed for the days before and after it.
        order: ORDER BY of the rows that the asset shows.
    """

    table: Annotated[str, TEXT]
    description: Annotated[str, TEXT]
    columns: Annotated[
        Mapping[str, LiteralString],
        instance_of(Mapping, what='a dict of types, as in {"amount": "bigint"}'),
    ]
    query: Annotated[LiteralString, TEXT]
    parameters: Annotated[
        Callable[["OrchestrationSettings"], Mapping[str, Any]],
        function("a function of Dagster's settings that returns a dict", "settings"),
    ] = lambda _settings: {}
    neighbours: Annotated[bool, FLAG] = False
    order: Annotated[LiteralString, TEXT] = "day DESC, stream"
    misnamed: tuple[str, ...] = field(default=(), repr=False, compare=False)
