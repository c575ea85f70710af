"""Any order, any lateness, any batches, any restarts: each event is counted exactly once."""

from collections import Counter
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from streamflow.durations import MILLISECOND
from streamflow.windows.counting import WindowResult
from streamflow.windows.partition import PartitionWindows
from streamflow.windows.plans import Plan
from streamflow.windows.progress import COUNTS, Progress
from streamflow.windows.specs import TumblingWindow

SIZE = 10_000
SPEC = TumblingWindow(
    size=timedelta(seconds=10), grace=timedelta(seconds=5), ahead=timedelta(minutes=5)
)

# Time, group, and how far the broker's clock is from the event's.
EVENTS = st.lists(
    st.tuples(
        st.integers(-50_000, 900_000),
        st.sampled_from("ab"),
        st.integers(-600_000, 100_000),
    ),
    max_size=60,
)
# After each batch: go on, lose the process before the commit, after it, stop cleanly, or go idle; or the
# process is lost and records are removed, from where it would go on.
STEPS = st.lists(
    st.tuples(
        st.integers(1, 12), st.sampled_from(["go on", "crash", "restart", "stop", "idle", "remove"])
    ),
    max_size=80,
)


def expected(events: list[tuple[int, str, int]]) -> Counter[tuple[int, str]]:
    return Counter((time - time % SIZE, group) for time, group, _ in events)


def counting(spec: TumblingWindow, progress: Progress | None = None) -> PartitionWindows:
    """Windows of events that are no more than their group."""
    plan = Plan(
        name=COUNTS,
        pane=spec.pane_ms,
        grace=spec.grace // MILLISECOND,
        ahead=spec.ahead // MILLISECOND,
        idle=0,
        group_of=str,
    )
    return PartitionWindows([plan], progress)


def count(windows: PartitionWindows, offset: int, time: int, group: str, appended: int) -> None:
    windows.count([(offset, time * 1000, group, appended)])


def closed_through(windows: PartitionWindows) -> int | None:
    counts = windows.progress().counts
    assert counts is not None
    return counts.closed_through


def parts(results: list[WindowResult]) -> list[tuple[int, int, str, int, bool, int, int]]:
    return [
        (
            part.start,
            part.end,
            part.group,
            part.counted,
            part.late,
            part.first_offset,
            part.last_offset,
        )
        for part in results
    ]


def total(results: list[WindowResult]) -> Counter[tuple[int, str]]:
    counted: Counter[tuple[int, str]] = Counter()
    for each in results:
        counted[each.start, each.group] += each.counted
    return counted


@given(
    EVENTS,
    STEPS,
    st.lists(st.sampled_from([timedelta(0), timedelta(seconds=5), timedelta(minutes=2)])),
    st.lists(st.sampled_from([timedelta(0), timedelta(minutes=5), timedelta(days=1)])),
)
def test_each_event_is_counted_exactly_once(
    events: list[tuple[int, str, int]],
    steps: list[tuple[int, str]],
    graces: list[timedelta],
    aheads: list[timedelta],
) -> None:
    committed: Progress | None = None
    emitted: list[WindowResult] = []
    lost: list[tuple[int, str, int]] = []
    first = 0  # what lies before is removed

    def is_emitted(offset: int, progress: Progress) -> bool:
        time, _, clock = events[offset]
        counts = progress.windows[COUNTS]
        late = counts.closed_through is not None and time < counts.closed_through
        return offset < progress.position and (late or clock < -counts.ahead)

    def start() -> tuple[PartitionWindows, int]:
        spec = TumblingWindow(
            size=SPEC.size,
            grace=graces.pop() if graces else SPEC.grace,
            ahead=aheads.pop() if aheads else SPEC.ahead,
        )
        if committed is None:
            return counting(spec), first
        resume = max(committed.resume, first)
        metadata = Progress.parse(resume, committed.metadata())
        return counting(spec, metadata), resume

    windows, offset = start()
    for size, step in [*steps, (len(events), "go on"), (len(events), "go on"), (1, "idle")]:
        for time, group, clock in events[offset : offset + size]:
            count(windows, offset, time, group, time + clock)
            offset += 1
        windows.advance(offset)
        windows.close_due()
        if step == "idle":
            windows.close_idle(10**6, 0)
        results = windows.hand_over() if step == "stop" else windows.take()
        if step == "remove":
            stood_at = max(committed.resume, first) if committed else first
            first = max(first, min(stood_at + size, len(events)))
            known = committed or Progress.of_counts(0, 0, None, 0)
            lost += [events[at] for at in range(stood_at, first) if not is_emitted(at, known)]
        if step in ("crash", "remove"):
            windows, offset = start()
            continue
        emitted += results
        committed = windows.progress()
        if step in ("restart", "stop"):
            windows, offset = start()
    assert offset == len(events)
    assert total(emitted) + expected(lost) == expected(events)


def test_a_clean_stop_hands_over_what_is_open() -> None:
    windows = counting(SPEC)
    count(windows, 0, 1_000, "a", 1_000)
    count(windows, 1, 2_000, "a", 2_000)
    windows.advance(2)
    windows.close_due()
    assert parts(windows.hand_over()) == [(0, SIZE, "a", 2, False, 0, 1)]
    progress = windows.progress()
    assert (progress.resume, progress.position) == (2, 2)

    successor = counting(SPEC, Progress.parse(2, progress.metadata()))
    count(successor, 2, 3_000, "a", 3_000)
    successor.advance(3)
    assert parts(successor.hand_over()) == [(0, SIZE, "a", 1, False, 2, 2)]
    # It closes though nothing of it is open.
    last = counting(SPEC, Progress.parse(3, successor.progress().metadata()))
    last.close_idle(SIZE, 0)
    assert (last.take(), closed_through(last)) == ([], SIZE)
    assert last.progress().windows[COUNTS].handed_through is None


def test_late_events_become_corrections() -> None:
    windows = counting(SPEC)
    count(windows, 0, 1_000, "a", 1_000)
    count(windows, 1, 15_000, "a", 15_000)
    windows.close_due()
    assert parts(windows.take()) == [(0, SIZE, "a", 1, False, 0, 0)]
    count(windows, 2, 2_000, "a", 16_000)
    count(windows, 3, 3_000, "a", 16_000)
    windows.close_due()
    assert parts(windows.take()) == [(0, SIZE, "a", 2, True, 2, 3)]


def test_a_clock_far_ahead_makes_nobody_late() -> None:
    windows = counting(SPEC)
    count(windows, 0, 10**12, "a", 1_000)
    count(windows, 1, 1_000, "a", 1_000)
    windows.close_due()
    assert [each.late for each in windows.take()] == [True]
    assert closed_through(windows) == -SIZE


def test_a_fast_clock_makes_whole_windows_and_nobody_late() -> None:
    """As a client whose clock is four minutes fast, then an event each second; idle every ten."""
    windows = counting(SPEC)
    count(windows, 0, 240_000, "a", 0)
    results = []
    for second in range(1, 300):
        count(windows, second, second * 1_000, "a", second * 1_000)
        windows.close_due()
        if second % 10 == 0:
            windows.close_idle(second * 1_000, 0)
        results += windows.take()
    windows.close_idle(10**6, 0)
    results += windows.take()
    assert not any(result.late for result in results)
    assert [result.counted for result in results] == [9, *[10] * 23, 11, *[10] * 5]


def test_a_progress_that_is_not_ours_is_none() -> None:
    for metadata in ("", None, "hello", "2;1;1;1", "1;x;;1", "1;2;3"):
        assert Progress.parse(7, metadata) is None
