"""`streamflow topics --accept-recreated`: says what it will do, asks, and does it."""

import typer

from streamflow.units import counted, either
from streamflow_cli.configured import settings_and_streams
from streamflow_cli.confirming import confirm


def accept(topic: str, *, yes: bool) -> None:
    from streaming_workers.acceptance import Acceptance
    from streaming_workers.runtime.watchdog import no_endless_call

    settings, streams = settings_and_streams()
    acceptance = Acceptance(settings, streams, topic)
    finding = acceptance.look()
    if finding.reuse is None:
        typer.echo(f"nothing is stored of another topic {topic}; the workers begin with this one")
    else:
        reuse = finding.reuse
        since = ", ".join(f"partition {number} from {at} on" for number, at in reuse.since.items())
        what = (
            f"was deleted and recreated: its id is {reuse.topic_id} now"
            if reuse.cause == "recreated"
            else f"has lost records: offsets are used again, in {since}"
        )
        typer.echo(f"topic {topic} {what}")
        rows = sum(finding.rows.values())
        typer.echo(
            f"{counted(rows, 'row')} of the old records {either(rows, 'gets', 'get')} the topic "
            f"name {reuse.aside}; "
            "what was not read of them is kept as lost, until `streamflow audit --acknowledge`"
        )
        for table, count in sorted(finding.rows.items()):
            typer.echo(f"  {table}: {count:,}")
    if not yes:
        confirm("go on?", "nothing was changed")
    with no_endless_call(settings.stall_seconds, "accept-recreated", "run it again"):
        acceptance.apply(finding)
    typer.echo(f"topic {topic} is accepted; workers that wait for it go on within seconds")
