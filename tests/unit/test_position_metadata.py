"""What is committed beside an offset comes back, whoever wrote it, and fits."""

from hypothesis import given
from hypothesis import strategies as st

from streamflow.kafka.position_metadata import (
    MAX_BYTES,
    MAX_GAPS,
    LostRange,
    PositionMetadata,
)
from streamflow.windows.progress import Progress, WindowProgress

TOPIC_ID = "SceY-kIZSLCpbOxsD6v_FQ"
OFFSETS = st.integers(0, 2**63 - 1)
TIMES = st.none() | st.integers(-(10**15), 10**15)
LOST = st.builds(LostRange, OFFSETS, OFFSETS, st.sampled_from(["retention", "truncated"]))
PROGRESS = st.builds(
    Progress.of_counts,
    OFFSETS,
    OFFSETS,
    st.none() | st.integers(-(10**15), 10**15),
    st.integers(0, 10**12),
)
WINDOWS = st.builds(
    WindowProgress,
    TIMES,
    st.integers(0, 10**12),
    TIMES,
    st.text("0123456789abcdef", min_size=8, max_size=8),
    OFFSETS,
)
SEVERAL = st.builds(
    Progress,
    OFFSETS,
    OFFSETS,
    st.dictionaries(
        st.from_regex(r"[a-z_0-9]{1,50}", fullmatch=True), WINDOWS, min_size=1, max_size=9
    ),
)


@given(SEVERAL | PROGRESS)
def test_the_progress_of_windows_comes_back(progress: Progress) -> None:
    assert Progress.parse(progress.resume, progress.metadata()) == progress


@given(SEVERAL, st.data())
def test_a_damaged_progress_is_none_or_another(progress: Progress, data: st.DataObject) -> None:
    """Whatever somebody else commits, nothing is raised."""
    text = progress.metadata()
    cut = data.draw(st.integers(0, len(text)))
    Progress.parse(0, text[:cut] + data.draw(st.text(max_size=3)) + text[cut + 1 :])


def test_what_releases_before_aggregates_can_read() -> None:
    assert Progress.of_counts(3, 9, None, 5).metadata() == "1;9;;5"
    assert Progress.of_counts(3, 9, 7, 5, 8).metadata() == "2;9;7;5;8"
    several = Progress(3, 9, {"orders_10s": WindowProgress(7, 5, None, "0123abcd", 4)})
    assert several.metadata() == "3;9;orders_10s,0123abcd,4,7,5,"


@given(
    (PROGRESS | SEVERAL).map(Progress.metadata) | st.just(""),
    st.sampled_from(["", TOPIC_ID]),
    st.lists(LOST, max_size=30).map(tuple),
)
def test_what_is_written_is_read(text: str, topic_id: str, lost: tuple[LostRange, ...]) -> None:
    encoded = PositionMetadata(text, topic_id, lost).encode()
    assert len(encoded.encode()) <= MAX_BYTES
    assert PositionMetadata.parse(encoded) == PositionMetadata(text, topic_id, lost[-MAX_GAPS:])


@given(st.text(max_size=200))
def test_foreign_text_is_text(text: str) -> None:
    """Whatever somebody else committed, nothing of it is lost or taken for more than it is."""
    assert PositionMetadata.parse(text).encode() == text


def test_what_an_older_release_wrote_is_the_jobs_text() -> None:
    old = "1;730;1767225600000;300000"
    found = PositionMetadata.parse(old)
    assert found == PositionMetadata(old)
    assert Progress.parse(700, found.text) == Progress.of_counts(700, 730, 1767225600000, 300000)
    assert PositionMetadata.parse(None) == PositionMetadata()


def test_what_is_nearly_ours_is_text() -> None:
    for text in ("|id=short", f"|id={TOPIC_ID}x", "|lost=1-2:theft", "|lost=1-2"):
        assert PositionMetadata.parse(text) == PositionMetadata(text)


def test_it_can_be_read_by_eye() -> None:
    metadata = PositionMetadata("1;9;;5", TOPIC_ID, (LostRange(0, 50, "retention"),))
    assert metadata.encode() == f"1;9;;5|id={TOPIC_ID}|lost=0-50:retention"
