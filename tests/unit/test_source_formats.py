"""Files of other formats than one JSON document a line: recognised by their content, and turned into the
same lines every time."""

import bz2
import csv
import gzip
import hashlib
import io
import json
import lzma
import os
import random
import select
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import chain, product
from pathlib import Path
from typing import Annotated, Any, Literal

import pyarrow as pa
import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet
from pydantic import Field

from faults import wait_until
from pipeline import event
from streamflow import EpochMillis, Event, Hashed, Stream, Timestamp
from streamflow.errors import UsageError
from streamflow.streams.user_events import USER_EVENTS
from streaming_workers.producer import json_values
from streaming_workers.producer.source import Source, open_source

NEVER = threading.Event()


class Address(Event):
    city: str
    zip: str | None = None


class Order(Event):
    id: int
    type: Literal["ORDER_PLACED", "ORDER_CANCELLED"]
    total: Decimal
    weight: float | None = None
    express: bool = False
    note: str = "none"
    comment: str
    tags: list[str] = Field(default_factory=list)
    address: Address | None = None
    email: Hashed | None = None
    discount: Annotated[int, Field(ge=0)] | None
    timestamp: Timestamp


ORDERS = Stream(name="orders", contract=Order, table="orders", key="id")
EVENTS = [event(number) for number in range(500)]
LINES = b"".join(each + b"\n" for each in EVENTS)


@pytest.fixture
def read(tmp_path: Path) -> Iterator[Callable[..., list[bytes]]]:
    """The lines of a file with this content, or of a pipe."""
    with ExitStack() as stack:

        def read(data: bytes, stream: Stream = ORDERS, *, piped: bool = False) -> list[bytes]:
            path = tmp_path / "events"
            path.write_bytes(data)
            name = str(path)
            if piped:
                reading, writing = pipe()
                threading.Thread(target=fill, args=[writing, data], daemon=True).start()
                name = f"/dev/fd/{reading}"
            source = stack.enter_context(closing(open_source(name, stream)))
            return [line for group in source.groups(NEVER, 100) for line in group]

        yield read


def pipe() -> tuple[int, int]:
    return os.pipe()


def fill(descriptor: int, data: bytes) -> None:
    with open(descriptor, "wb") as file:
        file.write(data)


def parsed(lines: list[bytes]) -> list[Any]:
    return [json.loads(line) for line in lines]


COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "not": bytes,
    "gzip": gzip.compress,
    "zstd": zstd.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "gzip, two members": lambda data: gzip.compress(data[:100]) + gzip.compress(data[100:]),
}
FORMS: dict[str, bytes] = {
    "lines": LINES,
    "lines without the last newline": LINES.rstrip(b"\n"),
    "an array": b"[" + b",".join(EVENTS) + b"]",
    "an indented array": json.dumps([json.loads(each) for each in EVENTS], indent=2).encode(),
    "an array with a BOM": b"\xef\xbb\xbf [\n" + b",\n".join(EVENTS) + b"\n]\n",
    "indented documents": b"\n".join(
        json.dumps(json.loads(each), indent=1).encode() for each in EVENTS
    ),
}


@pytest.mark.parametrize(
    ("form", "compression", "piped"),
    [
        case
        for case in product(FORMS, COMPRESS, (False, True))
        # A plain file may grow: its last line waits.
        if case != ("lines without the last newline", "not", False)
    ],
)
def test_the_events_are_the_same_in_every_format(
    read: Callable[..., list[bytes]], form: str, compression: str, *, piped: bool
) -> None:
    found = read(COMPRESS[compression](FORMS[form]), USER_EVENTS, piped=piped)
    assert parsed(found) == [json.loads(each) for each in EVENTS]


