"""The original clients of this pipeline: Node.js programs with `socket.io-client` from npm."""

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import orjson
import pytest

from faults import wait_until
from listeners import PATIENCE, BridgeProcess, bridge_process
from pipeline import event, produce
from streamflow.settings import Settings
from streamflow_stack import jars

NODE, NPM = shutil.which("node"), shutil.which("npm")
PROGRAMS = Path(__file__).parents[1] / "node"

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        not (NODE and NPM), reason="node and npm are not installed: original clients cannot be run"
    ),
]


@pytest.fixture(scope="session")
def node_modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder outside the checkout with what package.json names, installed once."""
    manifest = PROGRAMS / "package.json"
    digest = hashlib.sha256(manifest.read_bytes()).hexdigest()[:12]
    folder = jars.cache_directory() / "node" / digest
    if not folder.exists():
        fresh = tmp_path_factory.mktemp("node")
        shutil.copy(manifest, fresh)
        done = subprocess.run(
            [str(NPM), "install", "--no-package-lock", "--no-audit", "--no-fund"],
            cwd=fresh,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(fresh, folder, dirs_exist_ok=True)
    return folder


class NodeClient:
    """tests/node/listen.mjs as a process."""

    def __init__(self, modules: Path, log: Path, url: str, **wishes: Any) -> None:
        self._log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [str(NODE), str(PROGRAMS / "listen.mjs"), url, json.dumps(wishes)],
                env={**os.environ, "STREAMFLOW_NODE_MODULES": f"{modules}/"},
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)

    def said(self, event: str) -> list[Any]:
        """The bodies of an event, as far as it was printed."""
        text = self._log.read_text()
        lines = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
        return [line["body"] for line in lines if line["event"] == event]

    def hears(self, event: str, count: int = 1) -> list[Any]:
        """Waits for so many of an event."""

        def heard() -> list[Any]:
            assert self.process.poll() in (None, 0), self._log.read_text()
            return self.said(event) if len(self.said(event)) >= count else []

        return wait_until(heard, PATIENCE, f"{count} times {event}")


@pytest.fixture
def bridge(stack_settings: Settings, tmp_path: Path) -> Iterator[BridgeProcess]:
    with bridge_process(stack_settings, tmp_path / "bridge.log") as running:
        yield running


@pytest.mark.parametrize("transports", [["websocket"], ["polling"], ["polling", "websocket"]])
def test_it_receives_what_was_produced(
    stack_settings: Settings,
    bridge: BridgeProcess,
    node_modules: Path,
    tmp_path: Path,
    transports: list[str],
) -> None:
    options = {"transports": transports}
    log = tmp_path / "client.log"
    values = [event(number) for number in range(500)]
    with NodeClient(node_modules, log, bridge.url, options=options, count=503) as client:
        client.hears("connect")
        produce(stack_settings, "user-events", values)
        produce(stack_settings, "analytics", [b'{"event_type":"USER_LOGIN","count":3}'])
        produce(stack_settings, "dead-letter-topic", [b"\xffbroken", None])
        [done] = client.hears("done")
        found = client.said("kafka-event")
    assert done["missed"] == 0
    # One that begins with polling and upgrades loses nothing on the way.
    assert done["transport"] == transports[-1]
    events = [each for each in found if each["topic"] == "user-events"]
    assert [set(each) for each in found] == [{"topic", "payload", "timestamp"}] * 503
    assert sorted(each["payload"]["id"] for each in events) == list(range(500))
    assert sorted(map(str, (each["payload"] for each in events))) == sorted(
        map(str, map(orjson.loads, values))
    )
    others = {(each["topic"], str(each["payload"])) for each in found} - {
        (each["topic"], str(each["payload"])) for each in events
    }
    assert others == {
        ("analytics", "{'event_type': 'USER_LOGIN', 'count': 3}"),
        ("dead-letter-topic", "\ufffdbroken"),
        ("dead-letter-topic", "None"),
    }


def test_it_subscribes_and_asks_for_the_last(
    stack_settings: Settings, bridge: BridgeProcess, node_modules: Path, tmp_path: Path
) -> None:
    produce(stack_settings, "user-events", [event(number) for number in range(100)])
    wait_until(lambda: bridge.metric("streamflow_records_in_total") == 100, PATIENCE)
    wishes = {
        "options": {"auth": {"topics": ["user-events"], "users": "user-7", "last": 5}},
        "subscribe": {"topics": ["user-events"], "users": ["user-8"]},
    }
    with NodeClient(node_modules, tmp_path / "client.log", bridge.url, **wishes) as client:
        assert client.hears("subscribed") == [
            {
                "ok": True,
                "topics": ["user-events"],
                "types": None,
                "users": ["user-8"],
                "windows": None,
            }
        ]
        produce(stack_settings, "user-events", [event(1), event(8)])
        found = client.hears("kafka-event", 2)
    assert [each["payload"]["id"] for each in found] == [7, 8]


def test_it_is_refused_without_the_token(
    stack_settings: Settings, node_modules: Path, tmp_path: Path
) -> None:
    token = {"STREAMFLOW_BRIDGE_TOKEN": "secret"}
    with bridge_process(stack_settings, tmp_path / "bridge.log", **token) as bridge:
        with NodeClient(node_modules, tmp_path / "one.log", bridge.url) as client:
            assert client.process.wait(PATIENCE) == 3
            assert "token is missing or wrong" in client.said("connect_error")[0]["message"]
        options = {"auth": {"token": "secret"}}
        with NodeClient(node_modules, tmp_path / "two.log", bridge.url, options=options) as client:
            client.hears("connect")
