"""What `streamflow acls` prints."""

import json
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from streamflow.kafka.acls import Right, least_rights
from streamflow.names import POSITIONS_TOPIC
from streamflow.registry import load_streams
from streamflow.settings import GROUPS, Settings
from streamflow.stream import needs, writes
from streamflow.stream_topics import Topics
from streamflow_cli.app import app


def test_rights_are_lines_for_a_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "broker:9093")
    monkeypatch.setenv("STREAMFLOW_PREFIX", "team-")
    printed = CliRunner().invoke(app, ["acls", "--principal", "User:CN={part},O=Us"]).stdout
    lines = printed.splitlines()
    assert (
        "kafka-acls.sh --bootstrap-server broker:9093 --add --allow-principal User:CN=validator,O=Us "
        "--operation Write --transactional-id team-notification-group- "
        "--resource-pattern-type prefixed"
    ) in lines
    given = CliRunner().invoke(app, ["acls", "--command-config", "my admin.properties"]).stdout
    assert len(given.splitlines()) == len(lines)
    start = (
        "kafka-acls.sh --bootstrap-server broker:9093 --command-config 'my admin.properties' --add "
    )
    assert all(line.startswith(start) for line in given.splitlines())
    found = json.loads(CliRunner().invoke(app, ["acls", "--json"]).stdout)
    assert len(found) == len(lines) == len(set(lines))
    assert found[0]["principal"] == "User:streamflow-setup"


def test_only_setup_alters_and_only_producers_and_replays_write_events() -> None:
    settings = Settings(STREAMFLOW_PREFIX="team-")
    [stream] = load_streams(settings)
    rights = least_rights(settings, [stream])
    assert {right.part for right in rights if "Alter" in right.operations} == {"setup"}
    writers = {
        right.part for right in rights if right.name == stream.topic and "Write" in right.operations
    }
    assert writers == {"producer", "ingest", "replay"}
    assert all(right.name.startswith("team-") for right in rights)
    assert Right("loader", "group", "team-db-group", ("Read",)) in rights


@pytest.mark.parametrize("replays", [None, True])
def test_replays_write_to_another_owner_s_topic_only_if_it_is_declared(
    replays: bool | None,
) -> None:
    [stream] = load_streams(Settings())
    theirs = replace(stream, topics=Topics(managed=False, replays=replays))
    replayed = Right("replay", "topic", stream.topic, ("Write",))
    assert (replayed in least_rights(Settings(), [theirs])) == bool(replays)


@pytest.mark.parametrize("worker", GROUPS)
@pytest.mark.parametrize("windowed", [True, False])
def test_a_worker_may_see_just_the_topics_that_it_needs(worker: str, windowed: bool) -> None:
    [stream] = load_streams(Settings())
    stream = stream if windowed else replace(stream, windows=None)
    rights = least_rights(Settings(), [stream])
    seen = {right.name for right in rights if (right.part, right.resource) == (worker, "topic")}
    assert seen - {POSITIONS_TOPIC} == {*needs(worker, stream)}
    written = {
        right.name
        for right in rights
        if right.part == worker and right.operations == ("Write",) and right.resource == "topic"
    }
    assert written == {*writes(worker, stream)}