@pytest.mark.parametrize("compression", ["gzip", "zstd", "bzip2", "xz"])
def test_what_is_cut_off_is_named_and_what_comes_before_is_read(
    tmp_path: Path, compression: str
) -> None:
    noise = random.Random(7)  # so that there are several blocks
    lines = [b"%s\n" % noise.randbytes(500).hex().encode() for _ in range(3_000)]
    path = tmp_path / "events"
    path.write_bytes(COMPRESS[compression](b"".join(lines))[:-3_000])
    found: list[bytes] = []
    with closing(open_source(str(path), USER_EVENTS)) as source:
        groups = source.groups(NEVER, 50_000)
        says = f"{path}: it is compressed with {compression}, and damaged or cut off"
        with pytest.raises(UsageError, match=says):
            found.extend(chain.from_iterable(groups))
    assert found
    assert found == lines[: len(found)]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b'[{"id": 1},\n{"id": 2}', "the array has no end: it is cut off in element 2"),
        (b'[\n{"id": 1},,{"id": 2}]', "element 2 of the array is empty: there is a comma too many"),
        (b'[\n{"id": 1},]', "element 2 of the array is empty"),
        (b'[\n{"id": 1}] {"id": 2}', "something follows the array, behind element 1"),
        (b'[\n{"id": "1]', "the array has no end"),
    ],
)
def test_a_broken_array_is_named(read: Callable[..., list[bytes]], data: bytes, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        read(data)


def test_an_empty_array_has_no_events(read: Callable[..., list[bytes]]) -> None:
    assert read(b"[\n]") == []


class Trickle(io.BytesIO):
    """A file that gives a few bytes at a time, so that strings end in later blocks."""

    def read(self, _size: int | None = -1, /) -> bytes:
        return super().read(3)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.lists(st.dictionaries(st.text(), values, max_size=4), min_size=1, max_size=5),
    st.sampled_from([None, 1]),
    st.booleans(),
)
def test_documents_come_out_as_they_are(
    documents: list[Any], indent: int | None, as_array: bool
) -> None:
    texts = [json.dumps(each, indent=indent, ensure_ascii=False) for each in documents]
    text = f"[{','.join(texts)}]" if as_array else "\n".join(texts)
    found = list(json_values.documents(Trickle(text.encode("utf-8", "surrogatepass"))))
    assert found == [each.encode("utf-8", "surrogatepass") + b"\n" for each in texts]


@given(st.binary(max_size=40))
def test_no_byte_is_lost_however_broken_the_documents_are(data: bytes) -> None:
    try:
        found = b"".join(json_values.documents(Trickle(b"{\n" + data)))
    except UsageError:
        return

    def blanks(text: bytes) -> bytes:
        return b"".join(text.split())

    assert blanks(found) == blanks(b"{\n" + data)


HEADER = (
    "id,type,total,weight,express,note,comment,tags,address.city,address.zip,discount,timestamp"
)
ROWS = [
    '1,ORDER_PLACED,12.50,0.5,true,,"said ""hi"",\nand left",[],Bern,03011,,2026-01-01T00:00:00Z',
    '2,ORDER_CANCELLED,-3,,False,7,,"[""a""]",,,5,2026-01-01T01:00:00+01:00',
    "007,x,nan,1e3,1,true,é,no,,1,05,",
]
READ = [
    {"id": 1, "type": "ORDER_PLACED", "total": "12.50", "weight": 0.5, "express": True, "comment": 'said "hi",\nand left', "tags": [], "address": {"city": "Bern", "zip": "03011"}, "timestamp": "2026-01-01T00:00:00Z"},  # noqa: E501
    {"id": 2, "type": "ORDER_CANCELLED", "total": "-3", "express": False, "note": "7", "comment": "", "tags": ["a"], "discount": 5, "timestamp": "2026-01-01T01:00:00+01:00"},  # noqa: E501
    {"id": "007", "type": "x", "total": "nan", "weight": 1000.0, "express": 1, "note": "true", "comment": "é", "tags": "no", "address": {"zip": "1"}, "discount": "05", "timestamp": ""},  # noqa: E501
]  # fmt: skip


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
def test_rows_of_csv_are_events(
    read: Callable[..., list[bytes]], delimiter: str, end: str, start: str, quoting: Literal[0, 1]
) -> None:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, lineterminator=end, quoting=quoting)
    for row in csv.reader(io.StringIO("\n".join([HEADER, *ROWS]), newline="")):
        writer.writerow(row)
    found = read((start + text.getvalue()).encode())
    assert parsed(found) == READ


@pytest.mark.parametrize(
    ("written", "read_as"),
    [
        ("2026-03-01 12:00:02+00", "2026-03-01T12:00:02+00:00"),  # PostgreSQL
        ("2026-03-01 12:00:02.123456-03:30", "2026-03-01T12:00:02.123456-03:30"),  # pandas
        ("2026-03-01 12:00:02+0530", "2026-03-01T12:00:02+05:30"),
        ("2026-03-01 12:00:02Z", "2026-03-01T12:00:02Z"),
        ("2026-03-01 12:00:02", "2026-03-01 12:00:02"),  # nobody knows which zone
        ("2026-03-01", "2026-03-01"),
    ],
)
def test_a_time_may_be_written_as_databases_write_it(
    read: Callable[..., list[bytes]], written: str, read_as: str
) -> None:
    header = "id,type,total,comment,discount,timestamp\n"
    [line] = parsed(read(f"{header}1,a,2,{written},,{written}\n".encode()))
    assert (line["timestamp"], line["comment"]) == (read_as, written)


