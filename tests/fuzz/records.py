"""Fuzzed records through validator and loader into a real PostgreSQL; says where each one ended.

    PYTHONPATH=tests .venv/bin/python tests/fuzz/records.py --count 1_000_000 --seed 7

The workers are what they are in production, and so is the database; only Kafka is left out. What the
validator makes is signed and loaded as if it had been read back. Exits 1 where a record ended nowhere or
twice, an address came out in clear, or a dead letter is larger than its topic takes.
"""

import argparse
import base64
import json
import logging
import resource
import sys
import tempfile
import time
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import structlog

from fuzz.shapes import EVENTS, MARK, Shape, Shapes
from loads import FakeRecord, batch, rows
from services import DatabaseService
from streamflow import records
from streamflow.flow import Output, Partition
from streamflow.postgres.schema import upgrade
from streamflow.postgres.sink.sink import PostgresSink
from streamflow.privacy import Hasher
from streamflow.records import Headers, Origin, OutRecord
from streamflow.registry import load_streams
from streamflow.settings import Settings
from streamflow.signing import Signer
from streamflow.stream_topics import MAX_DEAD_LETTER_BYTES
from streaming_workers.loader import Loader
from streaming_workers.validator import Validator

BATCH: Final = 5_000
_LARGE: Final = 100_000  # bytes
_APPENDED: Final = 1_795_000_000_000  # milliseconds
_MOST_NAMED: Final = 20

# Positions of the records that the tables account for. A dead letter accounts for its source, and is a
# record itself.
ACCOUNTED: Final = """
SELECT origin_topic AS topic, origin_partition AS partition, origin_offset AS "offset" FROM events
 UNION ALL SELECT record_topic, record_partition, record_offset FROM notifications
 UNION ALL SELECT record_topic, record_partition, record_offset FROM window_counts
 UNION ALL SELECT record_topic, record_partition, record_offset FROM dead_letters
 UNION ALL SELECT topic, partition, "offset" FROM duplicates
 UNION ALL SELECT source_topic, source_partition, source_offset FROM dead_letters
  WHERE (source_topic, source_partition, source_offset)
        <> (record_topic, record_partition, record_offset)
"""
_ACCOUNTED: Final = f"""
SELECT topic, partition, count(*), count(DISTINCT "offset"), min("offset"), max("offset")
  FROM ({ACCOUNTED}) AS accounted GROUP BY 1, 2
"""

STORED: Final = """
SELECT origin_partition, origin_offset, id, type, "user", user_email, timestamp FROM events
"""


