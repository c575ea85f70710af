"""`python -m streamflow`: the command line."""

from streamflow_cli.app import main

main()
