"""``python -m streamflow`` is the command ``streamflow``, found by its entry point: this package imports
nothing of the packages above it."""

from importlib.metadata import entry_points


def main() -> None:
    [command] = entry_points(group="console_scripts", name="streamflow")
    command.load()()


if __name__ == "__main__":
    main()
