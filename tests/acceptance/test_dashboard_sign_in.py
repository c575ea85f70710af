"""Sign-in at an identity provider (OIDC), in a real browser: who becomes what."""

import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from dashboards import PATIENCE, DashboardProcess, card, open_browser, press, take_picture
from faults import free_ports, wait_until
from streamflow.settings import Settings

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]

OPERATOR = "ann@example.com"
# By the provider's names: what it says of each, and what each may do then.
USERS: dict[str, tuple[dict[str, Any], str]] = {
    "ann": ({"email": OPERATOR, "email_verified": True, "name": "eve"}, "replay"),
    "eve": ({"email": "eve@example.com", "email_verified": True}, "look"),
    "unverified": ({"email": OPERATOR, "email_verified": False}, "look"),
    "nameless": ({"email_verified": True}, "nothing"),
    "misled": ({"email": OPERATOR, "email_verified": True, "aud": "another-client"}, "nothing"),
    "expired": ({"email": OPERATOR, "email_verified": True, "exp": 1_700_000_000}, "nothing"),
    "foreign": ({"email": OPERATOR, "iss": "https://other.example"}, "nothing"),
}
COOKIE_SECRET = "planted-cookie-secret-of-the-tests"
CLIENT_SECRET = "planted-client-secret-of-the-tests"


@pytest.fixture
def provider(tmp_path: Path) -> Iterator[str]:
    """An identity provider; its URL. Another site than the dashboard's, which is at 127.0.0.1."""
    [port] = free_ports(1)
    users = [
        argument
        for subject, (claims, _) in USERS.items()
        for argument in ("--user-claims", json.dumps({"sub": subject, **claims}))
    ]
    log = tmp_path / "provider.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "oidc_provider_mock", "--port", str(port), *users],
            stdout=output,
            stderr=output,
        )
    url = f"http://localhost:{port}"

    def answers() -> bool:
        assert process.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(f"{url}/jwks", timeout=5):
                return True
        except urllib.error.URLError:
            return False

    try:
        wait_until(answers, 60, "the provider to answer")
        yield url
    finally:
        process.kill()
        process.wait(10)


@pytest.fixture
def dashboard(provider: str, database_url: str, tmp_path: Path) -> Iterator[DashboardProcess]:
    """Without a broker, which the list of dead letters does not ask."""
    [port] = free_ports(1)
    secrets = tmp_path / ".streamlit" / "secrets.toml"
    secrets.parent.mkdir()
    secrets.touch(mode=0o600)
    secrets.write_text(
        "[auth]\n"
        f'redirect_uri = "http://127.0.0.1:{port}/oauth2callback"\n'
        f'cookie_secret = "{COOKIE_SECRET}"\n'
        'client_id = "streamflow"\n'
        f'client_secret = "{CLIENT_SECRET}"\n'
        f'server_metadata_url = "{provider}/.well-known/openid-configuration"\n'
    )
    made = DashboardProcess(
        Settings(
            DATABASE_URL=database_url,
            KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:9",
            STREAMFLOW_STATE_DIR=tmp_path / "state",
        ),
        port,
        tmp_path / "dashboard.log",
        folder=tmp_path,
        STREAMFLOW_DASHBOARD_SIGN_IN="oidc",
        STREAMFLOW_DASHBOARD_OPERATORS=OPERATOR,
        STREAMFLOW_DASHBOARD_PROBE="false",
    )
    try:
        made.wait_ready()
        yield made
    finally:
        made.kill()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as made:
        yield made


def test_who_becomes_what(dashboard: DashboardProcess, provider: str, browser: Browser) -> None:
    # One context: with the browser's cache, only the first page is slow.
    context = browser.new_context()
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    page.goto(f"{dashboard.url}/dead-letters")
    strip = page.locator(".sf-strip")
    sign_in = page.get_by_role("button", name="Sign in")
    for subject, (_, may) in USERS.items():
        expect(sign_in).to_be_visible()
        assert strip.count() == 0, "seen before signing in"
        if subject == "ann":
            take_picture(page, "sign-in")
        press(sign_in)
        page.wait_for_url(f"{provider}/**", wait_until="commit")
        page.get_by_role("button", name=subject, exact=True).click()
        page.wait_for_url(f"{dashboard.url}/**", wait_until="commit")
        if may == "nothing":
            if subject == "nameless":
                expect(card(page, "sign-in")).to_contain_text("no e-mail address")
                take_picture(page, "sign-in-without-address")
                assert sign_in.count() == 0
                assert strip.count() == 0
                sign_out(page, provider, dashboard)
            continue
        expect(strip).to_contain_text("ann, operator" if may == "replay" else ", viewer")
        press(page.get_by_role("link", name="Dead letters"))
        replaying = card(page, "replay")
        expect(replaying).to_contain_text(
            "today's contract" if may == "replay" else "Only operators can replay"
        )
        if subject == "unverified":
            expect(replaying).to_contain_text("does not say that it is verified")
        cookies = [one for one in context.cookies() if one["name"].startswith("_streamlit_user")]
        assert cookies
        assert all(one["httpOnly"] and one["sameSite"] == "Lax" for one in cookies)
        if may == "replay":
            sign_out(page, provider, dashboard)
        else:  # quicker
            context.clear_cookies()
            page.goto(dashboard.url)
    expect(sign_in).to_be_visible()
    assert strip.count() == 0
    log = dashboard.log.read_text()
    assert "read by others" not in log
    for secret in (COOKIE_SECRET, CLIENT_SECRET, OPERATOR):
        assert secret not in log


def sign_out(page: Page, provider: str, dashboard: DashboardProcess) -> None:
    press(page.get_by_role("button", name="Sign out"))
    page.wait_for_url(f"{provider}/**", wait_until="commit")
    page.goto(dashboard.url)
