"""Options that do not go together: none is ignored without a word."""

from collections.abc import Collection

import typer


def given_options(context: typer.Context) -> dict[str, str]:
    """The options on the command line: how they are written, by parameter name."""
    given: dict[str, str] = {}
    for parameter in context.command.params:
        name = parameter.name or ""
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            given[name] = parameter.opts[0]
    return given


def refuse_options(context: typer.Context, names: Collection[str], why: str) -> None:
    """Raises UsageError if one of these was given; `why` follows how it is written."""
    from streamflow.errors import UsageError

    for name, option in given_options(context).items():
        if name in names:
            raise UsageError(f"{option} {why}")
