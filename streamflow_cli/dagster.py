"""The command that runs Dagster."""

import typer


def register(app: typer.Typer) -> None:
    """Adds the command of this module to the root application."""
    app.command("dagster", rich_help_panel="Stack")(dagster)


def dagster() -> None:
    """Runs Dagster's webserver, daemon and code server until SIGTERM or Ctrl-C.

    `streamflow up` does it already. While you change definitions, `dagster dev` is quicker.

    Example: streamflow dagster
    """
    from streamflow.settings import load_settings
    from streamflow_cli.stack import ConsoleReport
    from streamflow_cli.tables import make_console
    from streamflow_stack.orchestration import home_of
    from streamflow_stack.processes import run_in_order

    home = home_of(load_settings())
    home.write()
    run_in_order(home.state, home.parts(), ConsoleReport(make_console()))
