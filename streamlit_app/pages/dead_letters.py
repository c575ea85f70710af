"""To come."""


def render() -> None:
    """The page."""
