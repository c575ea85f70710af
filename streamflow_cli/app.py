"""The command line: its commands, and one line and an exit code for every error.

The commands' modules import what is heavy inside of functions, so that help is quick.
"""

import atexit
import gc
import os
import sys
from functools import partial
from typing import Annotated, Final

import typer
from typer.exceptions import TyperException

from streamflow.errors import StreamFlowError, UsageError
from streamflow.extras import DISTRIBUTION
from streamflow.without_rich import import_structlog
from streamflow_cli import (
    acls,
    bench,
    check,
    dagster,
    dashboard,
    data,
    dlq,
    export,
    forget,
    init,
    new,
    produce,
    stack,
    topics,
)
from streamflow_cli.configured import DEBUG_VARIABLE

INTERRUPTED = 130
_YOUNG: Final = (
    50_000  # objects, until the collector looks at them: modules that are imported are no garbage
)

app = typer.Typer(
    name="streamflow",
    help="Carries events from where they happen to where people use them, and proves that it "
    "lost none. Start with: streamflow up",
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"streamflow {version(DISTRIBUTION)}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
    debug: Annotated[
        bool,
        typer.Option("--debug", envvar=DEBUG_VARIABLE, help="Show the traceback of an error."),
    ] = False,
) -> None:
    """Carries events from where they happen to where people use them."""
    if debug:
        # Also for the processes that the command starts.
        os.environ[DEBUG_VARIABLE] = "1"
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(UsageError.exit_code)


_stack = partial(app.command, rich_help_panel="Stack")
_stack()(stack.up)
_stack()(stack.down)
_stack()(stack.status)
_stack()(stack.env)
_stack()(stack.doctor)
_stack()(dagster.dagster)
_stack()(dashboard.dashboard)
app.command()(check.check)
app.command()(data.worker)
app.command()(new.new)
app.command()(init.init)
app.command()(topics.topics)
app.command()(acls.acls)
app.command()(data.audit)
app.command()(export.export)
app.command(name="dbt-sources")(export.dbt_sources)
app.command()(forget.forget)
app.command()(produce.produce)
app.command()(bench.bench)
app.add_typer(data.db, name="db")
app.add_typer(dlq.dlq, name="dlq")


def main() -> None:
    """Runs the command line, for the console script."""
    gc.set_threshold(_YOUNG)
    # Python collects all that is left several times before it ends: a tenth of a second.
    atexit.register(gc.freeze)
    import_structlog()
    try:
        code = app(standalone_mode=False)
    except StreamFlowError as error:
        if os.environ.get(DEBUG_VARIABLE):
            raise
        typer.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except TyperException as error:
        typer.echo(_in_one_line(error), err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except SystemError as error:
        # Ctrl-C within a call of confluent-kafka's.
        if not isinstance(error.__cause__, KeyboardInterrupt):
            raise
        sys.exit(INTERRUPTED)
    sys.exit(code if isinstance(code, int) else 0)


def _in_one_line(error: TyperException) -> str:
    message = " ".join(error.format_message().split()).rstrip(".")
    # Typer validates with pydantic, which puts this before what is wrong.
    message = message.replace(": Value error, ", ": ", 1)
    context: typer.Context | None = getattr(error, "ctx", None)
    command = app.info.name if context is None else context.command_path
    return f"error: {message}: see `{command} --help`"


if __name__ == "__main__":
    main()
