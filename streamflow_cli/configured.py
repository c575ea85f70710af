"""What most commands begin with."""

import os
from traceback import print_exception
from typing import TYPE_CHECKING, Final

import typer

if TYPE_CHECKING:
    from streamflow.registry import Streams
    from streamflow.settings import Settings

DEBUG_VARIABLE: Final = "STREAMFLOW_DEBUG"


def settings_and_streams(*, need_all: bool = False) -> "tuple[Settings, Streams]":
    """The settings, and the streams that can work; says which cannot. Raises ConfigurationError if one
    cannot and `need_all`: what is done is only right for all of them."""
    from streamflow.errors import ConfigurationError
    from streamflow.registry import load_streams
    from streamflow.settings import load_process_settings

    settings = load_process_settings()
    streams = load_streams(settings)
    if need_all and streams.failed:
        raise ConfigurationError(
            f"{'; '.join(map(str, streams.failed))}; nothing was done, since this needs every stream"
        )
    for failed in streams.failed:
        typer.echo(f"warning: {failed}", err=True)
        if os.environ.get(DEBUG_VARIABLE):
            print_exception(failed.error)
    return settings, streams
