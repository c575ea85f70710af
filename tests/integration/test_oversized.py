"""Records that become much larger than the broker's limit: each ends as a row or a dead letter (G6)."""

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from faults import wait_until
from loads import rows, value
from pipeline import audit, event, produce, streamflow, workers
from resources import peak_memory
from streamflow.kafka import clients
from streamflow.privacy import Hasher
from streamflow.records import Origin, Record
from streamflow.settings import Settings
from streaming_workers.bridge.feed import Feed
from streamlit_app.records.filters import Filter
from streamlit_app.records.queries import MOST_SHOWN, dead_letter
from streamlit_app.records.tail import Search, Start, Tail

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

MB = 1_000_000
MOST_MEMORY = 250  # MB
# Of 3.4 MB: in the topic 0.6 MB, in the dead letter 18 MB, since each address becomes a longer hash.
ADDRESSES = b'{"list":"' + b",".join(b"%06x@b.cc" % number for number in range(283_000)) + b'"}'


def send(settings: Settings, codec: str, *values: bytes, **more: Any) -> None:
    """Produces records to one partition, in one batch, compressed, however large they are."""
    client = clients.producer(
        settings,
        **{
            "compression.type": codec,
            "message.max.bytes": 1_000_000_000,
            "batch.size": 1_000_000_000,
            "queue.buffering.max.kbytes": 1_000_000,
            "linger.ms": 500,
        },
    )
    for each in values:
        client.produce(settings.prefix + "user-events", each, partition=0, **more)
    assert client.flush(60) == 0


def test_a_dead_letter_is_cut_to_what_its_topic_takes(
    stack_settings: Settings, tmp_path: Path
) -> None:
    send(stack_settings, "zstd", ADDRESSES)
    send(stack_settings, "none", event(1))
    with workers(stack_settings, tmp_path):
        wait_until(lambda: value(stack_settings, "SELECT count(*) FROM events") == 1)
        wait_until(lambda: value(stack_settings, "SELECT count(*) FROM notifications") == 1, 60)
        wait_until(lambda: value(stack_settings, "SELECT count(*) FROM dead_letters") == 1, 60)
        report = audit(stack_settings)
        assert report.closed, report.problems
    [(content, id_)] = rows(
        stack_settings,
        "SELECT value, concat_ws('/', source_topic, source_partition, source_offset)"
        " FROM dead_letters",
    )
    assert b"@" not in content
    hashes = content.removeprefix(b'{"list":"').removesuffix(b",").split(b",")
    assert {len(each) for each in hashes} == {64}

    shown = streamflow(stack_settings, "dlq", "show", id_)
    kept = len(b'{"list":"') + 12 * len(hashes)
    assert f"cut: holds {kept:,} of {len(ADDRESSES):,} bytes" in shown.stdout
    as_json = json.loads(streamflow(stack_settings, "dlq", "show", id_, "--json").stdout)
    assert as_json["truncated"] == {"kept": kept, "size": len(ADDRESSES)}
    origin = Origin.parse(id_.encode())
    assert origin is not None
    on_the_page = dead_letter(stack_settings, origin)
    assert on_the_page is not None
    assert on_the_page.truncated == (kept, len(ADDRESSES))
    assert (len(on_the_page.value or ""), on_the_page.size) == (MOST_SHOWN, len(content))
    plan = streamflow(stack_settings, "dlq", "replay")
    assert f"TRUNCATED: cut: holds {kept:,} of" in plan.stdout


def test_a_large_key_and_headers_are_cut_too(stack_settings: Settings, tmp_path: Path) -> None:
    many = [(f"h{number}", b"u%d@b.cc" % number) for number in range(50_000)]
    send(stack_settings, "zstd", b"{}", key=ADDRESSES, headers=[("one", ADDRESSES), *many])
    send(stack_settings, "none", event(1))
    with workers(stack_settings, tmp_path):
        wait_until(lambda: value(stack_settings, "SELECT count(*) FROM dead_letters") == 1, 60)
        report = audit(stack_settings)
        assert report.closed, report.problems
    [(key, headers)] = rows(stack_settings, "SELECT key, headers FROM dead_letters")
    assert b"@" not in key
    assert len(key) < MB * 2
    assert "one" not in {name for name, _ in headers}
    assert headers[0][0] == "h0"


