"""How far a file is sent, kept in the very transactions that send it."""

import hashlib
import re
from contextlib import closing
from pathlib import Path
from typing import Final, NamedTuple, Self

from streamflow.calls import SLACK, call
from streamflow.errors import UsageError
from streamflow.kafka import clients, kept_positions, offsets
from streamflow.kafka.producing import produce
from streamflow.kafka.topic_ids import topic_ids
from streamflow.records import Log, Position
from streamflow.settings import Settings

_TIMEOUT: Final = 60.0  # seconds
# The number of skipped lines is left out if there is none.
_METADATA: Final = re.compile(r"([0-9]+);([0-9a-f]{64})(?:;([0-9]+))?")


class FileProgress(NamedTuple):
    """How far a file was sent: lines, bytes, the SHA-256 of those bytes, and how many of the lines were
    invalid and skipped."""

    lines: int = 0
    bytes: int = 0
    digest: str = hashlib.sha256().hexdigest()
    skipped: int = 0


def group_of(settings: Settings, path: Path) -> str:
    """The group whose offset in partition 0 of the topic is the number of lines of a file that are sent."""
    name = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]
    return f"{settings.prefix}produce-{name}"


def progress_of(position: Position) -> FileProgress | None:
    """The progress that was committed as a position; None if it was not committed by us."""
    if position.offset == 0:
        return FileProgress()
    text = _METADATA.fullmatch(position.metadata)
    return text and FileProgress(position.offset, int(text[1]), text[2], int(text[3] or 0))


class FileTransactions:
    """The transactions of one run over a file; use it as a context manager. Making one fences every other
    run of the same file, and settles what it left open.

    Args:
        resumable: whether a later run can go on: how far this one is, is kept only then.
        record_bytes: of the largest record that the topic takes.

    Raises:
        Fenced: another run of the same file has begun.
        Unavailable: the broker does not answer, or a topic does not exist.
    """

    def __init__(
        self, settings: Settings, topic: str, path: Path, *, resumable: bool, record_bytes: int
    ) -> None:
        self._settings = settings
        self._resumable = resumable
        self._partition = topic, 0
        self._path = path
        self._group = group_of(settings, path)
        self.client = clients.producer(
            settings,
            **{"transactional.id": self._group, "transaction.timeout.ms": 60_000},
            **clients.batches_within(record_bytes),
        )
        admin = clients.admin(settings)
        needed = [topic, kept_positions.topic_of(settings)] if resumable else [topic]
        offsets.require_partitions(admin, needed)
        self._topic_id = topic_ids(admin, [topic])[topic]
        with clients.kafka_errors(), call("init_transactions", _TIMEOUT + SLACK):
            self.client.init_transactions(_TIMEOUT)
        # Of a consumer that joins no group.
        self._consumer = clients.assigned_consumer(settings, self._group)
        self._metadata = self._consumer.consumer_group_metadata()

    def begin(self, *, resume: bool) -> FileProgress:
        """Where this run begins, which is kept at once: a later run finds it even if no line is sent.

        Raises UsageError if an earlier run is to be resumed of which nothing is known.
        """
        progress = self._earlier() if resume else FileProgress()
        if self._resumable:
            with clients.kafka_errors():
                self.client.begin_transaction()
            self.commit(progress)
        return progress

    def _earlier(self) -> FileProgress:
        position = self._known()
        if position is None:
            raise UsageError(
                f"it is not known whether {self._path} was sent before, or how far: send it without "
                "--resume to send it from its beginning"
            )
        if "" != position.log.topic_id != self._topic_id != "":
            raise UsageError(
                f"topic {position.topic} was recreated since {self._path} was sent: send it without "
                "--resume to send it all again"
            )
        progress = progress_of(position)
        if progress is None:
            raise UsageError(
                f"the offset of {self._path} was moved by hand to line {position.offset:,}, so it is not "
                "known how far the file was sent: send it without --resume to send it from its beginning"
            )
        return progress

    def _known(self) -> Position | None:
        with closing(offsets.GroupOffsets(self._settings, self._group)) as group:
            answered = group.as_stored([self._partition])
        kept = kept_positions.reconcile(self._settings, self._group, [self._partition], answered)
        if self._partition not in kept:
            return None
        return offsets.committed_position(kept[self._partition].committed)

    def commit(self, progress: FileProgress) -> None:
        """Commits the transaction in progress, with how far the file is sent by it."""
        with clients.kafka_errors():
            if self._resumable:
                self._keep(progress)
            with call("commit_transaction", _TIMEOUT + SLACK):
                self.client.commit_transaction(_TIMEOUT)

    def _keep(self, progress: FileProgress) -> None:
        skipped = f";{progress.skipped}" if progress.skipped else ""
        text = f"{progress.bytes};{progress.digest}{skipped}"
        position = Position(*self._partition, progress.lines, text)
        moved = offsets.as_committed(position, Log(self._topic_id))
        produce(self.client, kept_positions.record_of(self._settings, self._group, moved))
        with call("send_offsets_to_transaction", _TIMEOUT + SLACK):
            self.client.send_offsets_to_transaction([moved], self._metadata, _TIMEOUT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close()
