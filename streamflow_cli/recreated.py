"""`streamflow topics --accept-recreated`: says what it will do, asks, and does it."""

import typer


def accept(topic: str, *, yes: bool) -> None:
    """Accepts what a topic holds now, once a person has agreed."""
    from streamflow.audit.recreated import Reuse
    from streamflow.registry import load_streams
    from streamflow.settings import load_settings
    from streaming_workers.acceptance import Acceptance

    def describe(reuse: Reuse, rows: int) -> None:
        what = (
            f"was deleted and recreated: its id is {reuse.topic_id} now"
            if reuse.cause == "recreated"
            else "has lost records: offsets are used again, in "
            + ", ".join(f"partition {each} from {start} on" for each, start in reuse.since.items())
        )
        typer.echo(f"topic {topic} {what}")
        typer.echo(
            f"{rows:,} rows of the old records get the topic name {reuse.aside}; what was not read of "
            "them is kept as lost, until `streamflow audit --acknowledge`"
        )

    settings = load_settings()
    acceptance = Acceptance(settings, load_streams(settings), topic)
    finding = acceptance.look()
    if finding.reuse is None:
        typer.echo(f"nothing is stored of another topic {topic}; the workers begin with this one")
    else:
        describe(finding.reuse, sum(finding.rows.values()))
        for table, count in sorted(finding.rows.items()):
            typer.echo(f"  {table}: {count:,}")
    if not yes:
        typer.confirm("go on?", abort=True)
    acceptance.apply(finding)
    typer.echo(f"topic {topic} is accepted; workers that wait for it go on within seconds")
