"""Who may ask Dagster's webserver: its own pages and programs, and no page of anybody else."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest
import requests
from playwright.sync_api import expect
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from dashboards import open_browser
from deployments import ROOT, services
from faults import assert_guarded, free_ports, wait_until
from orchestration import stack_of_a_module
from pipeline import environment
from services import BrokerService, DatabaseService
from streamflow.settings import Settings
from streamflow_stack.orchestration import HeartbeatProbe, Home, dagster_parts
from streaming_workers.reporting import Reporter
from streamlit_app.measure.dagster import Dagster

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

MODULE = "streamflow_dagster.webserver"
LAUNCH = """mutation{launchRun(executionParams:{selector:{
repositoryLocationName:"streamflow_dagster.definitions",repositoryName:"__repository__",
jobName:"replay_dead_letters"}}){__typename ... on LaunchRunSuccess{run{runId}}}}"""
RUNS = "{runsOrError{... on Runs{count}}}"
EVIL = "http://evil.example"


class Webserver:
    def __init__(self, settings: Settings, folder: Path) -> None:
        [self.port] = free_ports(1)
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "webserver.log"
        # Without a queue no daemon is needed.
        (folder / "dagster.yaml").write_text(
            "telemetry: {enabled: false}\nnux: {enabled: false}\nrun_coordinator:"
            " {module: dagster.core.run_coordinator, class: DefaultRunCoordinator}\n"
        )
        arguments = (
            "-m",
            "streamflow_dagster.definitions",
            "-h",
            "127.0.0.1",
            "-p",
            str(self.port),
        )
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", MODULE, *arguments],
                env=environment(
                    settings,
                    DAGSTER_HOME=str(folder),
                    STREAMFLOW_DAGSTER_HOSTS="dagster.example.com, inside:3000",
                ),
                stdout=output,
                stderr=output,
            )

    def answers(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        with contextlib.suppress(requests.ConnectionError):
            return requests.get(f"{self.url}/server_info", timeout=5).ok
        return False

    def runs(self) -> int:
        answer = requests.post(f"{self.url}/graphql", json={"query": RUNS}, timeout=30)
        return int(answer.json()["data"]["runsOrError"]["count"])


@pytest.fixture(scope="module")
def web(
    broker: BrokerService,
    database_server: DatabaseService,
    database_template: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Webserver]:
    folder = tmp_path_factory.mktemp("webserver")
    with stack_of_a_module(broker, database_server, database_template, folder) as settings:
        running = Webserver(settings, folder)
        try:
            wait_until(running.answers, 120, "the webserver")
            yield running
        finally:
            running.process.terminate()
            running.process.wait(30)


def assert_refused(answer: requests.Response, setting: str = "STREAMFLOW_DAGSTER_HOSTS") -> None:
    assert answer.status_code == 403, answer.text
    assert answer.text.count("\n") == 1
    assert setting in answer.text


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": EVIL},
        {"Origin": "null"},
        {"Host": "evil.example"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},
        {
            "Sec-Fetch-Site": "cross-site",
            "Sec-Fetch-Mode": "navigate",
            "Sec-Fetch-Dest": "document",
        },
    ],
)
def test_a_mutation_by_get_is_refused(web: Webserver, headers: dict[str, str]) -> None:
    before = web.runs()
    for path in ("/graphql", "/graphql/"):
        answer = requests.get(
            f"{web.url}{path}", params={"query": LAUNCH}, headers=headers, timeout=30
        )
        assert web.runs() == before
        assert answer.status_code == 403
        assert answer.text.count("\n") == 1


def test_other_pages_and_names_are_refused(web: Webserver) -> None:
    before = web.runs()
    body = json.dumps({"query": LAUNCH})
    as_json = {"Content-Type": "application/json"}
    for headers in (
        {"Origin": EVIL},
        {"Origin": "null"},
        {"Origin": f"http://127.0.0.1:{web.port + 1}"},
        {"Origin": "http://127.0.0.1"},
        {"Origin": f"http://evil.example@127.0.0.1:{web.port}"},
        # DNS rebinding: to the browser, evil.example is this very address.
        {"Host": f"evil.example:{web.port}", "Origin": f"http://evil.example:{web.port}"},
        {"Host": "evil.example"},
        {"Host": "dagster.example.com.evil.example"},
        {"Host": "inside:3001"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ):
        assert_refused(
            requests.post(f"{web.url}/graphql", body, headers=as_json | headers, timeout=30)
        )
        assert_refused(requests.get(f"{web.url}/server_info", headers=headers, timeout=30))
        assert web.runs() == before


@pytest.mark.parametrize(
    "kind",
    ["text/plain", "text/plain; application/json", "application/x-www-form-urlencoded", "", None],
)
@pytest.mark.parametrize("path", ["/graphql", "/report_asset_materialization/kafka/user_events"])
def test_what_a_form_can_send_is_refused(web: Webserver, path: str, kind: str | None) -> None:
    before = web.runs()
    answer = requests.post(
        f"{web.url}{path}?{urlencode({'query': LAUNCH})}",
        json.dumps({"query": LAUNCH}).encode(),
        headers={} if kind is None else {"Content-Type": kind},
        timeout=30,
    )
    assert web.runs() == before
    assert_refused(answer, "application/json")


def test_a_subscription_of_another_page_is_refused(web: Webserver) -> None:
    address = f"ws://127.0.0.1:{web.port}/graphql"
    for refused in (EVIL, f"http://127.0.0.1:{web.port + 1}", "null"):
        with pytest.raises(InvalidStatus) as found:
            connect(address, origin=refused, subprotocols=["graphql-ws"])  # type: ignore[arg-type,list-item]
        assert found.value.response.status_code == 403
        assert b"STREAMFLOW_DAGSTER_HOSTS" in (found.value.response.body or b"")
    for origin in (web.url, None):
        with connect(address, origin=origin, subprotocols=["graphql-ws"]) as socket:  # type: ignore[arg-type,list-item]
            socket.send('{"type": "connection_init"}')
            assert json.loads(socket.recv(10)) == {"type": "connection_ack"}


def test_its_own_pages_and_programs_go_on(web: Webserver) -> None:
    def ask(**headers: str) -> int:
        answer = requests.post(
            f"{web.url}/graphql",
            json={"query": RUNS},
            headers={name.replace("_", "-"): value for name, value in headers.items()},
            timeout=30,
        )
        return answer.status_code

    assert ask() == 200
    assert ask(Origin=web.url, Sec_Fetch_Site="same-origin") == 200
    local = f"localhost:{web.port}"
    assert ask(Host=local, Origin=f"http://{local}") == 200
    assert ask(Host=f"[::1]:{web.port}") == 200
    # Behind a proxy that keeps the name, and behind one that does not.
    public = "dagster.example.com"
    assert ask(Host=public, Origin=f"https://{public}") == 200
    assert ask(Host=f"{public}:443", Origin=f"https://{public}") == 200
    assert ask(Origin=f"https://{public}") == 200
    assert ask(Host="inside:3000") == 200
    # A link of another page opens the UI.
    link = {
        "Sec-Fetch-Site": "cross-site",
        "Sec-Fetch-Mode": "navigate",
        "Sec-Fetch-Dest": "document",
    }
    page = requests.get(f"{web.url}/runs", headers=link, timeout=30)
    assert (page.status_code, "<html" in page.text) == (200, True)


def test_the_reporter_the_dashboard_and_the_probe_go_on(web: Webserver) -> None:
    query = """{assetNodes(assetKeys: [{path: ["kafka", "notifications"]}])
      {assetMaterializations {description}}}"""

    def reports() -> list[dict[str, str]]:
        answer = requests.post(f"{web.url}/graphql", json={"query": query}, timeout=30)
        return list(answer.json()["data"]["assetNodes"][0]["assetMaterializations"])

    with Reporter(web.url, 1, "validator") as reporter:
        reporter.note("kafka/notifications", 1)
        told = wait_until(reports, 60, "a worker's report")
    assert told[0]["description"] == "reported by the validator"
    # No daemon runs here, so none has been heard of: an answer all the same.
    assert "no heartbeat" in HeartbeatProbe(web.url)().detail
    before = web.runs()
    assert Dagster(web.url).launch("replay_dead_letters", {})
    assert web.runs() == before + 1


PAGE = """<!doctype html><title>working</title><body><script>
const target = "%(target)s", launch = `%(launch)s`;
const get = target + "/graphql?query=" + encodeURIComponent(launch);
const body = JSON.stringify({query: launch});
const tries = [
  fetch(get, {mode: "no-cors"}),
  fetch(get),
  fetch(target + "/graphql", {method: "POST", mode: "no-cors", body}),
  fetch(target + "/graphql", {method: "POST", mode: "no-cors", body,
                              headers: {"Content-Type": "text/plain; application/json"}}),
  fetch(target + "/graphql", {method: "POST", body, headers: {"Content-Type": "application/json"}}),
  new Promise(done => { const image = new Image(); image.onload = image.onerror = done; image.src = get }),
  new Promise(done => { const socket = new WebSocket(target.replace("http", "ws") + "/graphql",
                                                     "graphql-ws");
                        socket.onopen = () => { document.body.append("socket opened"); done() };
                        socket.onerror = done }),
  ...["GET", "POST"].map((method, number) => new Promise(done => {
    const frame = document.createElement("iframe"); frame.name = "frame" + number;
    document.body.append(frame); frame.onload = done;
    const form = document.createElement("form"), field = document.createElement("input");
    form.action = target + "/graphql" + (method == "POST" ? "?query=" + encodeURIComponent(launch) : "");
    form.method = method; form.target = frame.name; field.name = "query"; field.value = launch;
    form.append(field); document.body.append(form); form.submit();
  })),
];
Promise.allSettled(tries).then(() => { document.title = "done" });
</script>"""


@contextlib.contextmanager
def another_site(text: str) -> Iterator[str]:
    """A page at another port of this machine."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def test_headers_and_limits(web: Webserver) -> None:
    assert_guarded(web.port, "/server_info")


