"""The frame of the dashboard's pages."""

from streamlit.testing.v1 import AppTest


def test_a_page_is_not_drawn_in_the_container_of_the_fragment_that_ran_before() -> None:
    def script() -> None:
        from unittest.mock import patch

        import streamlit as st
        from streamlit.delta_generator_singletons import context_dg_stack

        from streamlit_app import shell

        column = st.columns(2)[1]
        # As a fragment in that column leaves it (Streamlit 1.67, `wrapped_fragment`).
        context_dg_stack.set((*context_dg_stack.get(), column))
        with patch.object(shell, "_frame", lambda: st.text("page")):
            shell.run()

    found = AppTest.from_function(script).run(timeout=30)
    assert not found.exception
    assert [each.value for each in found.main.text] == ["page"]
    assert not found.columns[1].text