def test_csv_by_a_pipe_is_read_whole(read: Callable[..., list[bytes]]) -> None:
    rows = "".join(f"{number},a,2,comment {number},,b\n" for number in range(20_000))
    lines = parsed(read(f"id,type,total,comment,discount,timestamp\n{rows}".encode(), piped=True))
    assert [line["id"] for line in lines] == list(range(20_000))


@pytest.mark.parametrize(
    ("first", "rest"),
    [
        (b"i", b"d,type,total,comment,discount,timestamp\n1,a,2,c,,b\n"),
        (b"[", b'\n{"id":1,\n"type":"a"}\n]'),
        (b"\x1f", gzip.compress(b'[{"id":1}]', mtime=0)[1:]),
    ],
)
def test_a_writer_may_begin_with_a_part_of_a_line(first: bytes, rest: bytes) -> None:
    reading, writing = pipe()
    with closing(open_source(f"/dev/fd/{reading}", ORDERS)) as source:
        os.write(writing, first)

        def go_on() -> None:
            wait_until(
                lambda: not select.select([reading], [], [], 0)[0], 10, "the first piece to be read"
            )
            fill(writing, rest)

        threading.Thread(target=go_on, daemon=True).start()
        [line] = [line for group in source.groups(NEVER, 100) for line in group]
    os.close(reading)
    assert json.loads(line)["id"] == 1
    assert source.unit == "record"


def test_what_is_no_utf8_stays_as_it_is(read: Callable[..., list[bytes]]) -> None:
    [line] = read(b"id,type,total,comment,discount,timestamp\n1,a,2,\xff\xfe,,b\n")
    assert b'"comment":"\xff\xfe"' in line


def test_a_cell_is_never_more_than_one_value(read: Callable[..., list[bytes]]) -> None:
    header = "id,type,total,comment,tags,discount,timestamp\n"
    [line] = read(f'{header}1,a,2,c,"[],""id"":9",,b\n'.encode())
    assert json.loads(line)["tags"] == '[],"id":9'
    assert line.count(b'"id":') == 1
    deep = "[" * 100_000
    [line] = read(f"{header}1,a,2,c,{deep},,b\n".encode())
    assert json.loads(line)["tags"] == deep


class Reply(Event):
    id: int
    replies: list["Reply"] = Field(default_factory=list)
    timestamp: Timestamp


