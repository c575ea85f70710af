"""What most commands begin with."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streamflow.settings import Settings
    from streamflow.stream import Stream


def settings_and_streams() -> "tuple[Settings, tuple[Stream, ...]]":
    from streamflow.registry import load_streams
    from streamflow.settings import load_process_settings

    settings = load_process_settings()
    return settings, load_streams(settings)
