"""The question before something that cannot be undone."""

import sys

import typer

from streamflow.errors import StreamFlowError


class NotConfirmed(StreamFlowError):
    """The user has said no, or nobody could be asked."""


def confirm(question: str, unchanged: str) -> None:
    """Asks, and raises NotConfirmed unless the answer is yes. Its message says what is `unchanged`."""
    on_terminal = sys.stdin.isatty()
    try:
        answer = typer.confirm(question)
    except typer.Abort:  # end of input, or Ctrl-C
        answer = None
    if answer:
        return
    if answer is None or not on_terminal:
        typer.echo()  # no return key has ended the line of the question
    hint = "; without a terminal, add --yes" if answer is None and not on_terminal else ""
    raise NotConfirmed(f"not confirmed: {unchanged}{hint}")
