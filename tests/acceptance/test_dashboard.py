"""The dashboard in a real browser, on a real pipeline: exact figures, loss and recovery, rights."""

import contextlib
import re
import signal
import subprocess
import sys
import threading
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import orjson
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

import two_streams
from dashboards import (
    PATIENCE,
    DashboardProcess,
    HeldLine,
    card,
    choose,
    figure,
    log_messages,
    note,
    open_browser,
    press,
    take_picture,
    tick,
    wait_still,
)
from faults import free_ports, wait_until
from loads import execute, rows, value
from pipeline import WorkerProcess, audit, count, environment, event, events, produce
from services import BrokerService, DatabaseService
from streamflow.kafka.topics import provision
from streamflow.postgres.schema import upgrade
from streamflow.privacy import Hasher
from streamflow.registry import load_streams
from streamflow.settings import Settings
from streamlit_app.measure.dagster import Dagster
from webhook import Webhook

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]

WORKERS = ("validator", "analytics", "loader")
ADDRESS = "needle@example.com"
CHECKS = 54
UNREAD = (
    "SELECT count(*) FROM dead_letters WHERE NOT EXISTS (SELECT FROM loader_positions"
    " WHERE topic = source_topic AND partition = source_partition AND next_offset > source_offset)"
)
# Each page, filled by the tests before, and what it shows when it is.
PAGES = {
    "": ".st-key-card-throughput canvas, .st-key-card-throughput svg",
    "inspector?mode=Live+tail": ".st-key-card-tail [data-testid=stDataFrame]",
    "windows?window_span=24+h&until=2026-03-02": "[data-window-total]",
    "dead-letters?status=any": ".st-key-card-letters [data-testid=stDataFrame]",
    "quality": ".st-key-card-checks tbody tr",
    "pipeline": ".st-key-card-flow svg",
    "alerts": ".st-key-card-active",
}


@dataclass
class Stage:
    """A pipeline with its dashboard, shared by the tests of this module."""

    settings: Settings
    dashboard: DashboardProcess
    directory: Path
    dagster_url: str
    webhook: Webhook
    contexts: list[BrowserContext] = field(default_factory=list)

    @property
    def topic(self) -> str:
        return f"{self.settings.prefix}user-events"

    def open(
        self, browser: Browser, path: str = "", line: HeldLine | None = None, **options: object
    ) -> Page:
        context = browser.new_context(viewport={"width": 1280, "height": 900}, **options)  # type: ignore[arg-type]
        context.set_default_timeout(PATIENCE)
        self.contexts.append(context)
        page = context.new_page()
        log_messages(page)
        if line is not None:
            page.route_web_socket(re.compile("/_stcore/stream"), line.connect)
        page.goto(f"{self.dashboard.url}/{path}")
        page.locator(".sf-strip").wait_for()
        return page

    def close_pages(self) -> None:
        """An open page costs a browser's time, also that of the next test."""
        while self.contexts:
            self.contexts.pop().close()


@pytest.fixture(scope="module")
def stage(
    broker: BrokerService,
    database_server: DatabaseService,
    database_template: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Stage]:
    directory = tmp_path_factory.mktemp("dashboard")
    name = f"dashboard_{uuid.uuid4().hex[:6]}"
    settings = Settings(
        KAFKA_BOOTSTRAP_SERVERS=broker.bootstrap,
        DATABASE_URL=database_server.create_database(name, database_template),
        STREAMFLOW_PREFIX=f"{name}.",
        STREAMFLOW_STATE_DIR=directory / "state",
        STREAMFLOW_STREAMS=two_streams.STREAMS,
    )
    streams = load_streams(settings)
    provision(settings, streams)
    upgrade(settings, streams)
    *ports, dashboard_port, dagster_port = free_ports(len(WORKERS) + 2)
    urls = ",".join(
        f"{worker}=http://127.0.0.1:{port}" for worker, port in zip(WORKERS, ports, strict=True)
    )
    with Webhook() as webhook, contextlib.ExitStack() as running:
        for worker, port in zip(WORKERS, ports, strict=True):
            process = WorkerProcess(
                settings, worker, directory / f"{worker}.log", "--health-port", str(port)
            )
            running.callback(process.kill)
        dashboard = DashboardProcess(
            settings,
            dashboard_port,
            directory / "dashboard.log",
            STREAMFLOW_WORKER_URLS=urls,
            STREAMFLOW_ALERT_FOR="2",
            STREAMFLOW_DAGSTER_URL=f"http://127.0.0.1:{dagster_port}",
            STREAMFLOW_WEBHOOK_URL=f"{webhook.url}/alerts",
        )
        running.callback(dashboard.kill)
        dashboard.wait_ready()
        yield Stage(settings, dashboard, directory, f"http://127.0.0.1:{dagster_port}", webhook)
        # SIGTERM ends threads and connections, and then the process.
        assert dashboard.stop() == 0
        assert "Traceback" not in dashboard.log.read_text(), dashboard.log.read_text()


