"""Lines of files and streams, and what is neither."""

import gzip
import os
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from pipeline import event
from streamflow.errors import UsageError
from streamflow.streams.user_events import USER_EVENTS
from streamflow_cli.produce_summary import print_summary
from streaming_workers.producer.file import Sent
from streaming_workers.producer.source import Source, open_source

LINES = [event(number) + b"\n" for number in range(3)]
NEVER = threading.Event()


def flat(source: Source, stop: threading.Event = NEVER) -> list[bytes]:
    return [line for group in source.groups(stop, 2) for line in group]


@pytest.fixture
def opened() -> Iterator[Callable[..., Source]]:
    with ExitStack() as stack:

        def opened(name: str, *, complete: bool = False) -> Source:
            return stack.enter_context(closing(open_source(name, USER_EVENTS, complete=complete)))

        yield opened


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.ndjson"


@pytest.mark.parametrize("complete", [False, True])
def test_half_a_line_waits_unless_the_file_is_complete(
    opened: Callable[..., Source], path: Path, *, complete: bool
) -> None:
    path.write_bytes(b"".join(LINES) + b'{"id": 402, "ty')
    source = opened(str(path), complete=complete)
    assert flat(source) == [*LINES, *([b'{"id": 402, "ty'] if complete else [])]
    assert source.waiting is not complete
    assert source.resumable
    assert source.size == path.stat().st_size


def test_a_file_that_grows_while_it_is_read_gives_whole_lines(
    opened: Callable[..., Source], path: Path
) -> None:
    path.write_bytes(LINES[0] + LINES[1] + LINES[2][:9])
    source = opened(str(path))
    groups = source.groups(NEVER, 2)
    assert next(groups) == LINES[:2]
    with path.open("ab") as file:
        file.write(LINES[2][9:])
    assert [line for group in groups for line in group] in ([], LINES[2:])


def writer(path: Path, pieces: list[bytes], go_on: threading.Event) -> threading.Thread:
    def write() -> None:
        with path.open("wb", buffering=0) as pipe:
            for piece in pieces:
                pipe.write(piece)
                go_on.wait(10)

    thread = threading.Thread(target=write)
    thread.start()
    return thread


def test_a_named_pipe_is_read_once_as_it_comes(opened: Callable[..., Source], path: Path) -> None:
    os.mkfifo(path)
    source = opened(str(path))  # does not wait for its writer
    assert (source.resumable, source.size) == (False, None)
    go_on = threading.Event()
    thread = writer(path, [LINES[0] + LINES[1][:20], LINES[1][20:] + LINES[2].rstrip()], go_on)
    groups = source.groups(NEVER, 50_000)
    # A line is handed out though no other follows.
    assert next(groups) == LINES[:1]
    go_on.set()
    assert [line for group in groups for line in group] == [LINES[1], LINES[2].rstrip()]
    thread.join()
    assert not source.waiting


@pytest.mark.parametrize("written", [b"", LINES[0] + b'{"half'])
def test_a_silent_stream_can_be_stopped(
    opened: Callable[..., Source], path: Path, written: bytes
) -> None:
    os.mkfifo(path)
    source = opened(str(path))
    stop = threading.Event()
    threading.Timer(1.5, stop.set).start()
    end = os.open(path, os.O_WRONLY) if written else None
    if end is not None:
        os.write(end, written)
    assert flat(source, stop) == LINES[: bool(written)]
    if end is not None:
        os.close(end)


def test_a_pipe_by_its_descriptor_is_a_stream(opened: Callable[..., Source]) -> None:
    read, write = os.pipe()
    os.write(write, b"".join(LINES))
    os.close(write)
    source = opened(f"/proc/self/fd/{read}")
    os.close(read)
    assert not source.resumable
    assert flat(source) == LINES


@pytest.mark.parametrize(
    ("sent", "resume", "of_file", "of_pipe"),
    [
        (Sent(records=5, line=5), False, "--resume goes on from there", "send the rest from line 6 on"),
        (Sent(finished=True), False, "it is empty", "it is empty"),
        (Sent(line=5, finished=True), True, "all 5 lines were sent before", None),
        (Sent(line=5, finished=True, skipped_before=1), True,
         "of 5 lines read before, 4 were sent and 1 skipped as invalid", None),
    ],
)  # fmt: skip
def test_only_a_file_can_be_resumed(
    *,
    sent: Sent,
    resume: bool,
    of_file: str,
    of_pipe: str | None,
    opened: Callable[..., Source],
    path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path.touch()
    reading, writing = os.pipe()
    os.close(writing)
    for name, says in ((str(path), of_file), (f"/dev/fd/{reading}", of_pipe)):
        if says is not None:
            print_summary(sent, 1.0, opened(name), resume=resume)
            assert re.search(f": {re.escape(says)}$", "".join(capsys.readouterr()), re.MULTILINE)
    os.close(reading)


def test_what_cannot_be_opened_is_named(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        with pytest.raises(UsageError, match="cannot be read: No such device"):
            open_source(str(path), USER_EVENTS)


TEXT = b"".join(LINES)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"PK\x03\x04\x00", "ZIP.*`unzip -p"),
        (TEXT.decode().encode("utf-16"), "is UTF-16.*`iconv -f UTF-16 -t UTF-8"),
        (TEXT.decode().encode("utf-16-le"), "`iconv -f UTF-16LE"),
        (TEXT.decode().encode("utf-16-be"), "`iconv -f UTF-16BE"),
        (TEXT.decode().encode("utf-32"), "is UTF-32"),
        (TEXT.replace(b"\n", b"\r"), "lines end with CR alone.*`tr "),
        (gzip.compress(TEXT.decode().encode("utf-16")), "compressed with gzip is UTF-16"),
    ],
)
@pytest.mark.parametrize("piped", [False, True])
def test_what_is_not_read_is_named_with_what_converts_it(
    opened: Callable[..., Source], path: Path, data: bytes, says: str, *, piped: bool
) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        flat(given(opened, path, data, piped=piped))
    assert "\n" not in str(caught.value)


def given(opened: Callable[..., Source], path: Path, data: bytes, *, piped: bool) -> Source:
    """A source with this content."""
    if not piped:
        path.write_bytes(data)
        return opened(str(path))
    os.mkfifo(path)
    source = opened(str(path))
    # A pipe takes no more than 64 KiB at once.
    threading.Thread(target=path.write_bytes, args=[data], daemon=True).start()
    return source


def test_the_command_for_another_format_sends_to_the_same_stream(path: Path) -> None:
    path.write_bytes(TEXT.decode().encode("utf-16"))
    with pytest.raises(UsageError, match=r"\| streamflow produce --stream user-events --from -`$"):
        open_source(str(path), USER_EVENTS)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        TEXT,
        b"\xef\xbb\xbf" + TEXT,
        TEXT.replace(b"\n", b"\r\n"),
        b"[1]\n",
        b"{}\n",
        b"\x1e{}\n",
    ],
)
def test_lines_are_taken_for_lines(opened: Callable[..., Source], path: Path, data: bytes) -> None:
    path.write_bytes(data)
    assert b"".join(flat(opened(str(path), complete=True))) == data
