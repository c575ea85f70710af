"""What Streamlit runs for every session and every change: the frame, and the page inside it."""

from streamlit_app.shell import run

run()
