"""The ingest worker: a real process, a real broker, a real database, real HTTP."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ingesting import IngestProcess, ingest_workers
from pipeline import stored_values
from streamflow.privacy import Hasher
from streamflow.settings import Settings

pytestmark = pytest.mark.integration


def login(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "id": number, "type": "USER_LOGIN", "user": f"user-{number % 7}",
        "user_email": f"{number}@example.com", "timestamp": "2026-03-01T12:00:00Z",
    } | changes  # fmt: skip


def stored(settings: Settings) -> list[dict[str, Any]]:
    found = [json.loads(value or b"") for value in stored_values(settings, "user-events")]
    return sorted(found, key=lambda one: int(one["id"]))


def stored_ids(settings: Settings) -> list[int]:
    return [one["id"] for one in stored(settings)]


@pytest.fixture
def worker(stack_settings: Settings, tmp_path: Path) -> Iterator[IngestProcess]:
    with ingest_workers(stack_settings, tmp_path) as [running]:
        yield running


def test_one_event_and_many_are_stored_before_the_answer(
    worker: IngestProcess, stack_settings: Settings
) -> None:
    one = worker.post(login(0))
    assert (one.status_code, one.headers["content-type"]) == (200, "application/json")
    many = worker.post([login(number) for number in range(1, 6)])
    lines = "\n".join(json.dumps(login(number)) for number in range(6, 9))
    ndjson = worker.post(data=lines + "\n\n", headers={"Content-Type": "application/x-ndjson"})
    answers = [answer.json() for answer in (one, many, ndjson)]
    assert [answer["accepted"] for answer in answers] == [1, 5, 3]
    places = [(at["partition"], at["offset"]) for answer in answers for at in answer["records"]]
    assert len(set(places)) == 9
    found = stored(stack_settings)
    assert [event["id"] for event in found] == list(range(9))
    assert found[0] == login(0) | {
        "user_email": Hasher().hash("0@example.com"),
        "timestamp": "2026-03-01T12:00:00.000Z",
    }
