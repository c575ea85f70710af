"""``python -m streamflow`` is the command ``streamflow``.

It is found by its entry point: the commands stand above this package, which imports nothing of them.
"""

from importlib.metadata import entry_points


def main() -> None:
    """Runs the command line."""
    [command] = entry_points(group="console_scripts", name="streamflow")
    command.load()()


if __name__ == "__main__":
    main()
