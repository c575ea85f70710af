"""A dashboard as `streamflow dashboard` runs it, and a real browser that looks at it."""

import contextlib
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Locator, Page, WebSocketRoute, expect, sync_playwright
from playwright.sync_api import Error as BrowserError

from faults import wait_until
from pipeline import environment
from streamflow.settings import Settings

_LOG = logging.getLogger(__name__)

PATIENCE = 60_000  # milliseconds
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


class DashboardProcess:
    """One server; its pages are at `url`. Streamlit reads `folder`/.streamlit/secrets.toml."""

    def __init__(
        self,
        settings: Settings,
        port: int,
        log: Path,
        *,
        folder: Path | None = None,
        **changes: str,
    ) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "streamflow_cli.app", "dashboard", "--port", str(port)],
                cwd=folder,
                env=environment(settings, **changes),
                stdout=output,
                stderr=output,
            )

    def state(self) -> dict[str, Any]:
        """What ``/readyz`` answers; nothing while it does not."""
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=5) as answer:
                return dict(json.loads(answer.read()))
        except (urllib.error.URLError, OSError):
            return {}

    def sessions(self) -> int:
        """How many sessions have a page open, by Streamlit's own metrics."""
        with urllib.request.urlopen(f"{self.url}/_stcore/metrics", timeout=5) as answer:
            [line] = re.findall(rb"^active_sessions (\d+)$", answer.read(), re.MULTILINE)
        return int(line)

    def wait_ready(self) -> None:
        def ready() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            return bool(self.state().get("ready"))

        wait_until(ready, 60, "the dashboard to be ready")

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(15)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)


def chromium() -> str:
    """The browser on this machine; `make browser` installs one."""
    named = os.environ.get("CHROMIUM")
    found = named or next(filter(None, map(shutil.which, CHROMIUM)), None)
    assert found is not None, "no Chromium: run `make browser`, or set CHROMIUM to its path"
    return found


@contextlib.contextmanager
def open_browser(*arguments: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # Everything is on this machine, and a container has no user namespaces for the sandbox.
        browser = playwright.chromium.launch(
            executable_path=chromium(),
            args=["--no-sandbox", "--disable-dev-shm-usage", *arguments],
        )
        expect.set_options(timeout=PATIENCE)
        yield browser
        browser.close()


def figure(page: Page, name: str) -> Locator:
    """The value on a card."""
    return page.locator(f".st-key-figure-{name} [data-testid=stMetricValue]")


def note(page: Page, name: str) -> Locator:
    """What stands below the value on a card."""
    return page.locator(f".st-key-figure-{name} [data-testid=stMetricDelta]")


def card(page: Page, name: str) -> Locator:
    """A framed part of a page. While a run is under way it may be there twice: as it was, and as it is
    being drawn."""
    return page.locator(f".st-key-card-{name}").first


def take_picture(page: Page, name: str) -> None:
    """The whole page as an image in $SCREENSHOTS; does nothing where that is not set."""
    folder = os.environ.get("SCREENSHOTS")
    if folder is None:
        return
    before = page.viewport_size
    assert before is not None
    # Streamlit scrolls inside the page: to be seen at once, it must fit.
    tall = page.locator("[data-testid=stMain]").evaluate("main => main.scrollHeight")
    page.set_viewport_size({"width": before["width"], "height": int(tall) + 20})
    page.wait_for_timeout(1_500)  # for charts and tables to be drawn anew: only pictures need it
    page.screenshot(path=Path(folder, f"{name}.png"))
    page.set_viewport_size(before)


def wait_still(page: Page) -> None:
    """While Streamlit redraws a page, what is to be clicked may move away."""
    page.locator("[data-testid=stApp][data-test-script-state=notRunning]").wait_for()


def press(button: Locator) -> None:
    wait_still(button.page)
    button.click()


def log_messages(page: Page) -> None:
    """Logs what the browser's console says and when the page loses its connection: pytest shows it for
    a test that failed."""
    page.on("console", lambda message: _LOG.warning("console: %s", message.text))
    page.on(
        "websocket",
        lambda socket: socket.on("close", lambda _: _LOG.warning("closed: %s", socket.url)),
    )


class HeldLine:
    """What a page and its server say to each other; what the server says may be held back."""

    def __init__(self) -> None:
        self._page: WebSocketRoute | None = None
        self._held: list[str | bytes] | None = None
        self._asked = 0

    def connect(self, page: WebSocketRoute) -> None:
        self._page = page
        server = page.connect_to_server()

        def ask(message: str | bytes) -> None:
            self._asked += 1
            server.send(message)

        def answer(message: str | bytes) -> None:
            if self._held is None:
                page.send(message)
            else:
                self._held.append(message)

        page.on_message(ask)
        server.on_message(answer)

    def hold(self) -> None:
        self._held, self._asked = [], 0

    def asked(self, page: Page) -> int:
        """How often the page has asked for a run since `hold`."""
        page.wait_for_timeout(100)  # Playwright hears of messages only while it is called
        return self._asked

    def release(self) -> None:
        held, self._held = self._held, None
        assert self._page is not None
        for message in held or []:
            self._page.send(message)


def tick(page: Page, key: str, row: int, before: Callable[[], object] = lambda: None) -> None:
    """Selects a row of a table, counted from 0: a click on its box. `before` is called just before it."""
    grid = page.locator(f".st-key-{key} [data-testid=stDataFrame]").first
    wait_still(page)
    grid.wait_for()
    grid.scroll_into_view_if_needed()
    wait_still(page)
    box = grid.bounding_box()
    assert box is not None
    before()
    # It is drawn on a canvas: 35 pixels a row, and the head.
    page.mouse.click(box["x"] + 18, box["y"] + 35 * (row + 1) + 17)


def choose(page: Page, label: str, option: str) -> None:
    """Takes an option of a selection. A page that is still being drawn closes or moves the list: it is
    opened until the option could be clicked, as people do it."""
    field = page.get_by_label(label, exact=True)
    found = page.get_by_role("option", name=option)

    def clicked() -> bool:
        if not found.is_visible():
            field.click()
        try:
            found.click(timeout=2_000)
        except BrowserError:
            return False
        return True

    wait_until(clicked, PATIENCE / 1000, f"the option {option!r}")
    field.press("Escape")
