"""The question before something that cannot be undone."""

import sys

import typer

from streamflow.errors import StreamFlowError


class NotConfirmed(StreamFlowError):
    """The user has said no, or nobody could be asked."""


def confirm(question: str, otherwise: str) -> None:
    """Asks. Raises NotConfirmed, which says what has (not) happened `otherwise`, unless the answer is yes."""
    try:
        confirmed = typer.confirm(question)
    except typer.Abort:
        typer.echo(err=True)
        raise NotConfirmed(f"not confirmed: {otherwise}; without a terminal, add --yes") from None
    if not confirmed:
        if not sys.stdin.isatty():
            typer.echo(err=True)  # what ends the question's line on a terminal
        raise NotConfirmed(f"not confirmed: {otherwise}")
