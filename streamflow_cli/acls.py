import json
from typing import Annotated

import typer

from streamflow_cli.configured import settings_and_streams


def acls(
    principal: Annotated[
        str, typer.Option(help="Principal of a part; {part} is its name.")
    ] = "User:streamflow-{part}",
    command_config: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Properties with which kafka-acls.sh connects as an administrator: put into each line.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Prints the least rights that each part needs in Kafka, as lines for kafka-acls.sh. Grants nothing.

    Example: streamflow acls --command-config admin.properties | grep streamflow-loader
    """
    from streamflow.kafka.acls import least_rights

    settings, streams = settings_and_streams()
    granted = [
        (right, principal.replace("{part}", right.part))
        for right in least_rights(settings, streams)
    ]
    if as_json:
        typer.echo(json.dumps([right._asdict() | {"principal": name} for right, name in granted]))
        return
    for right, name in granted:
        typer.echo(right.command(name, settings.bootstrap, command_config))