def test_a_page_of_another_origin_launches_nothing_and_the_ui_works(web: Webserver) -> None:
    before = web.runs()
    text = PAGE % {"target": web.url, "launch": " ".join(LAUNCH.split())}
    with another_site(text) as address, open_browser() as browser:
        page = browser.new_page()
        page.goto(address, wait_until="commit")
        expect(page).to_have_title("done", timeout=120_000)
        expect(page.locator("body")).not_to_contain_text("socket opened")
        # In a tab of its own it is the browser that asks: still nothing is run.
        page.goto(f"{web.url}/graphql?query={quote(LAUNCH)}")
        assert web.runs() == before

        refused: list[str] = []
        sockets: list[str] = []
        page.on("response", lambda each: refused.append(each.url) if each.status == 403 else None)
        page.on("websocket", lambda each: sockets.append(each.url))
        page.goto(f"{web.url}/asset-groups")
        # The graph, its groups folded.
        expect(page.get_by_text("Materialize all (13)")).to_be_visible(timeout=60_000)
        for group in ("producers", "kafka", "postgres", "rollups"):
            expect(page.locator("svg").get_by_text(group, exact=True)).to_be_visible()
        assert refused == []
        assert sockets


@pytest.mark.parametrize("command", [("dagster_webserver",), ("dagster", "dev")])
def test_a_webserver_that_dagster_starts_has_the_check_too(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    shutil.copy(ROOT / "dagster.yaml", tmp_path)
    [port] = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    # As in the project's folder: `dagster dev` needs nothing set.
    home = {"DAGSTER_HOME": str(tmp_path)} if command == ("dagster_webserver",) else {}
    with (tmp_path / "log").open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *command, "--empty-workspace", "-p", str(port)],
            env={**os.environ, **home},
            cwd=tmp_path,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )

    def info() -> requests.Response | None:
        assert process.poll() is None, (tmp_path / "log").read_text()
        with contextlib.suppress(requests.ConnectionError):
            return requests.get(f"{url}/server_info", timeout=5)
        return None

    try:
        assert wait_until(info, 90, "the webserver").status_code == 200
        assert_refused(requests.get(f"{url}/server_info", headers={"Origin": EVIL}, timeout=30))
        answer = requests.get(f"{url}/graphql", params={"query": RUNS}, timeout=30)
        assert answer.status_code == 403
        assert (tmp_path / ".streamflow" / "dagster" / "storage" / "history" / "runs.db").exists()
    finally:
        # SIGKILL: at SIGINT, the daemon of `dagster dev` waits up to 30 s for each of its threads.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(60)


def test_everything_starts_it_with_the_check_before_it(tmp_path: Path) -> None:
    home = Home(Settings(STREAMFLOW_STATE_DIR=tmp_path), lambda: "")
    parts = {part.name: part for part in dagster_parts(home, tmp_path)}
    launch = parts["dagster-webserver"].launch
    assert launch is not None
    assert MODULE in launch().command
    service = services({"POSTGRES_PASSWORD": "x"})["dagster"]
    assert service["command"] == ["streamflow", "dagster"]
