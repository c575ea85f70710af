"""Whose a name is, and whether that process runs no more."""

import os
import subprocess
import sys
import time

import psutil
import pytest

from streamflow_bench.leftovers import DAY, FOLDER, SCHEMA, TOPIC, Maker

ELSEWHERE = "00000000"


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (TOPIC, "bench-{}.filled.user-events"),
        (SCHEMA, "streamflow_bench_{}"),
        (FOLDER, "streamflow-bench-{}-ab"),
    ],
)
def test_a_name_says_who_made_it(kind: str, name: str) -> None:
    maker = Maker.this()
    assert maker.pid == os.getpid()
    assert Maker.read(kind, name.format(maker)) == maker
    # PostgreSQL cuts longer names off.
    assert len(name.format(maker)) < 64


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (TOPIC, "user-events"),
        (TOPIC, "bench-marks.user-events"),
        (TOPIC, "my-bench-0123456789abcdef1.x"),
        (TOPIC, "bench-0123456789abcdef1"),
        (TOPIC, "bench-0123456789ABCDEF1.x"),
        (SCHEMA, "streamflow_bench_results"),
        (SCHEMA, "streamflow_bench_0123456789abcdef1_kept"),
        (FOLDER, "streamflow-bench-0123456789abcdef1"),
    ],
)
def test_other_names_are_nobody_s_business(kind: str, name: str) -> None:
    assert Maker.read(kind, name) is None


def test_who_runs_is_not_gone() -> None:
    maker = Maker.this()
    assert not maker.is_gone(time.time())
    assert not maker.is_gone(maker.began + 10 * DAY)


def test_who_has_ended_is_gone() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        began = int(psutil.Process(process.pid).create_time())
        maker = Maker.this()._replace(pid=process.pid, began=began)
        assert not maker.is_gone(time.time())
    assert maker.is_gone(time.time())


def test_a_pid_that_is_another_process_now_is_gone() -> None:
    maker = Maker.this()
    assert maker._replace(began=maker.began - 60).is_gone(time.time())


def test_of_another_machine_it_is_gone_after_a_day() -> None:
    maker = Maker(1_000_000_000, ELSEWHERE, os.getpid())
    assert not maker.is_gone(maker.began + DAY - 1)
    assert maker.is_gone(maker.began + DAY + 1)
