"""Samples as records."""

from streamflow.records import Headers


class SampleRecord:
    """A record as a consumer would hand it over; `timestamp`: its type, and milliseconds since the epoch."""

    def __init__(
        self,
        topic: str,
        offset: int,
        value: bytes | None,
        *,
        key: bytes | None = None,
        headers: Headers | None = None,
        timestamp: tuple[int, int] = (0, 0),
    ) -> None:
        self._topic, self._offset, self._value = topic, offset, value
        self._key, self._headers, self._timestamp = key, headers, timestamp

    def topic(self) -> str:
        return self._topic

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return self._offset

    def key(self) -> bytes | None:
        return self._key

    def value(self) -> bytes | None:
        return self._value

    def headers(self) -> Headers | None:
        return self._headers

    def timestamp(self) -> tuple[int, int]:
        return self._timestamp
