"""What a button asks for, done once and not lost.

A button tells of its press in one run of the script only, and Streamlit ends a run at any of its calls
when a newer one is due: a press would be forgotten, or what it brought. So a callback writes the
press down, and doing it, together with writing down what came of it, holds no call of Streamlit.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import streamlit as st

from streamflow.errors import StreamFlowError

T = TypeVar("T")


@dataclass(slots=True)
class Errand(Generic[T]):
    """Something that a session was asked to do.

    Attributes:
        asked: which of its buttons was pressed, and not attended to yet.
        result: of the last time it was done; None where that failed.
        error: why that failed.
    """

    asked: str | None = None
    result: T | None = None
    error: str | None = None

    def ask(self, what: str) -> None:
        """For a button's `on_click`."""
        self.asked = what

    def do(self, work: Callable[[], T]) -> None:
        """Does it. `work` may raise StreamFlowError, which is kept to be shown."""
        self.asked = None
        try:
            self.result, self.error = work(), None
        except StreamFlowError as error:
            self.result, self.error = None, str(error)


def errand(key: str) -> Errand[T]:
    """The errand of this name in this session."""
    found: Errand[T] = st.session_state.setdefault(key, Errand())
    return found