@pytest.fixture(autouse=True)
def _close_pages(stage: Stage) -> Iterator[None]:
    yield
    stage.close_pages()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as opened:
        yield opened


def test_counters_reach_exactly_what_was_produced(stage: Stage, browser: Browser) -> None:
    page = stage.open(browser)
    total = page.locator(f'[data-total="{stage.topic}"]')
    expect(page.locator(".sf-strip")).to_contain_text("Kafka up")
    expect(page.locator(".sf-strip")).to_contain_text("3 of 3 workers ready")
    values, codes = events(1_000, invalid=0.05)
    produce(stage.settings, "user-events", values)
    expect(total).to_have_text("1,000")
    expect(figure(page, "stored")).to_have_text(f"{1000 - codes.total():,}")
    expect(figure(page, "letters")).to_have_text(str(codes.total()))
    for code, number in codes.items():
        expect(page.locator(".st-key-card-codes tr", has_text=code)).to_contain_text(str(number))
    report = audit(stage.settings)
    assert report.closed, report.problems
    proved = [each for each in report.partitions if each.topic == stage.topic]
    assert sum(each.records for each in proved) == 1_000
    row = page.locator(".st-key-card-totals tr", has_text=stage.topic)
    told = [int(text.replace(",", "")) for text in row.locator(".sf-num").all_inner_texts()]
    assert told[:4] == [
        1_000,
        sum(each.stored for each in proved),
        sum(each.dead_lettered for each in proved),
        sum(each.duplicate for each in proved),
    ]
    expect(card(page, "groups")).to_contain_text("OK")
    expect(figure(page, "probe")).to_have_text(re.compile(r"\d m?s"))


def test_one_stream_is_chosen_on_each_page(stage: Stage, browser: Browser) -> None:
    customers = ("ann", "<b>bob</b>", "cem")
    orders: list[bytes | None] = [
        orjson.dumps(
            {
                "type": "ORDER_PLACED",
                "customer": customers[number % 3],
                "amount_cents": 7,
                "items": [],
                "timestamp": f"2026-03-01T12:00:{number:02d}Z",
            }
        )
        for number in range(30)
    ]
    produce(stage.settings, "orders", [*orders, b'{"type": "ORDER_LOST"}', b"no JSON"])
    topic = f"{stage.settings.prefix}orders"
    page = stage.open(browser, "?stream=orders")
    expect(page.locator(f'[data-total="{topic}"]')).to_have_text("32")
    expect(page.locator(f'[data-total="{stage.topic}"]')).to_have_count(0)
    expect(figure(page, "stored")).to_have_text("30")
    expect(figure(page, "letters")).to_have_text("2")
    expect(card(page, "codes")).to_contain_text("INVALID_JSON")
    expect(page.locator("[data-testid=stMain]")).to_contain_text(
        "counted by customer in windows of 10 s · aggregated in orders_1min"
    )
    take_picture(page, "live-orders")
    choose(page, "Stream", "all streams")
    expect(page.locator(f'[data-total="{stage.topic}"]')).to_have_count(1)
    everything = count(stage.settings, "SELECT count(*) FROM events") + 30
    expect(figure(page, "stored")).to_have_text(f"{everything:,}")
    assert "stream=" not in page.url
    take_picture(page, "live-all-streams")

    page.goto(f"{stage.dashboard.url}/windows?stream=orders&window_span=24+h&until=2026-03-02")
    for customer in customers:
        total = page.locator(".st-key-card-totals tr", has_text=customer)
        expect(total.locator("[data-window-total]")).to_have_text("10")
    expect(card(page, "windows")).to_contain_text("Events by customer")
    assert page.locator("[data-window-total=USER_LOGIN]").count() == 0
    take_picture(page, "windows-orders")

    page.goto(f"{stage.dashboard.url}/dead-letters?stream=orders&status=any")
    wait_listed(page, 2)
    expect(page.locator('[data-status="open"]')).to_have_text("2")
    expect(card(page, "replay")).to_contain_text("Plans all 2 dead letters that match")
    assert all(each.startswith(f"{topic}/") for each in shown_ids(page, 2))
    take_picture(page, "dead-letters-orders")

    page.goto(f"{stage.dashboard.url}/pipeline?stream=orders")
    expect(page.locator(".st-key-card-flow svg")).to_contain_text("orders")
    take_picture(page, "pipeline-orders")
    page.goto(f"{stage.dashboard.url}/?stream=readings")
    expect(page.get_by_role("alert").filter(has_text="No such stream")).to_be_visible()


