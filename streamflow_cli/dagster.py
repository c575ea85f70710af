def dagster() -> None:
    """Runs Dagster's webserver, daemon and code server until SIGTERM or Ctrl-C.

    `streamflow up` does it already. While you change definitions, `dagster dev` is quicker.

    Example: streamflow dagster
    """
    from streamflow import extras
    from streamflow.settings import load_process_settings
    from streamflow_cli.stack import ConsoleReport
    from streamflow_cli.tables import make_console
    from streamflow_stack.lifecycle import run_parts
    from streamflow_stack.orchestration import Home, dagster_parts, database_url
    from streamflow_stack.state import StateDirectory

    extras.require("dagster", "Dagster")
    settings = load_process_settings()
    url = database_url(settings)
    home = Home(settings, lambda: url)
    # Beside the state of a stack that runs in the same folder without Dagster.
    state = StateDirectory(home.directory)
    run_parts(settings, state, dagster_parts(home, state.logs), ConsoleReport(make_console()))
