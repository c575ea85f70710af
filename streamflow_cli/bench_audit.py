"""`streamflow bench --audit`."""

import json
from pathlib import Path

import typer


def bench_audit(events: int, runs: int, out: Path | None) -> None:
    """Measures the audit, and exits 1 if it misses its bar."""
    from streamflow.settings import load_process_settings
    from streamflow_bench.audit import BAR, measure_audit

    found = measure_audit(
        load_process_settings(), events, runs, lambda text: typer.echo(text, err=True)
    )
    if out is not None:
        out.write_text(json.dumps(found.as_dict(), indent=1) + "\n")
    cost = "unknown" if found.cost is None else f"{found.cost:.2f} µs"
    met = {True: "met", False: "missed", None: "unknown"}[found.met]
    typer.echo(f"audit: {cost} of processor time a record, bar ≤ {BAR:g} µs: {met}")
    raise typer.Exit(0 if found.met else 1)