def test_every_aggregate_of_every_window_is_charted(stage: Stage, browser: Browser) -> None:
    """Of the orders of the test before: ten of 7 cents of each of three customers, in half a minute."""
    span = "window_span=24+h&until=2026-03-02"
    page = stage.open(browser, f"windows?stream=orders&windows=orders_1min&{span}")
    for customer in ("ann", "<b>bob</b>", "cem"):
        row = page.locator(".st-key-card-totals tr", has_text=f"{customer} · ORDER_PLACED")
        expect(row.locator("[data-window-total]")).to_have_text("70")
    expect(card(page, "windows")).to_contain_text("spent by customer and type")
    drawn(page)
    take_picture(page, "windows-spent")

    choose(page, "Aggregate", "amounts")
    values = page.locator(".st-key-card-totals tr", has_text="ann").locator("[data-window-total]")
    expect(values).to_have_text(["7", "7"])
    drawn(page)
    for choice in ("windows=orders_1min", "aggregate=amounts"):
        assert choice in page.url
    choose(page, "Aggregate", "opened_by")
    expect(card(page, "windows").locator("tbody tr").first).to_contain_text("ORDER_PLACED")
    take_picture(page, "windows-opened-by")

    # Another table has other aggregates.
    choose(page, "Windows", "orders_5min_by_1min")
    expect(card(page, "windows")).to_contain_text("which overlap")
    expect(page.locator("[data-window-total]")).to_have_text("3")
    drawn(page)
    choose(page, "Windows", "orders_sessions_30min")
    expect(page.locator("[data-testid=stMain]")).to_contain_text("No session is computed yet")
    choose(page, "Windows", "window_counts")
    expect(page.locator("[data-window-total]")).to_have_text(["10", "10", "10"])

    page.goto(f"{stage.dashboard.url}/windows?stream=orders&windows=orders_9min&{span}")
    expect(page.get_by_role("alert").filter(has_text="No such windows")).to_be_visible()

    topic = f"{stage.settings.prefix}orders"
    page.goto(f"{stage.dashboard.url}/inspector?mode=Search&topic={topic}&path=customer+%3D+ann")
    press(card(page, "controls").get_by_role("button", name="Search"))
    page.locator('[data-matches="10"]').wait_for()
    tick(page, "card-found", 0)
    for title in ("Window of orders_1min", "Pane of orders_5min_by_1min", "Session of orders_"):
        expect(card(page, "record")).to_contain_text(title)
    counted = re.compile(r"\d events? of ann · ORDER_PLACED")  # of its partition
    expect(card(page, "record")).to_contain_text(counted)


def drawn(page: Page) -> None:
    """Waits for the chart."""
    chart = page.locator(".st-key-card-windows").locator("canvas, svg")
    expect(chart.first).to_be_visible()


def test_it_moves_every_second_and_keeps_what_was_chosen(stage: Stage, browser: Browser) -> None:
    page = stage.open(browser)
    press(page.locator(".st-key-span").get_by_role("radio", name="5 min", exact=True))
    press(page.get_by_role("radio", name="offsets"))
    stamps = set()

    def moved() -> bool:
        stamps.add(page.locator(".sf-strip .sf-stamp").get_attribute("data-sequence"))
        return len(stamps) > 4

    wait_until(moved, 30, "five updates")
    assert (
        page.locator(".st-key-span")
        .get_by_role("radio", name="5 min", exact=True)
        .get_attribute("aria-checked")
        == "true"
    )
    assert page.get_by_role("radio", name="offsets").get_attribute("aria-checked") == "true"
    assert "span=5+min" in page.url


