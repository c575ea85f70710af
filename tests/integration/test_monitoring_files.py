"""Alert rules and Grafana dashboard: of metrics that exist, with queries that a real Prometheus answers."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from prometheus_client import REGISTRY

from faults import free_ports, wait_until
from streamflow import monitoring
from streamflow.errors import ErrorCode
from streamflow.settings import DEFAULT_PORTS, Settings
from streamflow.settings.alerting import AlertSettings

pytestmark = pytest.mark.integration

FILES = Path(__file__).parents[2] / "deploy" / "monitoring"
RULES: list[dict[str, Any]] = yaml.safe_load((FILES / "alerts.yml").read_text())["groups"][0][
    "rules"
]
DASHBOARD: dict[str, Any] = json.loads((FILES / "grafana-dashboard.json").read_text())
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
# `make prometheus` installs both.
PROMTOOL = shutil.which("promtool") or "promtool"
PROMETHEUS = shutil.which("prometheus") or "prometheus"
OF_PROMETHEUS = {"up", "process_cpu_seconds_total", "process_resident_memory_bytes"}
# What Grafana puts in.
VARIABLES = {"$__rate_interval": "1m", "$worker": ".*"}


def promtool(*arguments: str) -> None:
    done = subprocess.run(
        [PROMTOOL, *arguments], cwd=FILES, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


def query_of(expr: str) -> str:
    for name, value in VARIABLES.items():
        expr = expr.replace(name, value)
    return expr


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Prometheus with our rules, which scrapes this process as a worker; its address."""
    folder = tmp_path_factory.mktemp("prometheus")
    with monitoring.HealthServer(
        Settings(), 0, lambda: (True, "healthy"), lambda: (True, "ready")
    ) as server:
        config = yaml.safe_load((FILES / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "200ms", "evaluation_interval": "200ms"}
        config["rule_files"] = [str(FILES / "alerts.yml")]
        config["scrape_configs"][0]["static_configs"] = [
            {"targets": [f"127.0.0.1:{server.port}"], "labels": {"worker": "loader"}}
        ]
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        [port] = free_ports(1)
        url = f"http://127.0.0.1:{port}"
        command = [
            PROMETHEUS,
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            wait_until(lambda: _answers(f"{url}/-/ready"), 30)
            yield url
        finally:
            process.terminate()
            process.wait(30)


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).ok
    except requests.ConnectionError:
        return False


def asked(url: str, query: str) -> list[dict[str, Any]]:
    answer = requests.get(f"{url}/api/v1/query", params={"query": query}, timeout=10).json()
    assert answer["status"] == "success", (query, answer)
    return list(answer["data"]["result"])


def test_the_rules_are_valid_and_fire_when_they_should() -> None:
    promtool("check", "config", "prometheus.yml")
    promtool("test", "rules", "alerts.test.yml")
    tested = yaml.safe_load((FILES / "alerts.test.yml").read_text())["tests"]
    fired = {
        each["alertname"]
        for test in tested
        for each in test["alert_rule_test"]
        if each["exp_alerts"]
    }
    assert fired == {rule["alert"] for rule in RULES}


def test_the_dashboard_is_the_one_that_its_script_makes() -> None:
    made = [
        sys.executable,
        "-c",
        "import grafana_dashboard; print(grafana_dashboard.made(), end='')",
    ]
    done = subprocess.run(made, cwd=FILES, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == (FILES / "grafana-dashboard.json").read_text()


def test_rules_and_dashboard_ask_for_metrics_that_exist() -> None:
    suffixes = {"counter": ("_total",), "histogram": ("_bucket",)}
    known = OF_PROMETHEUS | {
        family.name + suffix
        for family in REGISTRY.collect()
        for suffix in suffixes.get(family.type, ("",))
    }
    text = " ".join([*QUERIES, *(rule["expr"] for rule in RULES)])
    wanted = set(re.findall(r"\b(?:streamflow|process)_\w+|\bup\b", text))
    assert len(wanted) > 10
    assert wanted - known == set()


def test_the_limits_of_the_rules_are_the_defaults_of_the_settings() -> None:
    limits, settings = {rule["alert"]: rule["expr"] for rule in RULES}, AlertSettings()
    assert limits["StreamFlowBehind"].endswith(f"> {settings.alert_lag_records:.0f}")
    assert limits["StreamFlowSlow"].strip().endswith(f"> {settings.alert_lag_seconds:.0f}")
    rejects = limits["StreamFlowRejects"]
    assert f"> {settings.alert_dead_letter_ratio}\n" in rejects
    assert rejects.strip().endswith(f">= {settings.alert_dead_letter_records}")
    assert set(re.findall(r"\[(\d+)m\]", rejects)) == {str(settings.alert_dead_letter_minutes)}


def test_the_targets_are_the_ports_of_a_stack() -> None:
    config = yaml.safe_load((FILES / "prometheus.yml").read_text())
    targets = {
        each["labels"]["worker"]: each["targets"]
        for each in config["scrape_configs"][0]["static_configs"]
    }
    assert targets == {
        name: [f"127.0.0.1:{DEFAULT_PORTS[port]}"]
        for name, port in [
            *((name, name) for name in ("producer", "validator", "analytics", "loader")),
            ("bridge", "bridge-health"),
        ]
    }


def test_every_series_of_a_code_is_there_before_its_first_record() -> None:
    for code in ErrorCode:
        value = REGISTRY.get_sample_value("streamflow_records_rejected_total", {"code": code.value})
        assert value is not None


def test_a_real_prometheus_answers_every_query(prometheus: str) -> None:
    monitoring.RECORDS_IN.labels("orders").inc(1_000)
    monitoring.RECORDS_OUT.labels("orders").inc(1_000)
    monitoring.LAG.labels("orders", "0").set(7)
    wait_until(lambda: bool(asked(prometheus, 'streamflow_lag_offsets{topic="orders"}')), 30)
    for query in [*QUERIES, *(rule["expr"] for rule in RULES)]:
        asked(prometheus, query_of(query))
    [ready] = asked(prometheus, query_of(QUERIES[0]))
    assert ready["value"][1] == "1"

    def health() -> list[str]:
        answer = requests.get(f"{prometheus}/api/v1/rules", timeout=10).json()
        return [rule["health"] for rule in answer["data"]["groups"][0]["rules"]]

    wait_until(lambda: health() == ["ok"] * len(RULES), 30)


def test_a_loss_is_an_alert_at_once(prometheus: str) -> None:
    monitoring.RECORDS_LOST.labels("orders", "retention").inc(40)

    def firing() -> set[str]:
        answer = requests.get(f"{prometheus}/api/v1/alerts", timeout=10).json()
        alerts = answer["data"]["alerts"]
        return {each["labels"]["alertname"] for each in alerts if each["state"] == "firing"}

    wait_until(lambda: "StreamFlowRecordsLost" in firing(), 30)


def test_the_page_lists_every_rule() -> None:
    page = (FILES.parents[1] / "docs" / "how-to" / "monitor.md").read_text()
    rules = [(rule["alert"], rule["labels"]["severity"]) for rule in RULES]
    assert re.findall(r"^ *\| `(StreamFlow\w+)` \| (\w+)", page, re.MULTILINE) == rules
