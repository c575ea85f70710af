"""Dagster's code server: ``python -m streamflow_dagster.code_server``, with the arguments of ``dagster``.

Runs are its child processes, and end with it. Dagster's launcher does not look whether they live: what
was going on at `streamflow down` would count as started for two hours of uptime more, and the schedule
of its job would wait for it.
"""

import runpy
from typing import Final

import dagster as dg

# Launched by a code server, and not by a process of its own such as `dagster job execute`.
_LAUNCHED: Final = ".dagster/grpc_info"
_ALIVE: Final = [
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def fail_orphans(instance: dg.DagsterInstance) -> None:
    """Fails the runs of an earlier code server. Call it before this one launches any."""
    for run in instance.get_runs(dg.RunsFilter(statuses=_ALIVE)):
        if _LAUNCHED in run.tags:
            instance.report_run_failed(
                run, "Dagster's code server has ended, and this run with it: launch it again."
            )
    # What was killed has not left its pools.
    storage = instance.event_log_storage
    if storage.supports_global_concurrency_limits:
        for run_id in storage.get_concurrency_run_ids():
            holder = instance.get_run_by_id(run_id)
            if holder is None or holder.is_finished:
                storage.free_concurrency_slots_for_run(run_id)


def main() -> None:
    with dg.DagsterInstance.get() as instance:
        fail_orphans(instance)
    runpy.run_module("dagster", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
