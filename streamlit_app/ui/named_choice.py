"""One of a list of names that may be another list next time, kept in the address."""

from collections.abc import Sequence
from typing import Any

import streamlit as st

from streamlit_app.ui.components import show
from streamlit_app.ui.markup import Tone, banner


def named_choice(place: Any, label: str, names: Sequence[str], key: str) -> str:
    """The chosen name, the first one to begin with; empty if there is none. Shown only where there is a
    choice. A name in the address that is none of them is called a mistake, once."""
    unknown = f"unknown_{key}"
    if unknown not in st.session_state:
        asked = st.query_params.get(key)
        st.session_state[unknown] = asked if names and asked not in (None, *names) else None
    # What was chosen of another list is no choice any more.
    if st.session_state.get(key) not in names:
        st.session_state.pop(key, None)
    if len(names) < 2:  # noqa: PLR2004
        return next(iter(names), "")

    def forget() -> None:
        st.session_state[unknown] = None

    chosen = place.selectbox(label, names, key=key, bind="query-params", on_change=forget)
    if st.session_state[unknown]:
        detail = f"The address names another one. Shown is {chosen}; there are {', '.join(names)}."
        show(banner(Tone.WARN, f"No such {label.lower()}", detail))
    return str(chosen)
