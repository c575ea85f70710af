"""The producer for asyncio."""

import asyncio
from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from streamflow.contract import Event
from streamflow.errors import UsageError
from streamflow.producer.outbox import Delivery
from streamflow.producer.producer import DEFAULT_QUEUE, DEFAULT_TIMEOUT, Producer
from streamflow.records import Origin
from streamflow.settings import Settings
from streamflow.stream import Stream

if TYPE_CHECKING:
    import pandas as pd


class AsyncProducer:
    """As `Producer`, for asyncio: use it with ``async with``. The event loop never waits for the broker.

    Args and errors are those of `Producer`; what the constructor of that raises, entering this one does.
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
        self._make = partial(
            Producer, stream, settings, timeout=timeout, queue=queue, not_ours=not_ours
        )
        self._producer: Producer | None = None

    @property
    def _open(self) -> Producer:
        if self._producer is None:
            raise UsageError("use an AsyncProducer as `async with AsyncProducer(...) as producer`")
        return self._producer

    async def send(self, event: Event | Mapping[str, Any]) -> asyncio.Future[Origin]:
        """Queues an event, and waits for room if need be. Await the result to know that it is stored."""
        producer = self._open
        record = producer.judge.record(event)
        delivery = producer.outbox.try_put(record)
        if delivery is None:
            delivery = await asyncio.to_thread(producer.outbox.put, record)
        return asyncio.wrap_future(delivery)

    async def send_many(
        self, events: Iterable[Event | Mapping[str, Any]]
    ) -> list[asyncio.Future[Origin]]:
        """As `Producer.send_many`. The events are looked at in another thread."""
        return _wrapped(await asyncio.to_thread(self._open.send_many, events))

    async def send_frame(
        self, frame: "pd.DataFrame", *, timezone: str | None = None
    ) -> list[asyncio.Future[Origin]]:
        """As `Producer.send_frame`, in another thread."""
        send = partial(self._open.send_frame, frame, timezone=timezone)
        return _wrapped(await asyncio.to_thread(send))

    async def flush(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 (its error says more)
        """As `Producer.flush`."""
        await asyncio.to_thread(self._open.flush, timeout)

    async def close(self) -> None:
        """As `Producer.close`."""
        if self._producer is not None:
            await asyncio.to_thread(self._producer.close)

    async def __aenter__(self) -> Self:
        self._producer = await asyncio.to_thread(self._make)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _wrapped(deliveries: list[Delivery]) -> list[asyncio.Future[Origin]]:
    return [asyncio.wrap_future(delivery) for delivery in deliveries]
