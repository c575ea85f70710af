"""Replay of dead letters (G8): plan, then apply. One implementation, for the CLI and for Dagster.

`choosing` makes a selection out of texts, `planning` decides what could be sent and writes that down as
a plan, `applying` sends just the dead letters of a plan, `recovery` ends what a killed replay left.
`repairs` mend documents before they are judged.

The status of a letter: ``open``, until a replay claims it; ``replaying``, until the loader tells what
became of it; then ``replayed``, its event is stored, or ``superseded``, it was refused again and a new
letter of the same origin, with one attempt more, stands for it. At the cap of attempts a letter is
``quarantined``: only a replay that names it by id and forces it sends it again.
"""
