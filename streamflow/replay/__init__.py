"""Replay of dead letters (G8): plan, then apply. One implementation, for the CLI and for Dagster.

`choosing` makes a selection out of texts, `planning` decides what could be sent, `applying` sends it.
"""
