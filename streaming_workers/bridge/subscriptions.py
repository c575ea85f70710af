"""Which client gets which records, and what happens to one that is too slow. Pure.

A client's queue is bounded in records and in bytes. When it is full the oldest are dropped, so a slow
client gets the newest and learns how many it missed. Clients share the frames, so many stalled ones cost
hardly more memory than one.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Generic, Protocol, TypeVar

from streamflow.errors import UsageError
from streamflow.user_code import nearest

_MOST_VALUES = 1_000
_LONGEST_VALUE = 256  # characters, as the contract allows for a user
_LONGEST_COUNT = 9  # digits


class Subscribable(Protocol):
    """What clients subscribe to: a `Frame`."""

    topic: str
    appended: int
    size: int

    @property
    def kinds(self) -> frozenset[str]: ...

    @property
    def windows(self) -> str | None: ...

    def field(self, name: str) -> Any: ...


T = TypeVar("T", bound=Subscribable)


@dataclass(frozen=True, slots=True)
class Subscription:
    """What a client wants; None for all."""

    topics: frozenset[str]  # without prefix
    types: frozenset[str] | None = None  # what events are counted by, as window counts name it
    users: frozenset[str] | None = None
    windows: frozenset[str] | None = None  # the tables that windows are counted into

    def accepts(self, subject: Subscribable) -> bool:
        """Whether a record passes. One without the field to filter by does not."""
        if subject.topic not in self.topics:
            return False
        if self.windows is not None and subject.windows not in self.windows:
            return False
        if self.types is not None and self.types.isdisjoint(subject.kinds):
            return False
        return self.users is None or _is_one_of(self.users, subject.field("user"))

    def as_dict(self) -> dict[str, list[str] | None]:
        chosen = {"types": self.types, "users": self.users, "windows": self.windows}
        return {
            "topics": sorted(self.topics),
            **{name: None if names is None else sorted(names) for name, names in chosen.items()},
        }


def parse_subscription(
    request: object, known: Collection[str], known_windows: Collection[str] = ()
) -> Subscription:
    """Parses `{topics, types, users, windows}`, each a text or a list of texts, or only the topics. What is
    left out means all. Raises UsageError if that is invalid, or a topic or windows do not exist."""
    if isinstance(request, (str, list)):
        request = {"topics": request}
    if request is None:
        request = {}
    if not isinstance(request, dict):
        raise UsageError(
            "subscribe takes {topics, types, users, windows}, each a text or a list of texts"
        )
    topics = _texts(request, "topics", "topic")
    unknown = sorted((topics or frozenset()) - set(known))
    if unknown:
        raise UsageError(f"there is no topic {unknown[0]!r}: topics are {', '.join(sorted(known))}")
    return Subscription(
        frozenset(known) if topics is None else topics,
        _texts(request, "types", "type"),
        _texts(request, "users", "user"),
        _windows(request, known_windows),
    )


def _windows(request: dict[Any, Any], known: Collection[str]) -> frozenset[str] | None:
    windows = _texts(request, "windows", "window")
    unknown = sorted((windows or frozenset()) - set(known))
    if unknown:
        listed = f"windows are {', '.join(sorted(known))}" if known else "no stream declares any"
        hint = nearest(unknown[0], sorted(known))
        raise UsageError(f"there are no windows {unknown[0]!r}{hint}: {listed}")
    return windows


def parse_count(value: object, most: int) -> int:
    """How many of the last records a client asks for, at most `most`; UsageError if not a number."""
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value) if len(value) <= _LONGEST_COUNT else most
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise UsageError("last takes a number of records, 0 or more")
    return min(value, most)


def _texts(request: dict[Any, Any], *names: str) -> frozenset[str] | None:
    value = next((request[name] for name in names if request.get(name) is not None), None)
    if value is None:
        return None
    values = [value] if isinstance(value, str) else value
    if (
        not isinstance(values, list)
        or len(values) > _MOST_VALUES
        or not all(isinstance(one, str) and len(one) <= _LONGEST_VALUE for one in values)
    ):
        raise UsageError(
            f"{names[0]} takes a text or a list of at most {_MOST_VALUES} texts of at most "
            f"{_LONGEST_VALUE} characters"
        )
    return frozenset(values)


def _is_one_of(wanted: frozenset[str], value: object) -> bool:
    # A payload may hold anything, also lists, which are not hashable.
    return isinstance(value, str) and value in wanted


class BoundedQueue(Generic[T]):
    """Keeps the newest records within bounds, and counts those that were dropped. It holds at most
    `records` and `size` bytes; one record is kept however large it is."""

    def __init__(self, records: int, size: int) -> None:
        self._most = records
        self._most_bytes = size
        self._items: deque[T] = deque()
        self._bytes = 0
        self._missed = 0

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[T]:
        return iter(self._items)

    def append(self, item: T) -> None:
        """Adds the newest; the oldest are dropped while there is no room."""
        self._items.append(item)
        self._bytes += item.size
        while len(self._items) > self._most or (
            self._bytes > self._most_bytes and len(self._items) > 1
        ):
            self._bytes -= self._items.popleft().size
            self._missed += 1

    def take(self, most: int) -> tuple[int, list[T]]:
        """How many were dropped since the last call, and the oldest that are left, in order."""
        missed, self._missed = self._missed, 0
        taken = [self._items.popleft() for _ in range(min(most, len(self._items)))]
        self._bytes -= sum(item.size for item in taken)
        return missed, taken


class Client(Generic[T]):
    """A connected client. `wake` is called when there is something new in the queue."""

    def __init__(
        self, subscription: Subscription, queue: BoundedQueue[T], wake: Callable[[], None]
    ) -> None:
        self.subscription = subscription
        self.queue = queue
        self.missed = 0
        self._wake = wake

    def offer(self, subjects: Sequence[T]) -> None:
        accepts, append = self.subscription.accepts, self.queue.append
        wanted = [subject for subject in subjects if accepts(subject)]
        for subject in wanted:
            append(subject)
        if wanted:
            self._wake()


class Audience(Generic[T]):
    """The connected clients, and the last records of each topic: at most `history` records and
    `history_bytes` bytes."""

    def __init__(self, topics: Iterable[str], history: int, history_bytes: int) -> None:
        self._history = {topic: BoundedQueue[T](history, history_bytes) for topic in topics}
        self._clients: set[Client[T]] = set()

    def __len__(self) -> int:
        return len(self._clients)

    @property
    def is_waiting(self) -> bool:
        return any(len(client.queue) for client in self._clients)

    def join(self, client: Client[T], last: int) -> None:
        """From now on the client gets what it wants, after the `last` of each topic."""
        client.offer(self.recall(client.subscription, last))
        self._clients.add(client)

    def leave(self, client: Client[T]) -> None:
        self._clients.discard(client)

    def remember(self, subjects: Iterable[T]) -> None:
        """Adds records to the history only."""
        for subject in subjects:
            self._history[subject.topic].append(subject)

    def publish(self, subjects: Sequence[T]) -> None:
        self.remember(subjects)
        for client in self._clients:
            client.offer(subjects)

    def recall(self, subscription: Subscription, last: int) -> list[T]:
        """The last records of each topic that a subscription accepts, oldest first."""
        subjects: list[T] = []
        for topic in subscription.topics if last else ():
            accepted = filter(subscription.accepts, self._history[topic])
            subjects += sorted(accepted, key=attrgetter("appended"))[-last:]
        return sorted(subjects, key=attrgetter("appended"))
