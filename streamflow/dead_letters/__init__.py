"""Replay of dead letters (G8): plan, then apply. The command line, Dagster and the dashboard share it.

`selection_parser` turns text into a `Selection`, `plan` decides what could be sent and saves that as a
plan, `apply` sends the dead letters of a plan, `recover` ends what a killed replay left. `repairs`
change documents before they are checked.

The status of a dead letter is ``open`` until a replay claims it and ``replaying`` until the loader has
read the replayed record. Then it is ``replayed``, and its event is stored; or ``superseded``, if the
record was rejected again: a new dead letter of the same origin, with one attempt more, replaces it. At
the limit of attempts a dead letter is ``quarantined``: only a replay that names it by id with `force`
sends it again. One of a forgotten subject is ``erased``: nothing is left of it to send.
"""
