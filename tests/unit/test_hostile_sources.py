"""Files that a hostile or an unlucky user sends: each ends in events or in one line that says what is wrong,
with bounded memory."""

import fcntl
import gzip
import io
import os
import sys
import termios
import threading
from collections.abc import Callable
from contextlib import closing
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from backports import zstd
from pyarrow import parquet
from pydantic import Field

from streamflow import Event, Stream, Timestamp
from streamflow.errors import UsageError
from streamflow_pytest.waiting import wait_until
from streaming_workers.producer import csv_rows, formats, json_values, parquet_rows
from streaming_workers.producer.source import open_source

NEVER = threading.Event()
AT = "2026-11-28T05:00:00Z"


class Address(Event):
    city: str


class Thing(Event):
    id: int
    timestamp: Timestamp
    address: Address | None = None
    tags: list[str] = Field(default_factory=list)
    more: dict[str, Any] = Field(default_factory=dict)
    note: str | None = None


class Node(Event):
    id: int
    timestamp: datetime
    child: "Node | None" = None


THINGS = Stream(name="things", contract=Thing, table="things", key="id")
NODES = Stream(name="nodes", contract=Node, table="nodes", key="id")

Read = Callable[..., list[bytes]]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """The lines of a file with this content."""

    def read(data: bytes, stream: Stream = THINGS) -> list[bytes]:
        path = tmp_path / "events"
        path.write_bytes(data)
        with closing(open_source(str(path), stream)) as source:
            return [line for group in source.groups(NEVER, 100) for line in group]

    return read


def events(read: Read, data: bytes, stream: Stream = THINGS) -> list[Any]:
    return [msgspec.json.decode(line) for line in read(data, stream)]


def table(**columns: pa.Array) -> bytes:
    """One row of Parquet."""
    ordinary = {"id": pa.array([1]), "timestamp": pa.array([AT])}
    file = io.BytesIO()
    parquet.write_table(pa.table(ordinary | columns), file)
    return file.getvalue()


NANOSECONDS = pa.array([1_000_001_999], pa.timestamp("ns", "UTC"))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (pa.array([[]], pa.map_(pa.string(), pa.int32())), {}),
        (pa.array([[("a", None)]], pa.map_(pa.string(), pa.int32())), {"a": None}),
        (
            pa.StructArray.from_arrays([NANOSECONDS], ["x"]),
            {"x": "1970-01-01T00:00:01.000001Z"},
        ),
        (
            pa.ListArray.from_arrays([0, 1], NANOSECONDS),
            ["1970-01-01T00:00:01.000001Z"],
        ),
        (pa.array([1_500_000_000], pa.duration("ns")), "PT1.5S"),
        (pa.array(["a"]).dictionary_encode(), "a"),
        (pa.array([[{"a": 1, "b": [1.5]}]]), [{"a": 1, "b": [1.5]}]),
    ],
)
def test_values_of_parquet(read: Read, value: pa.Array, expected: object) -> None:
    [found] = events(read, table(more=value))
    assert found["more"] == expected


