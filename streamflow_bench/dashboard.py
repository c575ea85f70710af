"""What the dashboard costs, and how soon it shows an event: run it beside a stack without any other
producer (``streamflow up --without producer``), since every event changes the figure.

    eval "$(streamflow env)"; python streamflow_bench/dashboard.py --url http://127.0.0.1:8501

It opens one and then ten sessions of the Live page in a headless Chromium, measures the server's CPU
time for 20 s each, and produces one event at a time and waits until the figure on the page changes.
Needs the development packages (`make setup-dev browser`).
"""

import json
import shutil
import statistics
import time
from datetime import UTC, datetime
from typing import Annotated, Any

import psutil
import typer
from playwright.sync_api import Browser, Page, sync_playwright

from streamflow.contract import format_time
from streamflow.kafka import clients
from streamflow.registry import load_streams
from streamflow.settings import Settings, load_process_settings
from streamflow_stack.preflight import owner

SECONDS = 20.0
TRIES = 20
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
STORED = ".st-key-figure-stored [data-testid=stMetricValue]"


def open_page(browser: Browser, url: str) -> Page:
    """A new session that shows its first figures."""
    page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
    page.goto(url)
    page.locator(STORED).wait_for(timeout=60_000)
    return page


def cpu(server: psutil.Process) -> float:
    """Share of one core, in percent."""
    server.cpu_percent()
    time.sleep(SECONDS)
    return float(server.cpu_percent())


def delays(settings: Settings, page: Page) -> list[float]:
    """Seconds from the acknowledgement of an event to the changed figure, sorted."""
    stream = load_streams(settings)[0]
    producer = clients.producer(settings)
    seconds = []
    for number in range(TRIES):
        before = page.locator(STORED).inner_text()
        event = {
            "id": number,
            "type": "USER_LOGIN",
            "user": "bench",
            "timestamp": format_time(datetime.now(UTC)),
        }
        producer.produce(stream.topic, json.dumps(event).encode(), b"bench")
        producer.flush(10)
        began = time.perf_counter()
        page.wait_for_function(
            "([path, before]) => document.querySelector(path).innerText !== before",
            arg=[STORED, before],
            timeout=30_000,
            polling=20,
        )
        seconds.append(time.perf_counter() - began)
        # At another moment of the poller's second each time.
        time.sleep(0.37)
    return sorted(seconds)


def main(
    url: Annotated[str, typer.Option(help="Of the dashboard.")] = "http://127.0.0.1:8501",
) -> None:
    """Measures, and prints one line of JSON."""
    settings = load_process_settings()
    port = int(url.rsplit(":", 1)[1].strip("/"))
    listening = owner(port)
    if listening is None:
        raise typer.BadParameter(f"no process listens on port {port}")
    server = psutil.Process(listening[1])
    result: dict[str, Any] = {}
    executable = next(filter(None, map(shutil.which, CHROMIUM)), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        result["cpu_percent_idle"] = cpu(server)
        page = open_page(browser, url)
        result["cpu_percent_1_session"] = cpu(server)
        seconds = delays(settings, page)
        result["seconds_to_page_p50"] = round(statistics.median(seconds), 3)
        result["seconds_to_page_p95"] = round(seconds[int(len(seconds) * 0.95) - 1], 3)
        pages = [open_page(browser, url) for _ in range(9)]
        result["cpu_percent_10_sessions"] = cpu(server)
        result["sessions"] = 1 + len(pages)
        result["server_threads"] = server.num_threads()
        result["server_rss_mb"] = round(server.memory_info().rss / 1e6)
        browser.close()
    result["load_average"] = psutil.getloadavg()[0]
    typer.echo(json.dumps(result))


if __name__ == "__main__":
    typer.run(main)
