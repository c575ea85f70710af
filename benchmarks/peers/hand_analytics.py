"""The shortest honest windows, for each partition. It commits what it has read, not what it has counted: a
crash loses the counts of open windows. So this is less work than StreamFlow does."""

from collections import Counter

import orjson
from confluent_kafka import Consumer, Producer
from login_events import CONSUMER, GRACE, OUTPUT, PRODUCER, TOPIC, WINDOW, read, stop_on_sigterm

BATCH = 50_000

stop_on_sigterm()
consumer = Consumer(CONSUMER)
producer = Producer(PRODUCER)
consumer.subscribe([TOPIC])
counts = Counter[tuple[int, int, str]]()
latest: dict[int, float] = {}  # event time, by partition

while True:
    messages = consumer.consume(BATCH, 0.2)
    for message in messages:
        if message.error():
            raise SystemExit(f"error: {message.error()}")
        try:
            event = read(message.value())
        except ValueError:
            continue  # the validator's dead letter
        partition, time = message.partition(), event.timestamp.timestamp()
        counts[partition, int(time) // WINDOW * WINDOW, event.type] += 1
        if time > latest.get(partition, 0):
            latest[partition] = time
    closed = [key for key in counts if key[1] + WINDOW + GRACE <= latest[key[0]]]
    for key in closed:
        partition, start, kind = key
        record = {
            "partition": partition,
            "window_start": start,
            "event_type": kind,
            "count": counts.pop(key),
        }
        producer.produce(OUTPUT, orjson.dumps(record), kind.encode())
    producer.flush()
    if messages:
        consumer.commit(asynchronous=False)
