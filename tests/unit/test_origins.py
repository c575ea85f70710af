"""Which hosts a server answers under, and whose pages may use it."""

import pytest
import requests

from faults import free_ports
from streamflow.monitoring import HealthServer
from streamflow.origins import SECURITY_HEADERS, Hosts, HttpRequest, refusal
from streamflow.settings import Settings

HOSTS = Hosts.of(
    "the service", "THE_SETTING", own=("", "Box.example.com"), listed=("web.example.com", "in:80")
)


def asked(*hosts: str, **headers: str) -> HttpRequest:
    return HttpRequest(
        "GET", "/", "", {"host": hosts, **{name: (each,) for name, each in headers.items()}}
    )


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:1",
        "10.1.2.3",
        "[::1]:9100",
        "[fd00::1]",
        "localhost",
        "LOCALHOST.:8501",
        "in:80",
        "box.example.com",
        "web.example.com:1",
        "WEB.example.com.",
    ],
)
def test_addresses_and_known_names_are_served(host: str) -> None:
    assert refusal(asked(host), HOSTS) is None


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "",
        "in:81",
        "127.0.0.1.evil.example",
        "0x7f.0.0.1",
        "a@127.0.0.1",
        "127.1:80",
        "web.example.com.evil.example",
        "box",
        "evil.localhost",
        "127.0.0.1:80:80",
        "[evil]:80",
    ],
)
def test_other_names_are_refused(host: str) -> None:
    why = refusal(asked(host), HOSTS)
    assert why is not None
    assert "THE_SETTING" in why
    assert "\n" not in why


def test_two_hosts_are_none() -> None:
    assert refusal(asked("127.0.0.1", "evil.example"), HOSTS) is not None


@pytest.mark.parametrize(
    ("origin", "may"),
    [
        ("http://127.0.0.1:8501", True),
        ("http://127.0.0.1:8502", False),
        ("http://127.0.0.1", False),
        ("http://localhost:8501", False),
        ("https://web.example.com", True),
        ("https://web.example.com:444", False),
        ("http://in", False),
        ("null", False),
        ("file://127.0.0.1:8501", False),
        ("http://evil.example", False),
    ],
)
def test_a_page_sends_requests_where_it_came_from(origin: str, may: bool) -> None:
    assert (refusal(asked("127.0.0.1:8501", origin=origin), HOSTS) is None) == may


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:9100", 200),
        # A probe of Kubernetes, a service of compose, what is configured.
        ("10.244.0.17:9100", 200),
        ("validator:9100", 200),
        ("metrics.example.com", 200),
        ("evil.example:9100", 403),
        ("validator.evil.example", 403),
    ],
)
def test_a_worker_is_not_read_under_a_rebound_name(host: str, status: int) -> None:
    def good() -> tuple[bool, str]:
        return (True, "ready")

    [port] = free_ports(1)
    settings = Settings(STREAMFLOW_HEALTH_HOSTS="metrics.example.com")
    with HealthServer(settings, port, good, good):
        for path in ("/health", "/ready", "/metrics"):
            answer = requests.get(
                f"http://127.0.0.1:{port}{path}", headers={"Host": host}, timeout=10
            )
            assert answer.status_code == status
            assert set(SECURITY_HEADERS) <= set(answer.headers.lower_items())
            assert ("STREAMFLOW_HEALTH_HOSTS" in answer.text) == (status == 403)
