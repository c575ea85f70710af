"""Runs a peer as a process, in topics and a schema of its own, and measures it as our workers are."""

import os
import re
import tempfile
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

from streamflow.kafka import clients, offsets
from streamflow.postgres.connections import session
from streamflow.postgres.partitions import DayPartitions
from streamflow.registry import load_streams
from streamflow.settings import Settings
from streamflow_bench import watching
from streamflow_bench.figures import PathName
from streamflow_bench.peers.catalog import Peer, Progress
from streamflow_bench.peers.place import Place
from streamflow_bench.peers.rows import rows_of
from streamflow_bench.results import Course, Rows
from streamflow_bench.sandbox import Sandbox
from streamflow_bench.sources import Sources


class PeerRun(NamedTuple):
    course: Course
    load_before: float  # load average of the minute before
    rows: Rows | None  # what the table holds then, on the path of the loader


class PeerRunner:
    def __init__(self, sandbox: Sandbox, sources: Sources) -> None:
        self._sandbox = sandbox
        self._sources = sources
        self._runs = 0

    def run(self, peer: Peer, filled: Settings) -> PeerRun:
        """Measures a peer on the events that the topic of `filled` holds. Raises NotInstalled if it cannot
        be measured here, StreamFlowError if it fails."""
        self._runs += 1
        load = os.getloadavg()[0]
        peer.program.versions()
        name = re.sub(r"\W+", "-", f"{peer.name}-{peer.path}").lower()
        with (
            self._sandbox.topics(f"peer-{self._runs}") as own,
            tempfile.TemporaryDirectory(dir=self._sandbox.directory) as directory,
        ):
            place = self._place(peer, own, filled, own.prefix + name, Path(directory))
            # Prepared before it is measured.
            command = peer.program.command(place)
            variables = place.environment()
            settings = place.settings
            with (
                progress_of(peer, place) as done,
                watching.topic_progress(settings, place.output) as written,
                watching.process(self._sandbox, settings, name, command, variables) as child,
            ):
                output = written if peer.output_lags else None
                course = watching.watch(child, done, self._sources.count, output)
            rows = rows_of(settings) if peer.path is PathName.LOADER else None
        return PeerRun(course, load, rows)

    def _place(
        self, peer: Peer, own: Settings, filled: Settings, group: str, directory: Path
    ) -> Place:
        settings = own
        source = own if peer.path is PathName.PRODUCE else filled
        if peer.path is PathName.LOADER:
            settings = self._sandbox.with_schema(own)
            with session(settings, "bench") as connection:
                # Today's are there already.
                DayPartitions("events").prepare(connection, [self._sources.began.date()])
        [stream] = load_streams(own)
        analytics = peer.path is PathName.ANALYTICS
        return Place(
            settings=settings,
            topic=load_streams(source)[0].topic,
            group=group,
            output=stream.analytics_topic if analytics else stream.notifications_topic,
            dead_letters=stream.dead_letter_topic,
            lines=self._sources.lines,
            directory=directory,
        )


def progress_of(peer: Peer, place: Place) -> AbstractContextManager[watching.Progress]:
    """How many records a peer has done."""
    settings = place.settings
    if peer.progress is Progress.RECORDS:
        return watching.topic_progress(settings, place.topic)
    partitions = offsets.partitions_of(clients.admin(settings), [place.topic])
    if peer.progress is Progress.ROWS:
        return watching.table_progress(settings, partitions)
    return watching.group_progress(settings, place.group, partitions)