def test_a_model_may_hold_itself(read: Callable[..., list[bytes]]) -> None:
    stream = Stream(name="replies", contract=Reply, table="replies", key="id")
    [line] = parsed(read(b'id,replies,timestamp\n1,"[{""id"":2}]",b\n', stream))
    assert line == {"id": 1, "replies": [{"id": 2}], "timestamp": "b"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("id,type,totl,comment,discount,timestamp\n", "column totl is no field of stream orders: is it total?"),  # noqa: E501
        ("id,type,total,comment,discount,timestamp,qqqq\n", "column qqqq is no field of stream orders, which has id"),  # noqa: E501
        ("id,id,type,total,comment,discount,timestamp\n", "column id is there twice"),
        ("id,type,comment,discount,timestamp\n", "column total is missing: stream orders requires it"),
        ("id,type,total,comment,discount,timestamp\n1,a,2\n", "record 1 has 3 cells, and the header 6: mend it"),  # noqa: E501
        ('id,type,total,comment,discount,timestamp\n1,a,2,"c,,b\n', "record 1 is no CSV .* is a quotation mark missing"),  # noqa: E501
        ("id,type,total,comment,discount,timestamp,address.street\n", "column address.street is no field"),
        ("id,type,total,comment,discount,timestamp,address.city,address\n", "column address.city is part of column address: drop one"),  # noqa: E501
    ],
)  # fmt: skip
def test_csv_that_does_not_fit_is_named(
    read: Callable[..., list[bytes]], text: str, says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        read(text.encode())


def table(**columns: Any) -> bytes:
    out = io.BytesIO()
    parquet.write_table(pa.table(columns), out)
    return out.getvalue()


MOMENT = datetime(2026, 1, 1, 12, 30, 0, 123456, UTC)


def test_rows_of_parquet_are_events(read: Callable[..., list[bytes]]) -> None:
    data = table(
        id=pa.array([1, 2], pa.int32()),
        type=pa.array(["ORDER_PLACED", None]),
        total=pa.array([Decimal("12.50"), Decimal("0.01")], pa.decimal128(10, 2)),
        weight=[float("nan"), None],
        express=[True, False],
        comment=["a", ""],
        tags=[["x"], []],
        address=[{"city": "Bern", "zip": None}, None],
        discount=pa.array([None, 5], pa.int64()),
        timestamp=pa.array(
            [MOMENT, MOMENT + timedelta(days=1)], pa.timestamp("ns", "Europe/Zurich")
        ),
    )
    found = read(data)
    assert parsed(found) == [
        {"id": 1, "type": "ORDER_PLACED", "total": 12.5, "weight": "nan", "express": True, "comment": "a", "tags": ["x"], "address": {"city": "Bern"}, "discount": None, "timestamp": "2026-01-01T13:30:00.123456+01:00"},  # noqa: E501
        {"id": 2, "type": None, "total": 0.01, "express": False, "comment": "", "tags": [], "discount": 5, "timestamp": "2026-01-02T13:30:00.123456+01:00"},  # noqa: E501
    ]  # fmt: skip
    assert b'"total":12.50' in found[0]
    assert read(gzip.compress(data)) == found
    assert read(data, piped=True) == found


def test_what_is_nested_in_parquet(read: Callable[..., list[bytes]]) -> None:
    nanos = pa.timestamp("ns", "UTC")
    inner = pa.struct([("city", nanos), ("zip", pa.map_(pa.string(), pa.list_(pa.time64("ns"))))])
    moment, noon = pa.scalar(1_767_270_600_123_456_789, nanos), [43_200_000_000_001]
    rows = [{"city": moment, "zip": [("a", noon)]}, {"city": None, "zip": []}, None]
    data = table(
        id=[1, 2, 3], type=["a"] * 3, total=[1] * 3, comment=["c"] * 3, discount=[1] * 3,
        timestamp=["b"] * 3, address=pa.array(rows, inner),
        tags=pa.array([[], [("a", float("nan"))], None], pa.map_(pa.string(), pa.float64())),
    )  # fmt: skip
    first, second, third = parsed(read(data))
    assert first["address"] == {"city": "2026-01-01T12:30:00.123456Z", "zip": {"a": ["12:00:00"]}}
    assert (first["tags"], second["tags"]) == ({}, {"a": "nan"})
    assert second["address"] == {"zip": {}}
    assert "address" not in third
    assert "tags" not in third


class Reading(Event):
    id: int
    at: EpochMillis


READINGS = Stream(name="readings", contract=Reading, table="readings", key="id", event_time="at")


def test_parquet_has_the_numbers_of_the_contract(read: Callable[..., list[bytes]]) -> None:
    """As `Producer.send_frame` makes them of the same table."""
    lines = read(table(id=[1.0, 2.5, None], at=[MOMENT] * 3), READINGS)
    assert lines == [
        b'{"id":1,"at":1767270600123}\n',
        b'{"id":2.5,"at":1767270600123}\n',
        b'{"id":null,"at":1767270600123}\n',
    ]


def test_times_without_a_zone_stay_so(read: Callable[..., list[bytes]]) -> None:
    data = table(
        id=[1], type=["a"], total=[1], comment=["c"], discount=[1], timestamp=[MOMENT.replace(tzinfo=None)]
    )  # fmt: skip
    [line] = parsed(read(data))
    assert line["timestamp"] == "2026-01-01T12:30:00.123456"  # the contract asks for a zone


def test_parquet_that_does_not_fit_is_named(read: Callable[..., list[bytes]]) -> None:
    good = {"id": [1], "type": ["a"], "total": [1], "comment": ["c"], "discount": [1], "timestamp": [date.min]}  # noqa: E501  # fmt: skip
    with pytest.raises(UsageError, match="column ide is no field of stream orders: is it id"):
        read(table(ide=[1], **good))
    with pytest.raises(UsageError, match="it is no readable Parquet file"):
        read(table(**good)[:-9])


def test_skipping_reads_the_same_lines_again(tmp_path: Path) -> None:
    path = tmp_path / "events"
    for data in (FORMS["an array"], COMPRESS["zstd"](LINES), LINES):
        path.write_bytes(data)
        with closing(open_source(str(path), USER_EVENTS)) as source:
            lines = [line for group in source.groups(NEVER, 100) for line in group]
        sent = b"".join(lines[:200])
        with closing(open_source(str(path), USER_EVENTS)) as source:
            assert source.skip(len(sent), NEVER).hexdigest() == hashlib.sha256(sent).hexdigest()
            assert [line for group in source.groups(NEVER, 100) for line in group] == lines[200:]


def test_the_unit_is_what_a_user_sees(tmp_path: Path) -> None:
    path = tmp_path / "events"
    for data, unit in ((LINES, "line"), (FORMS["an array"], "record"), (b"", "line")):
        path.write_bytes(data)
        with closing(open_source(str(path), USER_EVENTS)) as source:
            assert source.unit == unit
    assert isinstance(source, Source)
