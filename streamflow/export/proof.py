"""Whether exported files and the table agree, row by row."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from hashlib import file_digest
from typing import Any, Final, NamedTuple

from streamflow.audit.report import Verdict
from streamflow.errors import UsageError
from streamflow.export.columns import Columns, Identity
from streamflow.export.covered import Covered
from streamflow.export.days import days, rows, snapshot
from streamflow.export.destination import Destination, ExportedFile, encoding
from streamflow.postgres.connections import Connection, session
from streamflow.settings import Settings
from streamflow.stream import Stream
from streamflow.units import counted

_DROPPED: Final = "SELECT rows FROM dropped_days WHERE table_name = %s AND day = %s"
_NOT_IN_TABLE: Final = "in the file, not in the table"
_ERASED: Final = """
SELECT FROM erased_records WHERE place = 'events' AND (topic, partition, "offset") = (%s, %s, %s)
"""


class FileProof(NamedTuple):
    """How a file compares with the table.

    Attributes:
        rows: in the file.
        equal: rows that are the same in both.
        later: rows that were loaded after the export.
        problems: what is wrong, with the first event that it is about.
    """

    path: str
    day: date
    rows: int
    equal: int
    later: int
    problems: tuple[str, ...]

    @property
    def verdict(self) -> Verdict:
        if self.problems:
            return Verdict.OPEN
        return Verdict.NOT_YET if self.later else Verdict.CLOSED


class ExportProof(NamedTuple):
    """How the files of some tables compare with them.

    Attributes:
        missing: days that have rows and no file, between those that have one, by table.
        outside: such days before the first file and after the last one, by table.
    """

    files: tuple[FileProof, ...]
    missing: Mapping[str, Sequence[date]]
    outside: Mapping[str, Sequence[date]]

    @property
    def verdict(self) -> Verdict:
        """The worst one; days outside of what was exported count for nothing."""
        verdicts = {file.verdict for file in self.files}
        if self.missing:
            verdicts.add(Verdict.NOT_YET)
        return next(
            each for each in (Verdict.OPEN, Verdict.NOT_YET, Verdict.CLOSED) if each in verdicts
        )

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "verdict": self.verdict,
            "missing": _as_texts(self.missing),
            "outside": _as_texts(self.outside),
            "files": [
                {
                    "path": file.path,
                    "verdict": file.verdict,
                    "day": file.day.isoformat(),
                    "rows": file.rows,
                    "equal": file.equal,
                    "later": file.later,
                    "problems": list(file.problems),
                }
                for file in self.files
            ],
        }


def prove(settings: Settings, streams: Sequence[Stream], url: str) -> ExportProof:
    """Compares every file of these streams' tables below `url`.

    Raises:
        UsageError: there is none, or the place cannot be read.
        Unavailable: the database does not answer.
    """
    destination = Destination(url)
    found = [
        (stream, file) for stream in streams for file in destination.exported(stream.event_table)
    ]
    if not found:
        names = ", ".join(stream.event_table for stream in streams)
        raise UsageError(
            f"{url} has no export of {names}: name the folder that `streamflow export --out` has got"
        )
    exported: dict[str, set[date]] = {}
    for stream, file in found:
        exported.setdefault(stream.event_table, set()).add(file.day)
    missing: dict[str, list[date]] = {}
    outside: dict[str, list[date]] = {}
    with session(settings, "audit-export") as connection:
        files = tuple(_prove(connection, stream, destination, file) for stream, file in found)
        for stream in streams:
            of_table = exported.get(stream.event_table)
            if not of_table:
                continue
            for day in days(connection, stream, None, None):
                if day not in of_table:
                    is_between = min(of_table) < day < max(of_table)
                    chosen = missing if is_between else outside
                    chosen.setdefault(stream.event_table, []).append(day)
    return ExportProof(files, missing, outside)


def _as_texts(found: Mapping[str, Sequence[date]]) -> dict[str, list[str]]:
    return {table: [day.isoformat() for day in each] for table, each in found.items()}


def _prove(
    connection: Connection, stream: Stream, destination: Destination, file: ExportedFile
) -> FileProof:
    columns, covered = Columns(stream), file.covered
    if isinstance(covered, UsageError):
        return FileProof(file.path, file.day, 0, 0, 0, (str(covered),))
    there = {column.name: column.type for column in columns.all}
    if covered.columns != there:
        differing = min({*covered.columns.items()} ^ {*there.items()})[0]
        why = f"the contract has changed since ({differing}): export the day again"
        return FileProof(file.path, file.day, covered.rows, 0, 0, (why,))
    compared = _Compared(connection, columns, covered, stream.topic)
    with snapshot(connection), destination.open(file.path) as opened:
        if covered.sha256 is not None:
            if file_digest(opened, "sha256").hexdigest() != covered.sha256:
                compared.note("the file has changed since it was written", None)
            opened.seek(0)
        read = encoding(file.kind, columns)
        try:
            compared.run(read.read(opened), read.comparable)
        except (UsageError, ValueError, LookupError) as error:
            compared.note(f"the file is damaged ({type(error).__name__})", None)
        return compared.proof(file)


class _Compared:
    """The rows of a file beside those of the table, both in the order of their identities."""

    def __init__(
        self, connection: Connection, columns: Columns, covered: Covered, topic: str
    ) -> None:
        self._connection = connection
        self._current = topic
        self._columns = columns
        self._covered = covered
        self._rows = self._equal = self._later = self._stored = 0
        self._problems: Counter[str] = Counter()
        self._first: dict[str, Identity | None] = {}

    def note(self, what: str, identity: Identity | None) -> None:
        self._problems[what] += 1
        self._first.setdefault(what, identity)

    def run(self, in_file: Iterator[tuple[Identity, Any]], comparable: Any) -> None:
        in_table = self._of_table()
        mine, theirs = self._next(in_file), next(in_table, None)
        while mine is not None or theirs is not None:
            if theirs is None or (mine is not None and mine[0] < theirs[0]):
                assert mine is not None  # noqa: S101 (for mypy)
                self.note(_NOT_IN_TABLE, mine[0])
                mine = self._next(in_file)
            elif mine is None or theirs[0] < mine[0]:
                self._only_in_table(*theirs)
                theirs = next(in_table, None)
            else:
                if comparable(theirs[1]) == mine[1]:
                    self._equal += 1
                else:
                    self._differ(mine[0])
                mine, theirs = self._next(in_file), next(in_table, None)

    def _next(self, in_file: Iterator[tuple[Identity, Any]]) -> tuple[Identity, Any] | None:
        found = next(in_file, None)
        self._rows += found is not None
        return found

    def _of_table(self) -> Iterator[tuple[Identity, Any, bool]]:
        width = len(self._columns.all)
        for chunk in rows(self._connection, self._columns, self._covered.day):
            for row in chunk:
                self._stored += 1
                topic, partition, offset = row[width:]
                # Of a topic that was recreated, whose rows were set aside, nothing comes any more.
                is_covered = topic != self._current or self._covered.covers(
                    self._current, int(str(partition)), int(str(offset))
                )
                values = row[:width]
                yield self._columns.identity(values), values, is_covered

    def _only_in_table(self, identity: Identity, _row: Any, is_covered: bool) -> None:
        if is_covered:
            self.note("in the table, not in the file", identity)
        else:
            self._later += 1

    def _differ(self, identity: Identity) -> None:
        # Another cursor is open: this one asks for one row, by its key.
        erased = self._connection.execute(_ERASED, identity).fetchone() is not None
        self.note(
            "of a forgotten person, and still in the file: export the day again"
            if erased
            else "not the same as in the table",
            identity,
        )

    def proof(self, file: ExportedFile) -> FileProof:
        covered = self._covered
        dropped = self._connection.execute(_DROPPED, [covered.table, covered.day]).fetchone()
        if dropped is not None and not self._stored and self._rows == dropped[0]:
            # Retention removed the day since: as many rows as the file has.
            del self._problems[_NOT_IN_TABLE]
            self._equal = self._rows
        if self._rows != covered.rows and not self._problems:
            self.note(f"the file has {self._rows:,} rows, and says {covered.rows:,}", None)
        problems = tuple(
            what if (first := self._first[what]) is None else _about(what, number, first)
            for what, number in self._problems.items()
        )
        return FileProof(file.path, file.day, self._rows, self._equal, self._later, problems)


def _about(what: str, number: int, first: Identity) -> str:
    topic, partition, offset = first
    return f"{counted(number, 'row')} {what} (first {topic}/{partition}/{offset})"
