"""The producer that users import."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, Self

from streamflow.contract import Event
from streamflow.errors import Unavailable
from streamflow.kafka.clients import admin
from streamflow.kafka.offsets import require_partitions
from streamflow.producer.frames import documents_of
from streamflow.producer.judge import Judge, stream_to_send_to
from streamflow.producer.outbox import Delivery, Outbox
from streamflow.records import OutRecord
from streamflow.settings import Settings, load_settings
from streamflow.stream import Stream

if TYPE_CHECKING:
    import pandas as pd

DEFAULT_TIMEOUT: Final = 30.0  # seconds
DEFAULT_QUEUE: Final = 100_000  # events


class Producer:
    """Sends events of a stream: checked against its contract, private fields hashed, idempotent.

    Use it as a context manager, or close it: that waits until all is acknowledged. Thread-safe.

    Args:
        stream: a declared stream, or the name of one of ``STREAMFLOW_STREAMS``.
        settings: where Kafka is; by default those of the environment.
        timeout: seconds that `send` waits for room, and seconds after which an event is given up that the
            broker has not acknowledged.
        queue: events that may be on their way; whoever sends more waits.
        not_ours: send also to a topic of another owner (``Topics(managed=False)``), who allows it.

    Raises:
        ConfigurationError: a setting or the stream's declaration is wrong.
        UsageError: there is no such stream, or it cannot be sent to so.
        Unavailable: the broker does not answer, or the topic does not exist.
    """

    def __init__(
        self,
        stream: Stream | str,
        settings: Settings | None = None,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        queue: int = DEFAULT_QUEUE,
        not_ours: bool = False,
    ) -> None:
        settings = settings or load_settings()
        self._stream = stream_to_send_to(stream, settings, not_ours=not_ours)
        self.judge = Judge(self._stream, settings)
        # Kafka might create a topic that is missing, with settings of its own.
        require_partitions(admin(settings), [self._stream.topic])
        self.outbox = Outbox(
            settings,
            timeout=timeout,
            most=queue,
            record_bytes=self._stream.topics.max_record_bytes,
        )

    def send(self, event: Event | Mapping[str, Any], *, timeout: float | None = None) -> Delivery:
        """Sends an event; returns when it is queued. The result of the `Delivery` is its place in the topic.

        Args:
            event: of the stream's contract; or its fields, by their names in JSON, with private ones in
                clear or hashed.
            timeout: seconds to wait for room in the queue; by default those of the producer.

        Raises:
            InvalidEvent: it breaks the contract, and is not sent.
            Unavailable: the queue was full for too long.
            UsageError: the producer is closed.
        """
        return self.outbox.put(self.judge.record(event), timeout)

    def send_many(self, events: Iterable[Event | Mapping[str, Any]]) -> list[Delivery]:
        """As `send`, of many events: if one is invalid, none of them is sent."""
        return self._put_all(self.judge.records(events))

    def send_frame(self, frame: "pd.DataFrame", *, timezone: str | None = None) -> list[Delivery]:
        """As `send_many`, of the rows of a pandas DataFrame, whose columns are called as fields in JSON. A
        missing value is an absent field; the index is not sent.

        Args:
            timezone: of times without a zone; without it they are refused.

        Raises:
            UsageError: the columns cannot be those of events.
        """
        return self._put_all(
            self.judge.records(documents_of(frame, self.judge.documents.kinds, timezone))
        )

    def _put_all(self, records: list[OutRecord]) -> list[Delivery]:
        deliveries: list[Delivery] = []
        for record in records:
            try:
                deliveries.append(self.outbox.put(record))
            except Unavailable as error:
                raise Unavailable(
                    f"{error}: the first {len(deliveries):,} of {len(records):,} events are queued"
                ) from error
        return deliveries

    def flush(self, timeout: float | None = None) -> None:
        """Waits until each event that was sent is acknowledged, or given up.

        Raises:
            DeliveryFailed: events were given up since the last flush.
            Unavailable: not all was acknowledged within `timeout` seconds; it is still on its way.
        """
        self.outbox.flush(timeout)

    def close(self) -> None:
        """Flushes, and frees the connections. Raises as `flush`."""
        self.outbox.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