NO_UTF8 = pa.Array.from_buffers(
    pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"\xff\xfe")]
)


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"note": NO_UTF8}, "cannot be sent: 'utf-8' codec"),
        ({"note": pa.array([2**60], pa.timestamp("us", "UTC"))}, "cannot be sent: date value"),
        ({"note": pa.array([2**30], pa.date32())}, "cannot be sent: days"),
        ({"note": pa.array([1], pa.timestamp("us", "Mars/Olympus"))}, "Mars/Olympus"),
        (
            {"address": pa.array(["x"]), "address.city": pa.array(["y"])},
            "address.city is part of column address",
        ),
    ],
)
def test_parquet_that_no_event_can_be_made_of_is_named(
    read: Read, columns: dict[str, pa.Array], says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        read(table(**columns))


def test_rows_before_one_that_cannot_be_sent_are_sent(tmp_path: Path) -> None:
    times = pa.array([0, 1, 2**60, 3], pa.timestamp("us", "UTC"))
    path = tmp_path / "events"
    parquet.write_table(pa.table({"id": pa.array([1, 2, 3, 4]), "timestamp": times}), path)
    found = before_the_error(str(path), "cannot be sent")
    assert [msgspec.json.decode(line)["id"] for line in found] == [1, 2]


def test_encrypted_parquet_is_named(read: Read) -> None:
    with pytest.raises(UsageError, match="no readable Parquet"):
        read(b"PARE" + b"x\n" * 100 + b"PARE")


def test_a_row_group_is_not_held_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "events"
    notes = pa.array([os.urandom(1_000).hex() for _ in range(40_000)])
    columns = {"id": pa.array(range(40_000)), "timestamp": pa.array([AT] * 40_000), "note": notes}
    parquet.write_table(pa.table(columns), path, compression="none", use_dictionary=False)
    del notes, columns
    before, most = pa.total_allocated_bytes(), 0
    with path.open("rb") as file:
        for _ in parquet_rows.rows(file, formats.Columns(THINGS)):
            most = max(most, pa.total_allocated_bytes() - before)
    assert most < path.stat().st_size // 2


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (f"id,timestamp,address,address.city\n1,{AT},x,y\n", "is part of column address"),
        (f"id,timestamp,note\n1,{AT},{'a' * 2000}\n", "line 2 is longer"),
    ],
)
def test_csv_that_no_event_can_be_made_of_is_named(
    read: Read, monkeypatch: pytest.MonkeyPatch, data: str, says: str
) -> None:
    monkeypatch.setattr(csv_rows, "_LONGEST_LINE", 1024)
    with pytest.raises(UsageError, match=says):
        read(data.encode())


def test_a_cell_of_deep_json_is_a_text_that_the_contract_judges(read: Read) -> None:
    deep = "[" * 100_000 + "]" * 100_000
    [line] = read(f"id,timestamp,tags\n1,{AT},{deep}\n".encode())
    assert msgspec.json.decode(line)["tags"] == deep


def test_csv_with_lone_carriage_returns(read: Read) -> None:
    found = events(read, f"id,timestamp,note\r1,{AT},a\r2,{AT},b\r".encode())
    assert [each["note"] for each in found] == ["a", "b"]


def test_a_header_of_many_columns_is_judged_in_linear_time() -> None:
    columns = formats.Columns(THINGS)
    names = ["id", "timestamp", *["note"] * 300_000]
    with pytest.raises(UsageError, match="note is there twice"):
        columns.named(names)


def test_a_contract_that_holds_itself(read: Read) -> None:
    [found] = events(read, f"id,timestamp\n1,{AT}\n".encode(), NODES)
    assert found == {"id": 1, "timestamp": AT}
    assert read(b"hello\n", NODES) == [b"hello\n"]


@pytest.mark.parametrize("compress", [bytes, gzip.compress, zstd.compress])
@pytest.mark.parametrize("text", [b'{"note":"%s"}\n', b'{"note":"%s'])
def test_a_line_without_end_is_named_and_what_comes_before_is_sent(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    compress: Callable[[bytes], bytes],
    text: bytes,
) -> None:
    monkeypatch.setattr(formats, "LONGEST_LINE", 1024)
    path = tmp_path / "events"
    path.write_bytes(compress(b'{"id":1}\n' + text % (b"x" * 5000)))
    assert before_the_error(str(path), "is longer than") == [b'{"id":1}\n']


def test_a_line_without_end_from_a_pipe_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "LONGEST_LINE", 1024)
    reading, writing = os.pipe()
    os.write(writing, b'{"id":1}\n' + b"x" * 5000)  # and more may come: the end is not waited for
    found = before_the_error(f"/dev/fd/{reading}", "is longer than")
    os.close(writing)
    os.close(reading)
    assert found == [b'{"id":1}\n']