def test_a_search_finds_one_record_among_50_000(stage: Stage, browser: Browser) -> None:
    hashed = Hasher().hash(ADDRESS)
    needle = event(777).replace(b"a" * 64, hashed.encode())
    values: list[bytes | None] = [*events(25_000, seed=2)[0], needle, *events(25_000, seed=3)[0]]
    produce(stage.settings, "user-events", values)
    page = stage.open(browser, f"inspector?mode=Search&text={hashed}&path=id+%3D+777")
    search = card(page, "controls").get_by_role("button", name="Search")
    search.wait_for()
    press(search)
    page.locator('[data-matches="1"]').wait_for()
    expect(card(page, "found")).to_contain_text(re.compile(r"scanned 5\d,\d{3}"))

    tick(page, "card-found", 0)
    way = card(page, "record")
    expect(way).to_contain_text('"id": 777')
    for step in ("Entered the log", "Notification", "Row"):
        expect(way).to_contain_text(step)


def test_the_tail_follows_and_filters(stage: Stage, browser: Browser) -> None:
    page = stage.open(browser, "inspector?path=id+%3D+4242")
    tail = card(page, "tail")
    expect(tail).to_contain_text("following")
    expect(tail).to_contain_text("No record")
    produce(stage.settings, "user-events", [event(4242)])
    expect(tail).to_contain_text("1 of the last")
    tick(page, "card-tail", 0)
    expect(tail).to_contain_text("paused while a record is selected")
    expect(card(page, "record")).to_contain_text('"id": 4242')
    tick(page, "card-tail", 0)
    expect(tail).to_contain_text("following")


def test_the_tail_pauses_at_a_record_whatever_the_line_delays(
    stage: Stage, browser: Browser
) -> None:
    line = HeldLine()
    page = stage.open(browser, "inspector?path=id+%3D+4243", line=line)
    tail = card(page, "tail")
    produce(stage.settings, "user-events", [event(4243)])
    expect(tail).to_contain_text("1 of the last")
    # Not earlier: a page that is told that it runs, and not that it is done, is never still.
    tick(page, "card-tail", 0, before=line.hold)
    # The choice itself, and runs that the page begins before it knows what the choice has led to.
    wait_until(lambda: line.asked(page) >= 4, 30, "the page to have run again")
    line.release()
    expect(tail).to_contain_text("paused")
    expect(card(page, "record")).to_contain_text('"id": 4243')
    # Each second, a new run: it is still so after three of them.
    line.hold()
    wait_until(lambda: line.asked(page) >= 3, 30, "three more runs")
    line.release()
    wait_still(page)
    expect(tail).to_contain_text("paused")


def test_windows_tell_what_the_table_tells(stage: Stage, browser: Browser) -> None:
    page = stage.open(browser, "windows?window_span=24+h&until=2026-03-02")
    wait_until(
        lambda: count(stage.settings, "SELECT coalesce(sum(count), 0) FROM window_counts") > 50_000,
        60,
        "the windows to close",
    )
    for kind in ("USER_LOGIN", "USER_SIGNUP"):
        expected = count(
            stage.settings,
            f"SELECT sum(count) FROM window_counts WHERE event_type = '{kind}'",
        )
        shown = page.locator(f'[data-window-total="{kind}"]')
        expect(shown).to_have_text(f"{expected:,}")


def test_dead_letters_show_no_address_and_what_to_do(stage: Stage, browser: Browser) -> None:
    page = stage.open(browser, "dead-letters?codes=CLEAR_TEXT_PII")
    tick(page, "card-letters", 0)
    letter = card(page, "letter")
    expect(letter).to_contain_text("addresses replaced by their hashes")
    expect(letter).to_contain_text("Rejected by the validator")
    assert "ann@example.com" not in page.content()
    expect(card(page, "replay")).to_contain_text("Plans the 1 selected dead letter")
    press(page.get_by_role("button", name="Plan (dry run)"))
    # No Dagster runs in this test: the page says so, and what to do.
    expect(card(page, "replay")).to_contain_text("streamflow up")


