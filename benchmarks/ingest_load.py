"""How many events a second an ingest worker stores, and how long a request takes.

Beside a running stack with STREAMFLOW_INGEST_ENABLED=true: python benchmarks/ingest_load.py --batch 10 --keys
"""

import argparse
import asyncio
import json
import time
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import urlsplit

PATH = "/v1/streams/user-events"


@dataclass
class Measured:
    """What the connections have seen."""

    seconds: list[float] = field(default_factory=list)  # of each request that was stored
    events: int = 0
    others: dict[int, int] = field(default_factory=dict)  # answers that were not 200, by status


def body_of(first: int, batch: int) -> bytes:
    at = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    events = [
        {
            "id": number,
            "type": "USER_LOGIN",
            "user": f"user-{number % 1000}",
            "user_email": f"user-{number % 1000}@example.com",
            "timestamp": at,
        }
        for number in range(first, first + batch)
    ]
    return json.dumps(events if batch > 1 else events[0]).encode()


async def connection(options: argparse.Namespace, first: int, until: float, seen: Measured) -> None:
    """Sends one request after the other until the time is over; at a rate, if one is given."""
    url = urlsplit(options.url)
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    token = f"Authorization: Bearer {options.token}\r\n" if options.token else ""
    due = time.monotonic()
    while time.monotonic() < until:
        body = body_of(first, options.batch)
        first += options.batch
        key = f"Idempotency-Key: {uuid.uuid4()}\r\n" if options.keys else ""
        head = (
            f"POST {PATH} HTTP/1.1\r\nHost: {url.netloc}\r\nContent-Type: application/json\r\n"
            f"{token}{key}Content-Length: {len(body)}\r\n\r\n"
        )
        began = time.monotonic()
        writer.write(head.encode() + body)
        status = await answer(reader)
        if status == 200:  # noqa: PLR2004 (HTTP's)
            seen.seconds.append(time.monotonic() - began)
            seen.events += options.batch
        else:
            seen.others[status] = seen.others.get(status, 0) + 1
        if options.rate:
            due += options.batch * options.connections / options.rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
    writer.close()


async def answer(reader: asyncio.StreamReader) -> int:
    """Reads a response; returns its status."""
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    length = next(line.partition(b":")[2] for line in lines if line.startswith(b"content-length:"))
    await reader.readexactly(int(length))
    return int(head.split(b" ", 2)[1])


async def measure(options: argparse.Namespace) -> Measured:
    seen = Measured()
    until = time.monotonic() + options.seconds
    first = time.time_ns() // 1_000_000  # other ids than those of a run before
    spacing = 1_000_000
    await asyncio.gather(
        *(
            connection(options, first + number * spacing, until, seen)
            for number in range(options.connections)
        )
    )
    return seen


def report(options: argparse.Namespace, seen: Measured, seconds: float) -> dict[str, object]:
    ordered = sorted(seen.seconds)

    def at(share: float) -> float | None:
        return round(ordered[int(share * (len(ordered) - 1))] * 1000, 1) if ordered else None

    return {
        "events_per_request": options.batch,
        "connections": options.connections,
        "keys": options.keys,
        "seconds": round(seconds, 2),
        "events": seen.events,
        "events_per_second": round(seen.events / seconds),
        "requests_per_second": round(len(ordered) / seconds),
        "p50_ms": at(0.5),
        "p99_ms": at(0.99),
        "other_answers": seen.others,
    }


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:3002")
    parser.add_argument("--token")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--batch", type=int, default=10, help="events of a request")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument(
        "--rate", type=float, help="events a second; as many as possible without it"
    )
    parser.add_argument("--keys", action="store_true", help="each request has an Idempotency-Key")
    return parser.parse_args(arguments)


def main() -> None:
    options = parsed()
    began = time.monotonic()
    seen = asyncio.run(measure(options))
    print(json.dumps(report(options, seen, time.monotonic() - began), indent=2))


if __name__ == "__main__":
    main()
