"""`streamflow produce` of CSV and Parquet, compressed and not, to a real broker."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from pipeline import event, stored_values, streamflow
from streamflow.settings import Settings

pytestmark = pytest.mark.acceptance

HEADER = "id,type,user,user_email,timestamp"
ROW = "{},USER_LOGIN,user{},anna@example.com,2026-01-01T00:00:00Z"


def ids(settings: Settings) -> list[int]:
    values = filter(None, stored_values(settings, "user-events"))
    return sorted(json.loads(value)["id"] for value in values)


def test_csv_up_to_a_broken_row_and_on_from_there(stack_settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "logins.csv.gz"
    rows = [HEADER, *(ROW.format(number, number) for number in range(3))]
    path.write_bytes(gzip.compress("\n".join([*rows, "3,USER_LOGIN"]).encode()))
    cut = streamflow(stack_settings, "produce", "--from", str(path))
    assert cut.returncode == 2
    assert "record 4 has 2 cells, and the header 5: mend it, and go on with --resume" in cut.stderr
    assert "sent 3 events" in cut.stdout
    assert "stopped after record 3: --resume goes on from there" in cut.stderr
    assert ids(stack_settings) == [0, 1, 2]

    rows += [ROW.format(3, 3), ROW.format("x", 4), ROW.format(5, 5)]
    path.write_bytes(gzip.compress("\n".join(rows).encode()))
    done = streamflow(stack_settings, "produce", "--from", str(path), "--resume")
    assert done.returncode == 1
    assert "record 5: SCHEMA_VIOLATION: id: " in done.stderr
    assert "skipped 1 invalid record" in done.stderr
    assert ids(stack_settings) == [0, 1, 2, 3, 5]
    assert not any(b"@" in (value or b"") for value in stored_values(stack_settings, "user-events"))

    again = streamflow(stack_settings, "produce", "--from", str(path), "--resume")
    assert "nothing to send: of 6 records read before, 5 were sent and 1 skipped" in again.stdout


def test_a_parquet_file(stack_settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "logins"
    events = [json.loads(event(number)) for number in range(2_000)]
    parquet.write_table(pa.Table.from_pylist(events), path)
    done = streamflow(stack_settings, "produce", "--from", str(path))
    assert done.returncode == 0, done.stderr
    assert "sent 2,000 events" in done.stdout
    assert ids(stack_settings) == [*range(2_000)]


def test_a_header_of_another_stream_is_told_before_anything_is_sent(
    stack_settings: Settings, tmp_path: Path
) -> None:
    path = tmp_path / "orders.csv"
    path.write_text("id,type,usr,timestamp\n1,USER_LOGIN,anna,2026-01-01T00:00:00Z\n")
    done = streamflow(stack_settings, "produce", "--from", str(path))
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith(
        f"{path}: column usr is no field of stream user-events: is it user?"
    )
    assert ids(stack_settings) == []