def test_what_a_press_led_to_is_shown_whatever_is_clicked_meanwhile(
    stage: Stage, browser: Browser
) -> None:
    bury(stage, "meanwhile", 2)
    page = stage.open(browser, "dead-letters?letter_text=meanwhile")
    wait_listed(page, 2)
    form = card(page, "replay")
    tick(page, "card-letters", 0)
    expect(form).to_contain_text("Plans the 1 selected dead letter")
    asked, ended = threading.Event(), threading.Event()

    class SlowDagster(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.set()
            ended.wait(4)
            self.send_error(500)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(
        ("127.0.0.1", int(stage.dagster_url.rpartition(":")[2])), SlowDagster
    ) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            press(page.get_by_role("button", name="Plan (dry run)"))
            assert asked.wait(30)
            tick(page, "card-letters", 1)
            expect(form).to_contain_text("No run was started in Dagster")
        finally:
            ended.set()
            server.shutdown()
            thread.join()


def bury(stage: Stage, mark: str, number: int) -> None:
    """Sends events without a zone, and waits until they are dead letters."""
    values = [
        f'{{"id":{each},"type":"USER_LOGIN","user":"{mark}","timestamp":"2026-03-01T12:00:00"}}'
        for each in range(number)
    ]
    before = len(dead_letters(stage, mark))
    produce(stage.settings, "user-events", [each.encode() for each in values])
    wait_until(lambda: len(dead_letters(stage, mark)) == before + number, 60, "the dead letters")
    wait_until(lambda: value(stage.settings, UNREAD) == 0, 60, "the loader to pass the records")


def dead_letters(stage: Stage, mark: str) -> set[str]:
    """The ids of the open dead letters of that mark."""
    return ids(stage, f"dead_letters WHERE status = 'open' AND position('{mark}' IN value) > 0")


def ids(stage: Stage, source: str) -> set[str]:
    query = f"SELECT source_topic, source_partition, source_offset FROM {source}"
    return {"/".join(map(str, row)) for row in rows(stage.settings, query)}


def shown_ids(page: Page, number: int) -> list[str]:
    """The ids of the first so many in the list of dead letters."""
    # Drawn on a canvas; its content for screen readers, which comes a little later, has the texts.
    cells = page.locator(".st-key-card-letters [data-testid^=glide-cell]")

    def found() -> list[str]:
        return [each for each in cells.all_text_contents() if re.fullmatch(r"\S+/\d+/\d+", each)]

    wait_until(lambda: len(found()) >= number, 30, "the ids on the page")
    return found()[:number]


def plan_on(page: Page) -> None:
    """Plans what the page says, and waits until it is planned."""
    choose(page, "Repairs, in this order", "add_zone: ")
    expect(page.locator(".st-key-repairs")).to_contain_text("add_zone")
    press(page.get_by_role("button", name="Plan (dry run)"))
    expect(page.locator("[data-run-status]")).to_have_attribute(
        "data-run-status", re.compile("SUCCESS|FAILURE"), timeout=90_000
    )
    expect(page.locator("[data-run-status]")).to_have_attribute("data-run-status", "SUCCESS")


def replay_on(stage: Stage, page: Page) -> set[str]:
    """Presses the button, and waits for the replay's end; returns the ids that it took."""
    replays = value(stage.settings, "SELECT count(*) FROM replays WHERE state <> 'running'")
    press(page.get_by_role("button", name=re.compile("^Replay")))
    wait_until(
        lambda: (
            value(stage.settings, "SELECT count(*) FROM replays WHERE state <> 'running'") > replays
        ),
        120,
        "the replay to end",
    )
    return ids(stage, "replay_records WHERE replay_id = (SELECT max(id) FROM replays)")


def wait_listed(page: Page, number: int) -> None:
    """Refreshes until the list has so many dead letters."""
    letters = card(page, "letters")
    expected = re.compile(rf"\b{number} (dead )?letters?\b")

    def listed() -> bool:
        try:
            expect(letters).to_contain_text(expected, timeout=5_000, use_inner_text=True)
        except AssertionError:
            press(letters.get_by_role("button", name="Refresh"))
            return False
        return True

    wait_until(listed, 60, f"{number} dead letters on the page")


def test_dead_letters_are_replayed_by_clicking(
    stage: Stage, browser: Browser, dagster: str
) -> None:
    before = count(stage.settings, "SELECT count(*) FROM events")
    bury(stage, "zoneless", 3)
    page = stage.open(browser, "dead-letters?letter_text=zoneless")
    wait_listed(page, 3)
    form = card(page, "replay")
    expect(form).to_contain_text("Plans all 3 dead letters that match the filter above")
    for row in range(3):
        tick(page, "card-letters", row)
        expect(form).to_contain_text(f"Plans the {row + 1} selected dead letter")
    replay = page.get_by_role("button", name=re.compile("^Replay"))
    expect(replay).to_have_count(0)
    plan_on(page)
    expect(page.get_by_role("link", name="in Dagster")).to_have_attribute(
        "href", re.compile(re.escape(dagster))
    )
    assert count(stage.settings, "SELECT count(*) FROM events") == before
    plan = value(stage.settings, "SELECT max(id) FROM replay_plans")
    expect(replay).to_have_text(re.compile(f"Replay plan {plan}: 3 dead letters"))

    # What is changed is not what was planned: the button is gone until it is planned again.
    tick(page, "card-letters", 2)
    expect(form).to_contain_text("Plans the 2 selected dead letters")
    expect(replay).to_have_count(0)
    tick(page, "card-letters", 2)
    expect(replay).to_have_count(1)
    take_picture(page, "replay-planned")

    assert len(replay_on(stage, page)) == 3
    expect(page.locator('[data-status="replayed"]')).to_have_text("3", timeout=60_000)
    expect(replay).to_have_count(0)
    history = card(page, "history")
    expect(history).to_contain_text("anonymous")
    expect(history).to_contain_text(f"plan {plan}")
    expect(history).to_contain_text("3 stored")
    take_picture(page, "replay-applied")


def test_a_replay_acts_on_the_ticked_dead_letters_under_traffic(
    stage: Stage, browser: Browser, dagster: str
) -> None:
    assert dagster
    bury(stage, "underhand", 4)
    page = stage.open(browser, "dead-letters?letter_text=underhand")
    wait_listed(page, 4)
    ticked = shown_ids(page, 3)
    for row in range(3):
        tick(page, "card-letters", row)
        expect(card(page, "replay")).to_contain_text(f"{row + 1} selected")
    bury(stage, "underhand", 6)

    plan_on(page)
    bury(stage, "underhand", 2)
    # Refreshed, the list has them all at other places; what is ticked is what was.
    press(card(page, "letters").get_by_role("button", name="Refresh"))
    expect(card(page, "letters")).to_contain_text("12 dead letters")
    expect(card(page, "replay")).to_contain_text("Plans the 3 selected")
    assert not set(shown_ids(page, 3)) & set(ticked)
    take_picture(page, "replay-refreshed")

    assert replay_on(stage, page) == set(ticked)
    assert len(dead_letters(stage, "underhand")) == 4 + 6 + 2 - 3


def test_a_replay_without_selection_takes_what_the_filter_shows(
    stage: Stage, browser: Browser, dagster: str
) -> None:
    assert dagster
    bury(stage, "otherword", 2)
    bury(stage, "timeword", 3)
    execute(
        stage.settings,
        "UPDATE dead_letters SET failed_at = failed_at - interval '2 hours',"
        " appended_at = appended_at - interval '2 hours' WHERE position('timeword' IN value) > 0",
    )
    old = dead_letters(stage, "timeword")
    bury(stage, "timeword", 2)
    recent = dead_letters(stage, "timeword") - old
    page = stage.open(browser, "dead-letters?letter_text=timeword")
    choose(page, "From", "the time above")
    wait_listed(page, 2)
    # Came after the list was made, so it is not what it shows.
    bury(stage, "timeword", 1)

    plan_on(page)

    assert replay_on(stage, page) == recent


@pytest.fixture(scope="module")
def dagster(stage: Stage) -> Iterator[str]:
    """The webserver of Dagster with all that StreamFlow defines; the address at which it answers."""
    home = stage.directory / "dagster"
    home.mkdir()
    # Without a queue no daemon is needed.
    (home / "dagster.yaml").write_text(
        "telemetry: {enabled: false}\n"
        "run_coordinator: {module: dagster._core.run_coordinator, class: DefaultRunCoordinator}\n"
    )
    log = stage.directory / "dagster.log"
    port = stage.dagster_url.rpartition(":")[2]
    with log.open("ab") as output:
        process = subprocess.Popen(
            [
                *(
                    sys.executable,
                    "-m",
                    "streamflow_dagster.webserver",
                    "-m",
                    "streamflow_dagster.definitions",
                ),
                *("-h", "127.0.0.1", "-p", port),
            ],
            env=environment(stage.settings, DAGSTER_HOME=str(home)),
            stdout=output,
            stderr=output,
        )
    try:
        wait_until(lambda: answers(f"{stage.dagster_url}/server_info"), 90, "Dagster to answer")
        yield stage.dagster_url
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except OSError:
        return False


def test_quality_shows_what_dagster_found(stage: Stage, browser: Browser, dagster: str) -> None:
    page = stage.open(browser, "quality")
    expect(page.locator(".st-key-card-checks tbody tr")).to_have_count(CHECKS)
    run_id = Dagster(dagster).launch("data_quality", {})

    def results() -> list[int]:
        names = ("passed", "failed", "warnings")
        return [int(figure(page, name).first.inner_text().replace("—", "0")) for name in names]

    # While the run goes on, its checks are none of these. Some look at the traffic of the last
    # minutes, of which this stage has none.
    wait_until(lambda: sum(results()) == CHECKS, 150, "a result of every check")
    expect(figure(page, "never-run")).to_have_text("0")
    checks = page.locator(".st-key-card-checks tbody tr")
    for name in ("ledger_closes", "windows_equal_events", "no_gaps"):
        row = checks.filter(has_text=name).filter(has_text="postgres/").first
        expect(row).to_contain_text("passed")
        expect(row.get_by_role("link")).to_have_attribute("href", f"{dagster}/runs/{run_id}")
    closing = checks.filter(has_text="ledger_closes")
    expect(closing).to_have_count(2)  # one for each stream
    for row in closing.all():
        expect(row).to_contain_text("each accounted for exactly once")
    assert results()[0] == checks.filter(has_text="passed").count()


@pytest.mark.parametrize(
    ("scheme", "width"),
    [
        ("light", 1280),
        ("dark", 390),
        pytest.param("light", 390, marks=pytest.mark.chaos),
        pytest.param("dark", 1280, marks=pytest.mark.chaos),
    ],
)
def test_every_page_fits_and_asks_nobody_outside(
    stage: Stage, browser: Browser, dagster: str, scheme: str, width: int
) -> None:
    assert dagster
    page = stage.open(browser, "", color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 844})
    outside: list[str] = []
    page.on(
        "request",
        lambda request: (
            outside.append(request.url)
            if not request.url.startswith((stage.dashboard.url, "data:", "blob:"))
            else None
        ),
    )
    for path, content in PAGES.items():
        page.goto(f"{stage.dashboard.url}/{path}")
        page.locator(".sf-strip").wait_for()
        page.locator(content).first.wait_for()
        assert page.locator("[data-testid=stException]").count() == 0, path
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
        take_picture(page, f"{path.partition('?')[0] or 'live'}-{scheme}-{width}")
    assert outside == []


