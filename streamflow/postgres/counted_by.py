"""What events are counted by, in SQL: the same texts as `streamflow.groups` makes."""

from psycopg import sql

from streamflow.groups import ALL, GROUP_SQL, GROUP_TYPES
from streamflow.postgres.tables import event_columns
from streamflow.stream import Stream


def kind_sql(stream: Stream, alias: str | None = None) -> sql.Composed:
    """What an event is counted by, of a row in the stream's table, as text: see `group_text`."""
    if stream.kind_field is None:
        return sql.SQL("{}").format(sql.Literal(ALL))
    names = (stream.kind_field,) if alias is None else (alias, stream.kind_field)
    form = GROUP_TYPES.get(kind_type(stream).partition("(")[0], "{column}::text")
    return group_sql(sql.SQL(form).format(column=sql.Identifier(*names)))


def kind_type(stream: Stream) -> str:
    """The type of the column that events are counted by."""
    return next(column.type for column in event_columns(stream) if column.name == stream.kind_field)


def group_sql(text: sql.Composable) -> sql.Composed:
    """The group that a text stands for: see `group_text`."""
    return sql.SQL(GROUP_SQL).format(text=text)