def _needles() -> tuple[bytes, ...]:
    """The mark as it can stand in what comes out: as text, in COPY's hexadecimal, in base64."""
    mark, found = MARK.encode(), []
    for text in (mark, MARK.encode("utf-16-le"), MARK.encode("utf-32-le")):
        found += [text, text.hex().encode()]
        for shift in range(3):
            # What depends on the bytes before and behind is left out.
            coded = base64.b64encode(b"\x00" * shift + text)
            found.append(coded[(shift * 8 + 5) // 6 : len(coded) - 4])
    return tuple(found)


NEEDLES: Final = _needles()


def holds_mark(data: bytes) -> bool:
    return any(needle in data for needle in NEEDLES)


class FuzzedRecord(FakeRecord):
    def __init__(self, shape: Shape, offset: int, headers: Headers | None) -> None:
        super().__init__(
            offset,
            shape.value,
            topic=shape.topic,
            partition=shape.partition,
            key=shape.key,
            headers=headers,
        )
        self.shape = shape
        self.appended = (2, _APPENDED)

    def headers(self) -> Headers | None:
        if self._headers is None:
            raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "as the client raises it")
        return self._headers


@dataclass
class Findings:
    """What was found, with the records themselves."""

    problems: list[str] = field(default_factory=list)
    leaks: Counter[str] = field(default_factory=Counter)  # by form and place
    kinds: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    slowest: dict[str, float] = field(default_factory=dict)  # seconds of a large value, by kind

    def add(self, what: str, record: FakeRecord) -> None:
        value, key, headers = record._value, record._key, record._headers
        self.problems.append(
            f"{what}: {record.topic()} key={key!r} value={(value or b'')[:400]!r} headers={headers!r}"
        )

    def leak(self, where: str, record: FakeRecord) -> None:
        shape = getattr(record, "shape", None)
        self.leaks[f"{where}, {shape.form} in {shape.place}" if shape else where] += 1
        if sum(self.leaks.values()) <= _MOST_NAMED:
            self.add(f"clear text in {where}", record)


class Pipeline:
    """Validator, loader and database, with records from `Shapes`."""

    def __init__(self, settings: Settings) -> None:
        streams = load_streams(settings)
        hasher = Hasher(b"a key", private_fields=streams[0].private_fields)
        self._settings = settings
        self._signer = Signer(b"a secret of the fuzzer")
        self._validator = Validator(settings, streams, hasher)
        self._loader = Loader(settings, streams, hasher, lambda: self._signer)
        self._delivered: list[OutRecord] = []
        self._sink = PostgresSink(
            settings,
            self._loader.group,
            self._loader.tables,
            self._delivered.extend,
            self._loader.refuse,
            self._loader.forgetting,
        )
        self._ends: defaultdict[Partition, int] = defaultdict(int)
        self._valid: dict[tuple[int, int], int] = {}  # checksum of the row that an event should be
        self.findings = Findings()

    def close(self) -> None:
        self._sink.close()

    def run(self, shapes: Iterable[Shape]) -> None:
        """Sends them all, and compares what the database holds with what was sent."""
        part: list[Shape] = []
        for shape in shapes:
            part.append(shape)
            if len(part) == BATCH:
                self._send(part)
                part = []
        self._send(part)
        while self._delivered:
            self._send([])
        self._compare()

    def _send(self, shapes: Sequence[Shape]) -> None:
        returned = [self._returned(record) for record in self._take_delivered()]
        found = [self._record(shape) for shape in shapes]
        self.findings.kinds.update(shape.kind for shape in shapes)
        events = [record for record in found if record.topic() == EVENTS]
        made = self._validate(events)
        # As they come from a broker: the records of a topic together.
        order = sorted([*found, *made, *returned], key=lambda each: each.topic())
        self._load(order)

    def _record(self, shape: Shape) -> FuzzedRecord:
        headers = shape.headers
        if shape.signed:
            out = OutRecord(shape.topic, shape.key, shape.value, headers or [])
            headers = self._signer.sign(out).headers
        return FuzzedRecord(shape, self._next(shape.topic, shape.partition), headers)

    def _next(self, topic: str, partition: int) -> int:
        offset = self._ends[topic, partition]
        self._ends[topic, partition] = offset + 1
        return offset

    def _returned(self, out: OutRecord) -> FakeRecord:
        """A record that a worker has produced, as it is read again."""
        topic, key, value, headers, _ = self._signer.sign(out)
        made = FakeRecord(self._next(topic, 1), value, topic=topic, partition=1, key=key)
        made._headers = headers
        made.appended = (2, _APPENDED)
        return made

    def _take_delivered(self) -> list[OutRecord]:
        taken = self._delivered[:]
        self._delivered.clear()
        for out in taken:
            self.findings.outcomes[f"loader: {_code(out)}"] += 1
            if _size(out) > MAX_DEAD_LETTER_BYTES:
                self.findings.problems.append(f"a dead letter of the loader has {_size(out)} bytes")
        return taken

    def _validate(self, events: list[FuzzedRecord]) -> list[FakeRecord]:
        if not events:
            return []
        output = self._validator.process(batch(events))
        assert output is not None
        if len(output.records) != len(events):
            self.findings.problems.append(f"{len(events)} events became {len(output.records)}")
        # Dead letters of a part of the batch come before its notifications.
        order = {
            (each.topic(), each.partition(), each.offset()): at for at, each in enumerate(events)
        }
        made = sorted(output.records, key=lambda each: order.get(_source(each), -1))
        for record, out in zip(events, made, strict=True):
            code = _code(out)
            self.findings.outcomes[f"validator: {code or 'valid'}"] += 1
            if not code:
                row = as_stored(record.shape.value)
                self._valid[record.partition(), record.offset()] = zlib.crc32(row.encode())
            if _source(out) != (record.topic(), record.partition(), record.offset()):
                self.findings.add("what came of it is about another record", record)
            if _size(out) > MAX_DEAD_LETTER_BYTES:
                self.findings.add(f"its dead letter has {_size(out)} bytes", record)
            if record.shape.form and _is_in_clear(out):
                self.findings.leak("what the validator made", record)
            if len(record.shape.value or b"") > _LARGE:
                self._time(record)
        return [self._returned(out) for out in output.records]

    def _time(self, record: FuzzedRecord) -> None:
        began = time.process_time()
        self._validator.process(batch([record]))
        taken = time.process_time() - began
        known = self.findings.slowest.get(record.shape.kind, 0.0)
        self.findings.slowest[record.shape.kind] = max(taken, known)

    def _load(self, found: Sequence[FakeRecord]) -> None:
        if not found:
            return
        whole = batch(found)
        new = [(each.topic, each.partition) for each in whole.positions]
        self._sink.resume(new)
        output = self._loader.process(whole)
        self._look_for_marks(output)
        self._sink.commit(output)
        self._sink.flush()

    def _look_for_marks(self, output: Output) -> None:
        for name, table in output.tables.items():
            claimed = [each.otherwise for each in table.claims if isinstance(each.otherwise, bytes)]
            if not holds_mark(b"".join([*table.lines, *claimed])):
                continue
            sources = [*table.sources, *(each.record for each in table.claims)]
            lines = [*table.lines, *(each.otherwise for each in table.claims)]
            for line, source in zip(lines, sources, strict=True):
                if isinstance(line, bytes) and holds_mark(line):
                    assert isinstance(source, FakeRecord)
                    self.findings.leak(f"table {name}", source)

    def _compare(self) -> None:
        left = dict(self._ends)
        for topic, partition, total, distinct, first, last in rows(self._settings, _ACCOUNTED):
            end = left.pop((topic, partition), None)
            if end is None:
                continue  # what signed records claim to come from
            where = f"{topic}/{partition}"
            if total != distinct:
                self.findings.problems.append(f"{where}: {total - distinct} accounted for twice")
            if (distinct, first, last) != (end, 0, end - 1):
                self.findings.problems.append(
                    f"{where}: {end} sent, {distinct} accounted for ({first} to {last})"
                )
        self.findings.problems += [
            f"{name}: nothing of {end} is there" for name, end in left.items()
        ]
        for partition, offset, *fields in rows(self._settings, STORED):
            if self._valid.get((partition, offset)) != zlib.crc32(repr(fields).encode()):
                self.findings.problems.append(
                    f"{EVENTS}/{partition}/{offset} is stored as {fields}"
                )

    @property
    def sent(self) -> int:
        return sum(self._ends.values())


def as_stored(value: bytes | None) -> str:
    """The row that holds a valid event, read with no code of the product's."""
    event = json.loads(value or b"")
    moment = datetime.fromisoformat(event["timestamp"].upper()).astimezone(UTC)
    fields = [event["id"], event["type"], event["user"], event.get("user_email"), moment]
    return repr(fields)


def _source(out: OutRecord) -> Origin | None:
    """The record that one was made of."""
    last = dict(out.headers)
    if not _code(out):
        return Origin.parse(last.get(records.SOURCE_HEADER, last[records.ORIGIN_HEADER]))
    names = (
        records.ERROR_TOPIC_HEADER,
        records.ERROR_PARTITION_HEADER,
        records.ERROR_OFFSET_HEADER,
    )
    return Origin.parse(b"/".join(last[name] or b"" for name in names))


def _code(out: OutRecord) -> str:
    return (dict(out.headers).get(records.ERROR_CODE_HEADER) or b"").decode()


def _size(out: OutRecord) -> int:
    headers = sum(len(name.encode()) + len(content or b"") for name, content in out.headers)
    return len(out.key or b"") + len(out.value or b"") + headers


def _is_in_clear(out: OutRecord) -> bool:
    parts = [out.key or b"", out.value or b""]
    for name, content in out.headers:
        parts += [name.encode("utf-8", "surrogatepass"), content or b""]
    return holds_mark(b"\n".join(parts))


def fuzz(settings: Settings, count: int, seed: int, *, everything: bool = False) -> Pipeline:
    """Sends so many fuzzed records through a pipeline into this database, and compares."""
    pipeline = Pipeline(settings)
    try:
        pipeline.run(Shapes(seed, everything=everything).take(count))
    finally:
        pipeline.close()
    return pipeline


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--everything", action="store_true", help="with what is known to leak")
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with tempfile.TemporaryDirectory(prefix="fuzz-") as directory:
        database = DatabaseService(Path(directory))
        database.start()
        try:
            settings = Settings(DATABASE_URL=database.create_database("fuzz"))
            upgrade(settings, load_streams(settings))
            began, cpu = time.monotonic(), time.process_time()
            pipeline = fuzz(settings, options.count, options.seed, everything=options.everything)
            took, cpu = time.monotonic() - began, time.process_time() - cpu
        finally:
            database.stop()
    findings = pipeline.findings
    for title, numbers in (("made", findings.kinds), ("became", findings.outcomes)):
        say(f"\n{title}")
        for name, number in sorted(numbers.items()):
            say(f"  {name:<40}{number:>12,}")
    say("\nseconds of CPU for a large value")
    for name, seconds in sorted(findings.slowest.items()):
        say(f"  {name:<40}{seconds:>12.2f}")
    for name, number in findings.leaks.most_common(_MOST_NAMED):
        say(f"clear text: {name}: {number:,}")
    for problem in findings.problems[:_MOST_NAMED]:
        say(f"problem: {problem[:1200]}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    good = not findings.problems and not findings.leaks
    say(
        f"\nseed {options.seed}: {options.count:,} records fuzzed, {pipeline.sent:,} with what came of "
        f"them; {'every one accounted for' if good else 'NOT as promised'}; "
        f"{took:.0f} s ({cpu:.0f} s of CPU), at most {peak} MB"
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
