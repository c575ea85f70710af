"""Which requests the dashboard answers: those of its own pages and of programs, not of other pages."""

import socket
from collections.abc import Iterator

import pytest
import requests
from playwright.sync_api import expect
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from dashboards import DashboardProcess, figure, open_browser
from faults import assert_guarded, free_ports, wait_until
from orchestration import stack_of_a_module
from services import BrokerService, DatabaseService

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

SETTING = "STREAMFLOW_DASHBOARD_HOSTS"
EVIL = "http://evil.example"
PUBLIC = "dash.example.com"


@pytest.fixture(scope="module")
def dashboard(
    broker: BrokerService,
    database_server: DatabaseService,
    database_template: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[DashboardProcess]:
    folder = tmp_path_factory.mktemp("dashboard")
    with stack_of_a_module(broker, database_server, database_template, folder) as settings:
        [port] = free_ports(1)
        running = DashboardProcess(
            settings,
            port,
            folder / "dashboard.log",
            STREAMFLOW_DASHBOARD_HOSTS=f"{PUBLIC}, inside:8501",
        )
        try:
            running.wait_ready()
            yield running
        finally:
            running.kill()


def port_of(dashboard: DashboardProcess) -> int:
    return int(dashboard.url.rpartition(":")[2])


def open_session(dashboard: DashboardProcess, headers: dict[str, str]) -> ClientConnection:
    """As the page's script does; the server is connected to whatever `Host` says."""
    host = headers.get("Host", dashboard.url.removeprefix("http://"))
    return connect(
        f"ws://{host}/_stcore/stream",
        sock=socket.create_connection(("127.0.0.1", port_of(dashboard))),
        origin=headers.get("Origin"),  # type: ignore[arg-type]
        subprotocols=["streamlit"],  # type: ignore[list-item]
    )


def handshake(dashboard: DashboardProcess, headers: dict[str, str]) -> tuple[int, str]:
    """How a WebSocket's upgrade is answered."""
    try:
        with open_session(dashboard, headers):
            return 101, ""
    except InvalidStatus as error:
        return error.response.status_code, bytes(error.response.body or b"").decode()


def foreign(dashboard: DashboardProcess) -> list[dict[str, str]]:
    """What a browser sends along for a page that is not ours."""
    port = port_of(dashboard)
    return [
        {"Origin": EVIL},
        {"Origin": "null"},
        {"Origin": f"http://127.0.0.1:{port + 1}"},
        {"Origin": "http://127.0.0.1"},
        {"Origin": "http://localhost"},
        {"Origin": f"http://evil.example@127.0.0.1:{port}"},
        # DNS rebinding: to the browser, evil.example is this very address.
        {"Host": f"evil.example:{port}", "Origin": f"http://evil.example:{port}"},
        {"Host": f"evil.example:{port}"},
        {"Host": f"{PUBLIC}.evil.example"},
        {"Host": "inside:8502"},
    ]


def test_other_pages_and_names_are_refused(dashboard: DashboardProcess) -> None:
    for headers in foreign(dashboard):
        for path in ("/", "/readyz", "/_stcore/health", "/_stcore/host-config", "/_stcore/metrics"):
            answer = requests.get(f"{dashboard.url}{path}", headers=headers, timeout=30)
            assert answer.status_code == 403, (headers, path)
            assert SETTING in answer.text
            assert answer.text.count("\n") == 1
    for site in ("cross-site", "same-site"):
        headers = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}
        answer = requests.get(f"{dashboard.url}/_stcore/metrics", headers=headers, timeout=30)
        assert answer.status_code == 403
    # A link of another page opens the dashboard.
    link = {
        "Sec-Fetch-Site": "cross-site",
        "Sec-Fetch-Mode": "navigate",
        "Sec-Fetch-Dest": "document",
    }
    assert requests.get(f"{dashboard.url}/alerts", headers=link, timeout=30).ok


def test_headers_and_limits(dashboard: DashboardProcess) -> None:
    assert_guarded(port_of(dashboard), "/readyz")


def test_another_page_gets_no_session(dashboard: DashboardProcess) -> None:
    wait_until(lambda: dashboard.sessions() == 0, 60, "the sessions to end")
    answers = [handshake(dashboard, headers) for headers in foreign(dashboard)]
    opened = [
        headers
        for headers, (status, _) in zip(foreign(dashboard), answers, strict=True)
        if status != 403
    ]
    assert opened == []
    assert all(SETTING in reason for _, reason in answers), answers
    assert dashboard.sessions() == 0


def test_its_own_pages_and_programs_go_on(dashboard: DashboardProcess) -> None:
    port = port_of(dashboard)
    for headers in (
        {},
        {"Origin": dashboard.url},
        {"Host": f"localhost:{port}", "Origin": f"http://localhost:{port}"},
        # Kubernetes' probes, and people, may use an address: that cannot be rebound.
        {"Host": "10.1.2.3:8501", "Origin": "http://10.1.2.3:8501"},
        # Behind a proxy that keeps the name, and behind one that does not.
        {"Host": PUBLIC, "Origin": f"https://{PUBLIC}"},
        {"Origin": f"https://{PUBLIC}"},
        {"Host": "inside:8501", "Origin": f"https://{PUBLIC}"},
    ):
        assert requests.get(f"{dashboard.url}/readyz", headers=headers, timeout=30).ok, headers
        assert handshake(dashboard, headers)[0] == 101, headers


def test_the_pages_work_but_not_under_a_rebound_name(dashboard: DashboardProcess) -> None:
    port = port_of(dashboard)
    wait_until(lambda: dashboard.sessions() == 0, 60, "the sessions to end")
    with open_browser("--host-resolver-rules=MAP evil.example 127.0.0.1") as browser:
        page = browser.new_page()
        answer = page.goto(f"http://evil.example:{port}/")
        assert answer is not None
        assert answer.status == 403
        expect(page.locator("body")).to_contain_text(SETTING)
        assert dashboard.sessions() == 0

        refused: list[str] = []
        page.on("response", lambda each: refused.append(each.url) if each.status == 403 else None)
        page.goto(dashboard.url)
        expect(figure(page, "stored")).to_have_text("0")
        page.get_by_role("link", name="Dead letters").click()
        expect(page.get_by_role("button", name="Plan (dry run)")).to_be_visible()
        assert refused == []
        assert dashboard.sessions() == 1