def test_what_the_client_cannot_decompress_is_passed(
    stack_settings: Settings, tmp_path: Path
) -> None:
    # In one batch of 120 MB: librdkafka stops at 100 MB.
    send(stack_settings, "zstd", *[b" " * 40 * MB] * 3)
    send(stack_settings, "none", event(1))
    with workers(stack_settings, tmp_path):
        wait_until(lambda: value(stack_settings, "SELECT count(*) FROM events") == 1, 60)
        report = audit(stack_settings)
        assert report.closed, report.problems
    found = rows(
        stack_settings,
        "SELECT source_offset, error_code, stage, value IS NULL FROM dead_letters ORDER BY 1",
    )
    assert found == [(offset, "UNREADABLE", "validator", True) for offset in range(3)]


@pytest.mark.parametrize(
    "codec", ["lz4", *(pytest.param(each, marks=pytest.mark.chaos) for each in ("gzip", "snappy"))]
)
def test_a_value_that_inflates_is_refused_unparsed(
    codec: str, stack_settings: Settings, tmp_path: Path
) -> None:
    send(stack_settings, codec, b'{"list":[' + b"[]," * (5 * MB) + b"[]]}")
    send(stack_settings, "none", event(1))
    with workers(stack_settings, tmp_path) as running:
        wait_until(lambda: value(stack_settings, "SELECT count(*) FROM events") == 1, 60)
        report = audit(stack_settings)
        assert report.closed, report.problems
        peaks = {name: peak_memory(each.pid) for name, each in running.items()}
        assert all(most < 300 for most in peaks.values()), peaks
    [(code, size)] = rows(
        stack_settings, "SELECT error_code, octet_length(value) FROM dead_letters"
    )
    assert code == "TOO_LARGE"
    assert 13 * MB < size < 16 * MB


def test_many_large_records_do_not_fill_the_memory(
    stack_settings: Settings, tmp_path: Path
) -> None:
    large = [event(number) + b" " * (MB // 2) for number in range(150)]
    rejected = [b'{"id":"%d%s"}' % (number, b"x" * (MB // 2)) for number in range(150)]
    produce(stack_settings, "user-events", [*large, *rejected])
    with workers(stack_settings, tmp_path) as running:
        report = audit(stack_settings)
        assert report.closed, report.problems
        peaks = {name: peak_memory(each.pid) for name, each in running.items()}
        assert all(most < MOST_MEMORY for most in peaks.values()), peaks
    assert value(stack_settings, "SELECT count(*) FROM dead_letters") == 150


def test_the_bridge_passes_what_it_cannot_read(stack_settings: Settings) -> None:
    send(stack_settings, "zstd", *[b" " * 40 * MB] * 3)
    send(stack_settings, "zstd", ADDRESSES)
    send(stack_settings, "none", event(1))
    seen: list[tuple[int, int | None]] = []

    def deliver(recalled: Sequence[Record], live: Sequence[Record]) -> None:
        for record in (*recalled, *live):
            content = record.value()
            seen.append((record.offset() or 0, None if content is None else len(content)))

    topic = f"{stack_settings.prefix}user-events"
    feed = Feed(stack_settings, f"{stack_settings.prefix}feed", [topic], 300, deliver)
    thread = threading.Thread(target=feed.run)
    thread.start()
    try:
        wait_until(lambda: len(seen) == 5, 30, "all records")
    finally:
        feed.stop()
        thread.join(10)
    sizes = [None, None, None, len(ADDRESSES), len(event(1))]
    assert seen == list(enumerate(sizes))


def test_people_see_past_what_the_client_cannot_read(stack_settings: Settings) -> None:
    send(stack_settings, "zstd", *[b" " * 40 * MB] * 3)
    send(stack_settings, "none", event(1))
    topic = f"{stack_settings.prefix}user-events"

    result = Search(stack_settings, Hasher()).run(topic, Start(last=100), Filter())

    sizes = {record.offset: record.size for record in result.records}
    assert sizes == {0: None, 1: None, 2: None, 3: len(event(1))}
    tail = Tail(stack_settings, Hasher())
    tail.start()
    try:
        wait_until(lambda: len(tail.watch(topic).records) == 4, 30, "all records")
        assert tail.watch(topic).error is None
    finally:
        tail.stop()


def test_a_large_event_is_an_event(stack_settings: Settings, tmp_path: Path) -> None:
    send(stack_settings, "zstd", event(1) + b" " * 5 * MB)
    with workers(stack_settings, tmp_path):
        wait_until(lambda: value(stack_settings, "SELECT count(*) FROM notifications") == 1, 60)
        report = audit(stack_settings)
        assert report.closed, report.problems