def test_large_lines_are_handed_out_in_small_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streaming_workers.producer.source._GROUP_BYTES", 10_000)
    path = tmp_path / "events"
    path.write_bytes((b"x" * 4_999 + b"\n") * 10)
    with closing(open_source(str(path), THINGS)) as source:
        assert [len(group) for group in source.groups(NEVER, 100)] == [2] * 5


def test_compressed_twice(read: Read) -> None:
    assert read(gzip.compress(gzip.compress(b'{"id":1}\n'))) == [b'{"id":1}\n']


def test_compressed_too_often_is_named(read: Read) -> None:
    data = b'{"id":1}\n'
    for _ in range(2_000):
        data = gzip.compress(data)
    with pytest.raises(UsageError, match="compressed more than 8 times"):
        read(data)


def test_zstd_behind_a_skippable_frame(read: Read) -> None:
    frame = b"\x50\x2a\x4d\x18\x04\0\0\0\1\2\3\4"
    assert read(frame + zstd.compress(b'{"id":1}\n')) == [b'{"id":1}\n']


def before_the_error(path: str, says: str) -> list[bytes]:
    """The lines that are handed out before the file is refused."""
    found: list[bytes] = []

    def collect() -> None:
        with closing(open_source(path, THINGS)) as source:
            for group in source.groups(NEVER, 100):
                found.extend(line for line in group if line)

    with pytest.raises(UsageError, match=says):
        collect()
    return found


class Counted(io.BytesIO):
    reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads += 1
        return super().read(size)


@pytest.mark.parametrize("text", [b'[{"a":"', b"[\n"], ids=["string", "blanks"])
def test_json_without_end_is_not_looked_through_for_each_block(text: bytes) -> None:
    file = Counted(text + b" " * (20 << 20))
    with pytest.raises(UsageError, match="has no end"):
        list(json_values.documents(file))
    assert file.reads < 20


def test_small_documents_behind_a_large_one(read: Read) -> None:
    large, small = b'{"note":"%s"}' % (b"x" * (3 << 20)), b'{"id":1}'
    found = read(b"[" + b",".join([large, *[small] * 200_000]) + b"]")
    assert found == [large + b"\n", *[small + b"\n"] * 200_000]


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_skipping_stops_when_told(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "events"
    path.write_bytes(compress(b'{"id":1}\n' * 10))
    stop = threading.Event()
    stop.set()
    with closing(open_source(str(path), THINGS)) as source:
        digest = source.skip(90, stop)
    assert digest.hexdigest() == sha256().hexdigest()


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([b"[", b'{"id":', b"1}]"], [b'{"id":1}\n']),
        ([b"\n ", b"{", b'\n"id":1}'], [b'{\n"id":1}\n']),
        ([b"id,time", f"stamp\n1,{AT}\n".encode()], [b'{"id":1,"timestamp":"%s"}\n' % AT.encode()]),
        ([b'{"id"', b':1}\n{"id":2}\n'], [b'{"id":1}\n', b'{"id":2}\n']),
    ],
)
def test_the_format_of_a_pipe_whose_writer_is_slow(
    pieces: list[bytes], expected: list[bytes]
) -> None:
    reading, writing = os.pipe()

    def write() -> None:
        with os.fdopen(writing, "wb", buffering=0) as file:
            for piece in pieces:
                file.write(piece)
                wait_until(lambda: left_in(reading) == 0, 10)

    writer = threading.Thread(target=write)
    writer.start()
    with closing(open_source(f"/dev/fd/{reading}", THINGS)) as source:
        found = [line for group in source.groups(NEVER, 100) for line in group]
    writer.join()
    os.close(reading)
    assert found == expected


def left_in(descriptor: int) -> int:
    """Bytes in a pipe that nobody has read yet."""
    return int.from_bytes(fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)), sys.byteorder)


def test_a_file_that_cannot_be_read_is_named() -> None:
    with pytest.raises(UsageError, match="/proc/self/mem cannot be read: Input/output error"):
        open_source("/proc/self/mem", THINGS)
