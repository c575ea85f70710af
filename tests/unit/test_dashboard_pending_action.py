"""What a button asks for is done once, and what came of it is kept."""

from streamflow.errors import UsageError
from streamlit_app.ui.pending_action import PendingAction


def test_it_is_done_once_for_each_time_it_was_asked_for() -> None:
    task: PendingAction[int] = PendingAction()
    assert task.pressed is None
    task.press("plan")
    assert task.pressed == "plan"
    task.run(lambda: 7)
    assert (task.pressed, task.result, task.error) == (None, 7, None)


def test_a_failure_is_kept_to_be_shown_and_takes_the_place_of_an_older_result() -> None:
    def fail() -> int:
        raise UsageError("write the time as 2026-03-01 12:00")

    task: PendingAction[int] = PendingAction(result=7)
    task.press("search")
    task.run(fail)
    assert (task.pressed, task.result) == (None, None)
    assert task.error == "write the time as 2026-03-01 12:00"
    task.run(lambda: 8)
    assert (task.result, task.error) == (8, None)
