"""What the dashboard remembers over a restart."""

import sqlite3
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from streamflow.alerting.book import AlertBook, AlertState
from streamflow.alerting.rules import Condition, Severity
from streamflow.errors import Unavailable
from streamlit_app.measure.ring_buffers import Store
from streamlit_app.memory import Memory

DOWN = Condition("part down", "kafka", Severity.CRITICAL, "kafka is down: no answer", "look")
LATE = Condition("lag seconds", "db-group", Severity.WARNING, "db-group is 2 min behind", "wait")
NOW = 1_000_000.0


def filled() -> tuple[Store, AlertBook]:
    store, book = Store(), AlertBook(hold=5)
    for second in range(100):
        store.add("appended/user-events", NOW + second, float(second % 7))
        store.add("lag/db-group", NOW + second, 3.0)
    for moment, conditions in ((0, [DOWN]), (6, [DOWN]), (7, [LATE]), (13, [LATE]), (14, [LATE])):
        book.update(conditions, NOW + moment)
    return store, book


def test_series_and_alerts_are_there_again(tmp_path: Path) -> None:
    path = tmp_path / "state" / "dashboard.sqlite"
    store, book = filled()
    assert [alert.state for alert in book.all()] == [AlertState.RESOLVED, AlertState.FIRING]
    assert Memory(path, store, book)() == 2

    again, other = Store(), AlertBook(hold=5)
    Memory(path, again, other).recall()
    for span in (60.0, 3600.0, 86_400.0):
        for name in ("appended/user-events", "lag/db-group"):
            assert again.recent(name, NOW + 100, span) == store.recent(name, NOW + 100, span)
    assert other.all() == book.all()
    # What fired before fires still, and nobody is told a second time.
    assert other.update([LATE], NOW + 20) == []
    again.add("lag/db-group", NOW + 101, 9.0)
    assert again.recent("lag/db-group", NOW + 103, 60.0, 60).means[-2:] == [3.0, 9.0]


def test_it_keeps_what_is_now_and_not_what_was(tmp_path: Path) -> None:
    path = tmp_path / "dashboard.sqlite"
    store, book = filled()
    memory = Memory(path, store, book)
    memory()
    book.restore([])
    store.add("lag/other", NOW, 1.0)
    memory()
    again, other = Store(), AlertBook(hold=5)
    Memory(path, again, other).recall()
    assert other.all() == []
    assert again.names("lag/") == ["lag/db-group", "lag/other"]


def test_without_a_file_there_is_nothing_to_recall(tmp_path: Path) -> None:
    book = AlertBook(hold=5)
    Memory(tmp_path / "none.sqlite", Store(), book).recall()
    assert book.all() == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("spoil", ["garbage", "half", "alert"])
def test_a_file_that_cannot_be_used_is_as_good_as_none_and_says_so(
    tmp_path: Path, spoil: str
) -> None:
    path = tmp_path / "dashboard.sqlite"
    Memory(path, *filled())()
    if spoil == "garbage":
        path.write_bytes(b"not a database at all" * 100)
    elif spoil == "half":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    else:
        with sqlite3.connect(path) as database:
            database.execute("UPDATE alerts SET body = '{}'")
        database.close()
    book = AlertBook(hold=5)
    with capture_logs() as logs:
        Memory(path, Store(), book).recall()
    assert [each["event"] for each in logs] == ["memory_unusable"]
    assert book.all() == []


def test_a_file_of_another_version_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "dashboard.sqlite"
    with sqlite3.connect(path) as database:
        database.executescript("CREATE TABLE series (x); PRAGMA user_version = 99;")
    database.close()
    memory = Memory(path, *filled())
    memory.recall()
    assert memory() == 2


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(Unavailable, match="make the folder writable"):
        Memory(tmp_path / "file" / "dashboard.sqlite", *filled())()
