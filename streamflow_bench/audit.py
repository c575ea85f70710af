"""What an audit costs: processor time of `streamflow audit` and of PostgreSQL, for each record of Kafka."""

import json
import os
import resource
import statistics
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from typing import Any, Final

from psycopg import sql

from streamflow.errors import StreamFlowError
from streamflow.postgres.connections import session
from streamflow.postgres.row_counts import counted_tables
from streamflow.privacy import Hasher
from streamflow.registry import hasher_for, load_streams
from streamflow.settings import Settings
from streamflow.units import counted
from streamflow_bench import limits
from streamflow_bench.leftovers import remove_leftovers
from streamflow_bench.sandbox import Sandbox
from streamflow_bench.sources import Sources
from streamflow_bench.usage import POSTGRESQL, Meter
from streamflow_bench.watching import loader_progress, looks, running
from streamflow_stack.process import own_command
from streamflow_stack.signals import StopSignals

BAR: Final = 2.0  # µs of processor time for each record
_WAIT: Final = 120  # seconds for the workers to be done

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class AuditRun:
    """One audit.

    Attributes:
        records: of Kafka, in all topics; an event has a notification beside it.
        process: seconds of processor time of the command.
        database: of PostgreSQL; None if it is not on this machine.
        wall: seconds from start to end.
        verdict: as the audit says it.
    """

    records: int
    process: float
    database: float | None
    wall: float
    verdict: str

    @property
    def cost(self) -> float | None:
        """Microseconds of processor time for each record; None if one part is not known."""
        if self.database is None:
            return None
        return 1e6 * (self.process + self.database) / self.records


@dataclass(frozen=True, kw_only=True)
class AuditCost:
    """The audits of one number of events."""

    events: int
    runs: list[AuditRun]

    @property
    def cost(self) -> float | None:
        """The median."""
        costs = [run.cost for run in self.runs if run.cost is not None]
        return statistics.median(costs) if costs else None

    @property
    def met(self) -> bool | None:
        """Whether the bar is met; None if that cannot be said."""
        if any(run.verdict != "closed" for run in self.runs):
            return False
        return None if self.cost is None else self.cost <= BAR

    def as_dict(self) -> dict[str, Any]:
        runs = [asdict(run) | {"us_a_record": run.cost} for run in self.runs]
        return {"events": self.events, "us_a_record": self.cost, "met": self.met, "runs": runs}


def measure_audit(settings: Settings, events: int, runs: int, say: Say) -> AuditCost:
    """Fills topics and tables of its own by real workers, audits them, and removes everything.

    Raises:
        ConfigurationError: Kafka or PostgreSQL do not let it create topics or a schema of its own.
        StreamFlowError: a worker has ended, or an audit could not be made.
    """
    with StopSignals() as signals, closing(Sandbox(settings)) as sandbox:
        with signals.interrupting():
            for removed in remove_leftovers(settings, database=True):
                say(removed)
            sandbox.claim_schema()
            say(f"preparing {counted(events, 'event')}")
            stored = _filled(sandbox, events, hasher_for(settings, load_streams(settings)), say)
            measured = []
            for number in range(1, runs + 1):
                run = _audit(sandbox, stored)
                measured.append(run)
                say(f"audit, run {number} of {runs}: {words(run)}")
        say("removing topics, groups and tables")
    return AuditCost(events=events, runs=measured)


def words(run: AuditRun) -> str:
    database = "unknown" if run.database is None else f"{run.database:.1f} s"
    cost = "unknown" if run.cost is None else f"{run.cost:.2f} µs"
    return (
        f"{run.verdict}, {counted(run.records, 'record')}: the audit takes {run.process:.1f} s, "
        f"PostgreSQL {database}, {cost} a record, in {run.wall:.1f} s"
    )


def _filled(sandbox: Sandbox, events: int, hasher: Hasher, say: Say) -> Settings:
    """Settings of topics and tables that hold all events and all that is made of them."""
    sources = Sources(sandbox.directory, events, hasher)
    settings = sandbox.with_schema(sandbox.settings_with_topics("audit"))
    [stream] = load_streams(settings)
    limits.bare_produce(settings, stream.topic, sources.records())
    with ExitStack() as stack:
        workers = [
            stack.enter_context(running(sandbox, settings, "worker", name))
            for name in ("validator", "analytics", "loader")
        ]
        # A rejected event has no notification.
        for topic, records in ((stream.topic, events), (stream.notifications_topic, sources.valid)):
            done = stack.enter_context(loader_progress(settings, topic))
            for _ in looks(workers, done, records):
                pass
        # Waits for what is still to be done, windows of the last events among it.
        say(words(_audit(sandbox, settings, _WAIT)))
    _vacuum(settings)
    return settings


def _vacuum(settings: Settings) -> None:
    """What autovacuum does within a minute. Until then an index alone does not say which rows are there; and
    its own work, a third of an audit's, would count as that of the audit that it falls into."""
    with session(settings, "bench") as connection:
        for table in counted_tables(load_streams(settings)):
            statement = sql.SQL("VACUUM (ANALYZE) {}").format(sql.Identifier(table))
            connection.execute(statement)


def _audit(sandbox: Sandbox, settings: Settings, wait: int = 0) -> AuditRun:
    command = own_command("audit", "--json", "--wait", str(wait))
    environment = os.environ | sandbox.environment(settings)
    meter = Meter(settings, {})
    began, before = time.monotonic(), _children_seconds()
    done = subprocess.run(  # noqa: S603 (our own command)
        command, check=False, capture_output=True, text=True, env=environment
    )
    wall = time.monotonic() - began
    try:
        report = json.loads(done.stdout)
    except ValueError:
        raise StreamFlowError(f"the audit failed: {done.stderr.strip()[-500:]}") from None
    return AuditRun(
        records=sum(one["records"] for one in report["partitions"]),
        process=_children_seconds() - before,
        database=meter.used(1.0).get(POSTGRESQL),
        wall=wall,
        verdict=report["verdict"],
    )


def _children_seconds() -> float:
    """Processor time of children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
