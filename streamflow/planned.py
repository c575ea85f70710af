"""What becomes of a topic or a table: one word for each, in every command."""

from enum import StrEnum


class PlannedAction(StrEnum):
    DECLARED = "is declared"  # and was not compared
    CREATE = "will be created"
    KEEP = "is there"
    ALTER = "will be altered"
    READ = "is read, and never altered"
    REFUSE = "is refused"