@pytest.mark.chaos
def test_many_sessions_cost_no_threads_or_connections(stage: Stage, browser: Browser) -> None:
    open_connections = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND application_name = 'streamflow-dashboard'"
    )

    def threads_after_three_sessions() -> int:
        wait_until(lambda: stage.dashboard.sessions() == 0, 60, "earlier sessions to end")
        for page in [stage.open(browser) for _ in range(3)]:
            expect(figure(page, "stored")).not_to_have_text("—")
        assert count(stage.settings, open_connections) == 1
        assert stage.dashboard.sessions() == 3
        stage.close_pages()
        # Without its page, a session runs no script and needs no thread.
        wait_until(lambda: stage.dashboard.sessions() == 0, 60, "the sessions to end")
        return int(stage.dashboard.state()["threads"])

    # The first ones may widen a pool.
    threads = threads_after_three_sessions()
    wait_until(lambda: threads_after_three_sessions() <= threads, 60, "the threads to end")


def test_sign_in_and_roles(stage: Stage, browser: Browser) -> None:
    [port] = free_ports(1)
    dashboard = DashboardProcess(
        stage.settings,
        port,
        stage.directory / "token.log",
        STREAMFLOW_DASHBOARD_SIGN_IN="token",
        STREAMFLOW_DASHBOARD_OPERATOR_TOKEN="open-sesame",
        STREAMFLOW_DASHBOARD_VIEWER_TOKEN="let-me-see",
        STREAMFLOW_DASHBOARD_PROBE="false",
    )
    try:
        dashboard.wait_ready()
        for token, may_replay in (("let-me-see", False), ("open-sesame", True)):
            context = browser.new_context()
            stage.contexts.append(context)
            page = context.new_page()
            page.goto(f"{dashboard.url}/dead-letters")
            field = page.get_by_label("Token")
            field.fill("guess")
            field.press("Enter")
            expect(page.get_by_text("This token is not valid.")).to_be_visible()
            assert page.locator(".sf-strip").count() == 0
            field.fill(token)
            field.press("Enter")
            replay = card(page, "replay")
            expect(replay).to_contain_text(
                "today's contract" if may_replay else "Only operators can replay"
            )
            plan = page.get_by_role("button", name="Plan (dry run)")
            expect(plan).to_have_count(int(may_replay))
        assert "open-sesame" not in dashboard.log.read_text()
    finally:
        dashboard.kill()


