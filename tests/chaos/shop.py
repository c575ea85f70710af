"""The windows of the shop under faults, by a seed: workers and the broker are killed, a partition is added, a
second release takes over, dead letters are replayed. At the end every total is DuckDB's.

    PYTHONPATH=tests .venv/bin/python tests/chaos/shop.py --seed 7 --rounds 20

Exits 1 where a total is not DuckDB's, records of the analytics topic add up to something else, or the audit
is not closed.
"""

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from shop_checks import differences_of
from shop_rig import FIRST, SECOND, ShopRig

from services import BrokerService, DatabaseService
from shop_events import Shop, last_hour
from streamflow.settings import Settings

FAULTS = ("analytics", "analytics", "loader", "validator", "broker", "replay")
PAUSE_SECONDS = 3.0  # at most, until a fault


def play(rig: ShopRig, seed: int, number: int, faults: Sequence[str]) -> list[str]:
    """Sends so many events, in as many turns as there are faults; returns what is not as DuckDB has it."""
    rng, turns = random.Random(seed), len(faults)
    events = Shop(seed, last_hour()).events(number)
    # In one of the turns a partition is added, in another one there is a second release.
    grows, released = rng.sample(range(1, turns), 2)
    rig.start()
    for turn, fault in enumerate(faults):
        if turn == grows:
            rig.add_partition("orders")
        if turn == released:
            rig.release(SECOND, kill=rng.random() < 0.5)
            rig.compute_sessions()
        with rig.sending(events[turn * number // turns : (turn + 1) * number // turns]):
            rig.pause(rng.uniform(0, PAUSE_SECONDS))
            rig.inflict(fault, rng)
    rig.settle(events)
    return [*differences_of(rig, events), *rig.audit()]


def _round(
    broker: BrokerService,
    server: DatabaseService,
    directory: Path,
    seed: int,
    options: argparse.Namespace,
) -> list[str]:
    directory.mkdir()
    name = f"shop_{seed}"
    settings = Settings(
        KAFKA_BOOTSTRAP_SERVERS=broker.bootstrap,
        DATABASE_URL=server.create_database(name),
        STREAMFLOW_PREFIX=f"shop-{seed}.",
        STREAMFLOW_STATE_DIR=directory / "state",
        STREAMFLOW_STREAMS=",".join(FIRST),
    )
    rig = ShopRig(settings, broker, directory)
    faults = random.Random(seed).choices(FAULTS, k=options.turns)
    try:
        return play(rig, seed, options.events, faults)
    except (AssertionError, subprocess.SubprocessError) as error:
        return [f"the round did not end: {error}"]
    finally:
        rig.stop()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the first round")
    parser.add_argument("--events", type=int, default=6_000, help="of a round")
    parser.add_argument("--turns", type=int, default=8, help="of a round, each with a fault")
    parser.add_argument("--directory", type=Path, help="kept afterwards; else a temporary one")
    options = parser.parse_args()
    failed = 0
    with ExitStack() as cleanup:
        directory = options.directory or Path(
            cleanup.enter_context(tempfile.TemporaryDirectory(prefix="shop-"))
        )
        directory.mkdir(exist_ok=True)
        broker, server = (
            BrokerService(directory / "broker"),
            DatabaseService(directory / "database"),
        )
        for service in (broker, server):
            service.start()
            cleanup.callback(service.stop)
        for seed in range(options.seed, options.seed + options.rounds):
            began = time.monotonic()
            wrong = _round(broker, server, directory / str(seed), seed, options)
            failed += bool(wrong)
            say(
                f"seed {seed}: {'; '.join(wrong[:5]) or 'as DuckDB'} ({time.monotonic() - began:.0f} s)"
            )
    say(f"{options.rounds - failed} of {options.rounds} rounds as DuckDB")
    return 1 if failed else 0


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    # Ends what it has started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
