"""Consoles, and tables that are readable on a terminal of 80 columns."""

import os

from rich.console import Console
from rich.table import Table

_LOG_WIDTH = 160
_NUMBERS = frozenset(
    {"partition", "records", "stored", "dead", "duplicate", "problems", "events", "counted", "open"}
    | {"erased", "to be erased", "already erased", "living", "deleted", "differing"}
    | {"partitions", "retention (h)", "attempt", "selected", "pass", "fail", "failed", "at limit"}
)
# As wide as the other columns leave them.
_FOLDED = frozenset(
    {"topic", "windows of", "state of", "reasons", "differs in", "message", "stream", "waits for"}
)


def make_console() -> Console:
    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        # A log is not 80 columns wide; a row should be one line in it.
        console.width = _LOG_WIDTH
    return console


def plain_table(*titles: str) -> Table:
    """A table without lines: text to the left, numbers to the right."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for title in titles:
        table.add_column(
            title,
            no_wrap=title not in _FOLDED,
            overflow="fold",
            justify="right" if title in _NUMBERS else "left",
        )
    return table