def test_it_says_that_the_database_is_gone_and_recovers(
    stage: Stage, browser: Browser, database_server: DatabaseService
) -> None:
    page = stage.open(browser)
    expect(figure(page, "stored")).not_to_have_text("—")
    stored = figure(page, "stored").inner_text()
    database_server.kill()
    try:
        expect(page.locator(".sf-strip")).to_contain_text("PostgreSQL does not answer, last seen")
        expect(figure(page, "stored")).to_have_text("—")
        expect(note(page, "stored")).to_contain_text(f"last {stored}, ")
        expect(note(page, "stored")).to_contain_text("ago")
        # What the broker tells stays current, also what arrives now.
        produce(stage.settings, "user-events", [event(2)])
        expect(figure(page, "rate")).to_contain_text("events/s")
        expect(card(page, "groups")).to_contain_text("db-group")
        page.get_by_role("link", name="Dead letters").click()
        expect(page.get_by_role("alert").filter(has_text="does not answer").first).to_be_visible()
        page.get_by_role("link", name="Live").click()
    finally:
        database_server.start()
    expect(page.locator(".sf-strip")).to_contain_text("PostgreSQL up")
    expect(figure(page, "stored")).to_have_text(f"{int(stored.replace(',', '')) + 1:,}")


def test_it_says_that_the_broker_is_gone_and_recovers(
    stage: Stage, browser: Browser, broker: BrokerService
) -> None:
    page = stage.open(browser)
    expect(figure(page, "rate")).to_contain_text("events/s")
    stored = figure(page, "stored").inner_text()
    broker.kill()
    try:
        expect(page.locator(".sf-strip")).to_contain_text("Kafka does not answer, last seen")
        expect(figure(page, "rate")).to_have_text("—")
        expect(note(page, "rate")).to_contain_text("events/s, ")
        expect(note(page, "rate")).to_contain_text("ago")
        # What the database tells stays current, and an alert says what is wrong.
        expect(figure(page, "stored")).to_have_text(stored)
        alerts = page.locator(".st-key-strip [role=alert]")
        expect(alerts.filter(has_text="kafka is down")).to_be_visible()
        page.get_by_role("link", name="Alerts").click()
        expect(card(page, "active")).to_contain_text("kafka is down")
        page.get_by_role("link", name="Live").click()
    finally:
        broker.start()
    expect(page.locator(".sf-strip")).to_contain_text("Kafka up")
    expect(figure(page, "rate")).to_contain_text("events/s")
    produce(stage.settings, "user-events", [event(1)])
    expected = f"{int(stored.replace(',', '')) + 1:,}"
    expect(figure(page, "stored")).to_have_text(expected)
    expect(page.locator(".sf-strip")).to_contain_text("no alerts")
    # The webhook was told of the change, and of its end, once each.
    told = [
        body["state"]
        for _, body in stage.webhook.bodies
        if (body["rule"], body["subject"]) == ("part down", "kafka")
    ]
    assert told == ["firing", "resolved"]
    page.get_by_role("link", name="Alerts").click()
    expect(card(page, "history")).to_contain_text("kafka is down")
    expect(card(page, "webhook")).to_contain_text("kafka is down")
