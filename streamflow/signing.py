"""Signatures of the records that workers derive, which other producers' records in those topics lack.
Pure.

Keyed BLAKE2b (RFC 7693, section 2.9) over the topic, key, value and headers of a record, in its last
header.

Each header costs a tenth of what the validator does for an event. So the id of the topic that a record was
derived from, alone behind its origin, travels in the same header behind the signature, and is signed as the
header that it was in earlier releases: `Signer.signed_headers` gives the same for both forms.
"""

from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from hmac import compare_digest
from struct import Struct, pack
from typing import Final

from streamflow.records import (
    OWN_HEADER_PREFIXES,
    SIGNATURE_HEADER,
    TOPIC_ID_HEADER,
    Headers,
    OutRecord,
    Producible,
    Record,
    headers_of,
)

_SIZE: Final = 16  # bytes of a signature
_MOST: Final = 2  # headers that are signed of most records: of their origin, and of its topic
_SIX: Final = Struct("<7q").pack
_LOG_APPEND_TIME: Final = 2  # the time stamp is the broker's own, not its producer's


class Signer:
    """Signs records, and recognises those signed with the same secret, of any length.

    Signing is on the path of every event: about a microsecond. Unsigned records that were appended before
    `unsigned_until`, in milliseconds since the epoch, are trusted: workers did not sign yet.
    """

    def __init__(self, secret: bytes, unsigned_until: int = 0) -> None:
        # A secret may be longer than the 64 bytes that BLAKE2b takes as its key.
        key = blake2b(secret, person=b"streamflow.sign").digest()
        self._keyed = blake2b(key=key, digest_size=_SIZE)
        self._of_topic: dict[str, blake2b] = {}
        self._unsigned_until = unsigned_until

    def sign(self, record: OutRecord) -> OutRecord:
        [signed] = self.signed((record,))
        return OutRecord(*signed)

    def signed(self, records: Iterable[OutRecord]) -> Iterator[Producible]:
        """The same records with their signatures."""
        signature = self._signature
        for topic, key, value, headers, partition in records:
            last = signature(topic, key, value, headers)
            name, topic_id = headers[1] if len(headers) == _MOST else ("", None)
            if topic_id and name == TOPIC_ID_HEADER:
                sent = [headers[0], (SIGNATURE_HEADER, last + topic_id)]
            else:
                sent = [*headers, (SIGNATURE_HEADER, last)]
            yield topic, key, value, sent, partition

    def verify(self, record: Record) -> bool:
        return self.signed_headers(record) is not None

    def signed_headers(self, record: Record) -> Headers | None:
        """The headers that a record was signed with; None if it was not.

        Headers behind the signature were added on the way, by tracing for instance. They are left out,
        and none of them may have one of our own names.
        """
        headers = headers_of(record)
        index = len(headers) - 1
        while index >= 0 and headers[index][0] != SIGNATURE_HEADER:
            if headers[index][0].startswith(OWN_HEADER_PREFIXES):
                return None
            index -= 1
        if index < 0:
            return None
        given, signed = headers[index][1] or b"", headers[:index]
        if topic_id := given[_SIZE:]:
            signed.append((TOPIC_ID_HEADER, topic_id))
        expected = self._signature(record.topic() or "", record.key(), record.value(), signed)
        return signed if compare_digest(given[:_SIZE], expected) else None

    def is_older(self, record: Record) -> bool:
        """Whether the broker appended a record before workers signed."""
        kind, appended = record.timestamp()
        return kind == _LOG_APPEND_TIME and appended < self._unsigned_until

    def _signature(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes | None]],
    ) -> bytes:
        keyed = self._of_topic.get(topic)
        if keyed is None:
            keyed = self._of_topic[topic] = self._keyed.copy()
            keyed.update(f"{topic} ".encode())  # a topic's name has no space
        state = keyed.copy()
        state.update(_framed(key, value, headers))
        return state.digest()


def _framed(
    key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes | None]]
) -> bytes:
    """How many parts there are, the size of each (-1 for none), and the parts: no two records have the
    same bytes."""
    if len(headers) == _MOST and key is not None and value is not None:
        # Nearly every record: as below, in half the time.
        (name, content), (name_2, content_2) = headers
        if content is not None and content_2 is not None:
            first, second = name.encode(), name_2.encode()
            sizes = _SIX(
                6, len(key), len(value), len(first), len(content), len(second), len(content_2)
            )
            return b"".join((sizes, key, value, first, content, second, content_2))
    parts = [key, value]
    for name, content in headers:
        parts += (name.encode(), content)
    lengths = [-1 if part is None else len(part) for part in parts]
    sizes = pack(f"<{len(parts) + 1}q", len(parts), *lengths)
    return sizes + b"".join([part for part in parts if part is not None])
