"""Who gets which records, and what a slow client misses."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from streamflow.errors import UsageError
from streaming_workers.bridge.subscriptions import (
    Audience,
    BoundedQueue,
    Client,
    Subscription,
    parse_count,
    parse_subscription,
)

TOPICS = ("user-events", "analytics", "notifications", "dead-letter-topic")
WINDOWS = ("orders_10s", "orders_5min_by_1min", "window_counts")


@dataclass(eq=False)
class Item:
    topic: str = "user-events"
    fields: dict[str, Any] = field(default_factory=dict)
    appended: int = 0
    size: int = 1

    @property
    def kinds(self) -> frozenset[str]:
        named = (self.fields.get("type"), self.fields.get("event_type"))
        return frozenset(value for value in named if isinstance(value, str))

    @property
    def windows(self) -> str | None:
        return self.fields.get("window")

    def field(self, name: str) -> Any:
        return self.fields.get(name)


def client(queue: BoundedQueue[Item], request: object = None) -> tuple[Client[Item], list[None]]:
    woken: list[None] = []
    return Client(parse_subscription(request, TOPICS), queue, lambda: woken.append(None)), woken


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (None, Subscription(frozenset(TOPICS))),
        ({}, Subscription(frozenset(TOPICS))),
        ("analytics", Subscription(frozenset({"analytics"}))),
        (["analytics", "notifications"], Subscription(frozenset({"analytics", "notifications"}))),
        ({"topic": "analytics"}, Subscription(frozenset({"analytics"}))),
        (
            {"topics": ["analytics"], "type": "USER_LOGIN", "users": ["ann", "bob"]},
            Subscription(
                frozenset({"analytics"}), frozenset({"USER_LOGIN"}), frozenset({"ann", "bob"})
            ),
        ),
        ({"topics": []}, Subscription(frozenset())),
        ({"token": "x", "last": 3}, Subscription(frozenset(TOPICS))),
    ],
)
def test_parse(request_: object, expected: Subscription) -> None:
    assert parse_subscription(request_, TOPICS) == expected


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        (7, "subscribe takes"),
        ({"topics": "user_events"}, "there is no topic 'user_events': topics are analytics, "),
        ({"topics": {"a": 1}}, "topics takes a text or a list"),
        ({"types": [1]}, "types takes"),
        ({"users": "u" * 257}, "users takes"),
        ({"users": ["u"] * 1_001}, "users takes"),
        ({"windows": 7}, "windows takes"),
        (
            {"windows": ["orders_10s", "order_10s"]},
            r"there are no windows 'order_10s' \(did you mean orders_10s\?\): windows are orders_10s, ",
        ),
        ({"window": "else"}, "there are no windows 'else': windows are orders_10s, orders_5min_"),
    ],
)
def test_a_wrong_request_is_told(request_: object, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        parse_subscription(request_, TOPICS, WINDOWS)


def test_windows_of_streams_that_declare_none_are_told() -> None:
    with pytest.raises(UsageError, match="there are no windows 'a': no stream declares any"):
        parse_subscription({"windows": "a"}, TOPICS)


def test_windows_are_chosen_by_their_tables() -> None:
    wanted = parse_subscription({"windows": "orders_10s"}, TOPICS, WINDOWS)
    assert wanted.accepts(Item("analytics", {"window": "orders_10s"}))
    assert not wanted.accepts(Item("analytics", {"window": "window_counts"}))
    assert not wanted.accepts(Item("user-events", {"type": "USER_LOGIN"}))
    assert wanted.as_dict()["windows"] == ["orders_10s"]
    assert parse_subscription({}, TOPICS, WINDOWS).as_dict()["windows"] is None


@pytest.mark.parametrize(
    ("value", "count"), [(0, 0), (5, 5), ("5", 5), (5_000, 100), ("9" * 5000, 100)]
)
def test_parse_count(value: object, count: int) -> None:
    assert parse_count(value, 100) == count


@pytest.mark.parametrize("value", [-1, 1.5, True, "many", "-1", None, [], "\u0665"])
def test_a_wrong_count_is_told(value: object) -> None:
    with pytest.raises(UsageError, match="last takes a number"):
        parse_count(value, 100)


@pytest.mark.parametrize(
    ("item", "passes"),
    [
        (Item(fields={"type": "USER_LOGIN", "user": "ann"}), True),
        (Item(fields={"type": "USER_LOGOUT", "user": "ann"}), False),
        (Item(fields={"type": "USER_LOGIN", "user": "bob"}), False),
        (Item(fields={"type": "USER_LOGIN"}), False),
        (Item(fields={"type": ["USER_LOGIN"], "user": "ann"}), False),
        (Item("notifications", {"type": "USER_LOGIN", "user": "ann"}), False),
        (Item("analytics", {"event_type": "USER_LOGIN", "user": "ann"}), True),
    ],
)
def test_filters(item: Item, passes: bool) -> None:
    wanted = parse_subscription(
        {"topics": ["user-events", "analytics"], "types": ["USER_LOGIN"], "users": ["ann"]}, TOPICS
    )
    assert wanted.accepts(item) is passes


def test_a_queue_keeps_the_newest_and_counts_the_rest() -> None:
    queue = BoundedQueue[Item](3, 1_000)
    items = [Item() for _ in range(5)]
    for item in items:
        queue.append(item)
    assert queue.take(2) == (2, items[2:4])
    assert queue.take(2) == (0, items[4:])
    assert queue.take(2) == (0, [])


def test_a_queue_is_bounded_in_bytes_but_keeps_one() -> None:
    queue = BoundedQueue[Item](100, 10)
    items = [Item(size=4), Item(size=4), Item(size=4), Item(size=50)]
    for item in items[:3]:
        queue.append(item)
    assert list(queue) == items[1:3]
    queue.append(items[3])
    assert queue.take(9) == (3, items[3:])
    queue.append(items[0])
    assert queue.take(9) == (0, items[:1])


def test_a_full_queue_is_its_own_clients_affair() -> None:
    audience = Audience[Item](TOPICS, 0, 0)
    slow, _ = client(BoundedQueue(2, 1_000))
    quick, woken = client(BoundedQueue(100, 1_000))
    for each in (slow, quick):
        audience.join(each, 0)
    items = [Item() for _ in range(10)]
    audience.publish(items)
    assert slow.queue.take(100) == (8, items[8:])
    assert quick.queue.take(100) == (0, items)
    assert len(woken) == 1


def test_one_who_left_gets_nothing_more() -> None:
    audience = Audience[Item](TOPICS, 0, 0)
    gone, woken = client(BoundedQueue(2, 1_000))
    audience.join(gone, 0)
    audience.leave(gone)
    audience.publish([Item()])
    assert (len(audience), len(gone.queue), woken) == (0, 0, [])


def test_the_last_of_each_topic_come_first_and_in_the_order_of_their_append() -> None:
    audience = Audience[Item](TOPICS, 3, 1_000)
    items = [Item(fields={"n": n}, appended=n) for n in range(10)]
    told = [Item("notifications", appended=n) for n in (2, 7)]
    audience.remember([*items[:5], *told])
    audience.publish(items[5:])
    joined, _ = client(BoundedQueue(100, 1_000))
    audience.join(joined, 2)
    audience.publish([new := Item(appended=11)])
    assert joined.queue.take(100) == (0, [*told, *items[8:], new])


def test_the_last_are_those_that_pass_the_filter() -> None:
    audience = Audience[Item](TOPICS, 100, 10_000)
    items = [Item(fields={"user": "ann" if n % 2 else "bob"}, appended=n) for n in range(10)]
    audience.publish(items)
    joined, _ = client(BoundedQueue(100, 1_000), {"users": "ann"})
    audience.join(joined, 2)
    assert joined.queue.take(100) == (0, [items[7], items[9]])
    assert audience.recall(joined.subscription, 0) == []
