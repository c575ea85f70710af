"""What an exported file covers, kept with the file. Pure."""

from datetime import date
from typing import Final, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from streamflow.errors import UsageError

Format = Literal["parquet", "csv", "ndjson"]
KEY: Final = "streamflow"  # in the metadata of a Parquet file
SIDECAR: Final = ".covered.json"  # behind the name of a file that has no metadata


class Covered(BaseModel):
    """Which records a file covers: all events of a day that the loader had stored when it was written.

    Attributes:
        day: of event time, in UTC.
        exported_at: when the rows were read, by the database's clock.
        positions: the next offset that the loader was to read then, by ``topic/partition``.
        columns: names, and types of PostgreSQL.
        sha256: of the file, where this is kept beside it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    stream: str
    table: str
    day: date
    rows: int
    exported_at: AwareDatetime
    positions: dict[str, int]
    columns: dict[str, str]
    sha256: str | None = None

    @classmethod
    def parse(cls, text: bytes | str) -> "Covered":
        """Raises UsageError if it is none of ours."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise UsageError(
                "the file does not say what it covers, or another release wrote it: export the day again"
            ) from error

    def covers(self, topic: str, partition: int, offset: int) -> bool:
        """Whether the file must have what a record of this position in the stream's topic brought."""
        return offset < self.positions.get(f"{topic}/{partition}", 0)


def name_of(table: str, day: date, kind: Format) -> str:
    """Where a day's file is, below the destination; the names of folders are those of Hive's partitions."""
    return f"{table}/day={day.isoformat()}/{table}-{day.isoformat()}.{kind}"
