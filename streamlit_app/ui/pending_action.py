"""A button's action, run once and not lost.

Streamlit reports a press in one run of the script only, and ends a run at any of its calls when a newer
one is due: the press or its result would be lost. So a callback records the press, and the action,
together with recording its result, calls nothing of Streamlit.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import streamlit as st

from streamflow.errors import StreamFlowError

T = TypeVar("T")


@dataclass(slots=True)
class PendingAction(Generic[T]):
    """An action of one session.

    Attributes:
        pressed: which of its buttons was pressed; None once it was run.
        result: of the last run; None where that failed, and `error` says why.
    """

    pressed: str | None = None
    result: T | None = None
    error: str | None = None

    def press(self, button: str) -> None:
        """For a button's `on_click`."""
        self.pressed = button

    def run(self, work: Callable[[], T]) -> None:
        """Runs it. A StreamFlowError of `work` is kept, to be shown."""
        self.pressed = None
        try:
            self.result, self.error = work(), None
        except StreamFlowError as error:
            self.result, self.error = None, str(error)


def pending_action(key: str) -> PendingAction[T]:
    action: PendingAction[T] = st.session_state.setdefault(key, PendingAction())
    return action
