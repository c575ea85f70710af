"""`streamflow bench --idle`."""

import json
from pathlib import Path

import typer


def show_idle(seconds: float, settle: float, out: Path | None) -> None:
    """Prints what each part of the running stack costs, and writes it to `out`; exits 1 if it is too much."""
    from rich.table import Column, Table

    from streamflow.settings import load_process_settings
    from streamflow_bench.idle import MOST_CORES, MOST_GB, measure_idle
    from streamflow_cli.tables import make_console
    from streamflow_stack.state import state_of

    state = state_of(load_process_settings())
    cost = measure_idle(state, settle, seconds, lambda text: typer.echo(text, err=True))
    if out is not None:
        out.write_text(json.dumps(cost.as_dict(), indent=1) + "\n")
    table = Table(
        Column("part", no_wrap=True),
        *(Column(title, justify="right") for title in ("CPU s in 60 s", "PSS, MB", "processes")),
    )
    for name, part in cost.parts.items():
        table.add_row(name, f"{part.cpu_s:.2f}", f"{part.pss_mb:,.0f}", str(part.processes))
    console = make_console()
    console.print(table)
    console.print(
        f"{cost.cores:.3f} cores (at most {MOST_CORES}), {cost.gigabytes:.3f} GB (at most {MOST_GB}): "
        f"{'met' if cost.met else 'missed'}; load average {cost.load_average:.1f}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    if not cost.met:
        raise typer.Exit(1)
